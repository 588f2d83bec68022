// The page: what serves and why, what is under way, what is wrong, and how it has been.
"use strict";

const page = document.getElementById("page");
const tabs = document.getElementById("use-cases");
const REFRESH_MILLISECONDS = 30000;
let answer = null, quality = null, asked = null, read = null;

const when = (at) => (at ? `${at.slice(0, 10)} ${at.slice(11, 16)}` : "–");
const figure = (value, digits = 4) => (value === null || value === undefined ? "–" : value.toFixed(digits));
const count = (value) => (value === null || value === undefined ? "–" : value.toLocaleString("en"));
const share = (value, digits = 0) => (value === null || value === undefined ? "–" : `${(100 * value).toFixed(digits)}%`);
const took = (value) => (value < 90 ? `${Math.round(value)} s` : value < 5400 ? `${Math.round(value / 60)} min` : `${(value / 3600).toFixed(1)} h`);
const chip = (kind, ...shown) => element("span", { class: `chip ${kind}` }, ...shown);
const card = (size, title, ...content) => element("section", { class: `card ${size}`, "aria-label": title }, element("h2", {}, title), ...content);
const quiet = (...shown) => element("p", { class: "quiet" }, ...shown);

function ago(at) {
  const passed = (Date.now() - Date.parse(at)) / 1000;
  return passed < 0 ? "now" : passed < 5400 ? `${Math.round(passed / 60)} min ago` : passed < 172800 ? `${Math.round(passed / 3600)} h ago` : `${Math.round(passed / 86400)} days ago`;
}

function table(heads, rows, label) {
  const numeric = heads.map((head) => head.startsWith("#"));
  return element("div", { class: "scroll" }, element("table", { "aria-label": label },
    element("thead", {}, element("tr", {}, heads.map((head, place) => element("th", { class: numeric[place] ? "number" : null }, head.replace("#", ""))))),
    element("tbody", {}, rows.map((row) => element("tr", {}, row.map((cell, place) => element("td", { class: numeric[place] ? "number" : typeof cell === "string" && /^\d{4}-\d\d-\d\d/.test(cell) ? "when" : null }, cell)))))));
}

function servingCard() {
  const { periods, routing } = answer.live;
  const now = periods.at(-1);
  const content = [];
  if (!now || now.end) content.push(quiet("No version serves."));
  else {
    content.push(
      element("p", { class: "big" }, `Version ${now.version} `, now.revoked ? chip("bad", "revoked") : null),
      element("p", {}, now.start ? `since ${when(now.start)} UTC, ${ago(now.start)}` : "since before there was a record"),
      quiet(now.reason ? `${now.reason}. ` : "", now.promoted_by ? ["promoted by ", runLink(now.run || now.promoted_by, now.promoted_by)] : "found serving"),
    );
    const other = routing.split;
    const beside = other ? other.share : 0;
    content.push(element("div", { class: "split", role: "img", "aria-label": `version ${now.version} answers ${share(1 - beside)}` },
      element("span", { style: `width:${100 * (1 - beside)}%` }), beside ? element("span", { style: `width:${100 * beside}%` }) : null));
    content.push(quiet(`${share(1 - beside)} version ${now.version}`, other ? `, ${share(beside)} version ${other.version}${other.experiment ? ` (experiment ${other.experiment})` : ""}` : " answers all clients",
      routing.shadow !== null && routing.shadow !== undefined ? `; version ${routing.shadow} gets copies` : ""));
  }
  return card("c3", "Serving", content);
}

const OUTCOMES = { won: ["good", "became the champion"], lost: ["bad", "did not win"], open: ["on", "under way"], failed: ["", "no candidate"] };

function candidateCard() {
  const one = answer.overview?.candidates?.[0];
  if (!one) return card("c3", "Newest candidate", quiet("None was trained yet."));
  const [kind, word] = OUTCOMES[one.outcome];
  const rejected = one.verdict === "rejected" ? chip("bad", "rejected") : one.verdict ? chip("good", "accepted") : null;
  return card("c3", "Newest candidate",
    element("p", { class: "big" }, one.version !== null ? `Version ${one.version} ` : "Not registered ", element("small", {}, `trained ${when(one.started)}`)),
    element("p", {}, rejected, " ", chip(kind, word)),
    element("p", {}, `${sentence(answer.overview.ranked_by)} ${figure(one.measured)}`, one.champion_measured !== null ? `, champion ${figure(one.champion_measured)} on the same rows` : ""),
    one.because ? quiet(`Asked for: ${one.because}`) : null,
    one.why_not ? quiet(one.why_not) : null,
    one.report_uri ? element("p", {}, link(one.report_uri, "Verdict")) : null);
}

function alertsCard() {
  const failed = answer.runs.filter((run) => run.state === "failed" && !answer.incidents.some((one) => decodeURIComponent(one.run_url).includes(run.run_id)));
  const alarms = answer.overview?.alarms || [];
  const told = answer.incidents.map((one) => element("li", {}, chip(one.severity === "page" ? "bad" : "warn", one.severity), " ", link(one.run_url, one.title, true),
    quiet(`since ${when(one.began)}${one.times > 1 ? `, ${one.times} times` : ""}; `, /^https?:/.test(one.runbook) ? link(one.runbook, "runbook") : one.runbook)));
  const runs = failed.map((run) => element("li", {}, chip("bad", "failed"), " ", link(runPath(run.dag_id, run.run_id), run.dag_id, true), quiet(when(run.run_after))));
  const waiting = answer.waiting.map((one) => element("li", {}, chip("on", "asks"), " ", link(runPath(one.dag_id, one.run_id), one.subject, true)));
  const number = told.length + runs.length + waiting.length;
  return card("c3", "Open alerts",
    element("p", { class: "big" }, number ? String(number) : "None ", alarms.length ? element("small", {}, ` ${alarms.length} alarm${alarms.length > 1 ? "s" : ""} in the last window`) : null),
    element("div", { class: "scroll", style: "max-height:9rem" }, element("ul", { class: "list" }, waiting, told, runs)),
    answer.overview?.silences.length ? quiet(`Silenced: ${answer.overview.silences.map((one) => `${one.cause} until ${when(one.until)} (${one.who}: ${one.reason})`).join("; ")}`) : null);
}

const money = (value, currency) => (value === null || value === undefined ? "–" : `${value.toFixed(value < 10 ? 2 : 0)} ${currency}`);

function costCard() {
  const costs = answer.overview?.costs;
  if (!costs?.currency) {
    const busy = (costs?.fits || []).reduce((all, one) => all + one.wall_seconds, 0);
    return card("c3", "Cost", element("p", { class: "big" }, busy ? took(busy) : "–", element("small", {}, " of tasks in 28 days")), quiet("Without a price table (AIRLOOP_PRICES) nothing has a price."));
  }
  const priced = costs.days.filter((day) => day.per_thousand !== null);
  const last = priced.at(-1);
  const over = costs.budget_per_week !== null && costs.week > costs.budget_per_week;
  return card("c3", "Cost",
    element("p", { class: "big" }, money(costs.week, costs.currency), element("small", {}, " tasks, last 7 days")),
    costs.budget_per_week !== null ? [element("div", { class: `meter ${over ? "over" : ""}` }, element("span", { style: `width:${Math.min(100, (100 * costs.week) / costs.budget_per_week)}%` })), quiet(`of ${money(costs.budget_per_week, costs.currency)} a week`)] : null,
    last ? element("p", {}, `${last.per_thousand.toPrecision(3)} ${costs.currency} per 1,000 predictions (${last.day})`) : quiet("no counted day with predictions yet"),
    costs.change !== null ? quiet(`a week costs ${share(Math.abs(costs.change))} ${costs.change < 0 ? "less" : "more"} than four weeks before`) : null);
}

const STAGES = { go_on: ["good", "passed"], hold: ["on", "holds"], roll_back: ["bad", "rolled back"], superseded: ["", "superseded"] };

function rolloutCard() {
  const { rollout, routing, rollout_uri: report } = answer.live;
  if (!rollout.length) return card("c7", "Rollout", quiet("No rollout with stages yet: the first version has nothing beside it."));
  const last = rollout.at(-1), now = routing.rollout || routing.experiment;
  return card("c7", now ? `Under way: version ${now.version}` : `Last rollout: version ${last.version}`,
    now ? element("p", {}, chip("on", routing.rollout ? routing.rollout.name : `experiment ${routing.experiment.name}`), ` since ${when(now.since)} UTC, beside version ${last.champion}`) : null,
    table(["Stage", "", "#Requests", "Checks", ""], rollout.map((stage) => {
      const [kind, word] = STAGES[stage.decision];
      const breached = stage.checks.filter((check) => check.outcome === "breached");
      return [stage.stage, chip(kind, word), count(stage.requests),
        stage.checks.length ? (breached.length ? breached.map((check) => `${check.name.replaceAll("_", " ")} ${figure(check.value, 3)} (at most ${figure(check.threshold, 3)})`).join("; ") : `${stage.checks.filter((check) => check.outcome === "passed").length} of ${stage.checks.length} passed`) : "–",
        stage.reason];
    }), "Stages"),
    report ? element("p", {}, link(report, "Report with every number")) : null);
}

function runsCard() {
  const kinds = { success: "good", failed: "bad", running: "on", queued: "" };
  return card("c5", "Last runs", table(["DAG", "State", "Run", "#Took"], answer.runs.map((run) => [
    link(`${base}dags/${run.dag_id}`, run.dag_id.slice(answer.name.length + 1), true),
    chip(kinds[run.state] ?? "", run.state),
    link(runPath(run.dag_id, run.run_id), when(run.start || run.run_after), true),
    run.start && run.end ? took((Date.parse(run.end) - Date.parse(run.start)) / 1000) : "–",
  ]), "Last runs"));
}

const modelChanges = () => answer.live.periods.filter((one) => one.start).map((one) => ({ at: Date.parse(one.start) / 1000, label: `v${one.version}` }));

const sentence = (words) => words[0].toUpperCase() + words.slice(1);

function qualityCard() {
  const found = answer.overview?.quality;
  const place = element("div", { class: "chart", id: "quality" });
  const figures = found?.figures || [];
  const shown = figures.find((one) => one.name === quality) || figures[0];
  const pick = element("div", { class: "tabs" }, figures.map((one) =>
    element("button", { "aria-pressed": String(one === shown), onclick: () => { quality = one.name; show(); } }, sentence(one.words))));
  queueMicrotask(() => {
    if (!found) return place.append(quiet("Not written yet."));
    lineChart(place, found.days, [
      { label: sentence(shown.words), values: shown.values, colour: "--one", digits: 4 },
      ...(shown.usual ? [{ label: "on its test days", values: shown.usual, colour: "--quiet", dash: [5, 4], digits: 4 }] : []),
      { label: "share with labels", values: found.label_share, colour: "--three", scale: "share", digits: 2, fromZero: true },
    ], { changes: modelChanges(), alarmed: found.alarmed });
  });
  return card("c12", "Quality of the champion by day", pick, place,
    quiet("Dashed lines: another version took over. Red points: decay is an alarm. A day is judged once enough of its labels are in.",
      found?.worst_slices.length ? ` Worst slices of the last judged day: ${found.worst_slices.join("; ")}.` : ""));
}

function driftCards() {
  const drift = answer.overview?.drift;
  const place = element("div", { class: "heat", id: "drift" });
  queueMicrotask(() => (drift ? heatmap(place, drift, answer.least_distance) : place.append(quiet("Not written yet."))));
  const now = (drift?.features || []).filter((one) => one.missing_share !== null).slice(0, 20);
  const lastOf = (one) => one.distance.findLast((value) => value !== null);
  const skewed = answer.overview?.skewed || [];
  return [
    card("c8", "Drift by feature and day", place, element("div", { class: "legend" },
      element("span", {}, element("i", { style: "background:var(--one);opacity:.25" }), "near"), element("span", {}, element("i", { style: "background:var(--one)" }), "far"),
      element("span", {}, element("i", { style: "background:var(--heat-alarm)" }), "alarm"), element("span", {}, "Jensen-Shannon distance to the champion's training days"))),
    card("c4", `Last window${drift?.last_window ? `, until ${when(drift.last_window)}` : ""}`,
      now.length ? table(["Farthest", "#Distance", "#Missing", "#Before"], now.map((one) => [
        one.feature, figure(lastOf(one), 3), share(one.missing_share, 1), share(one.usual_missing_share, 1)]), "Farthest features") : quiet("No window was judged yet."),
      skewed.length ? element("p", {}, chip("warn", "skew"), ` served otherwise than trained on: ${skewed.join(", ")}`) : null),
  ];
}

function trafficCard() {
  const found = answer.overview?.traffic;
  const place = element("div", { class: "chart", id: "traffic" });
  queueMicrotask(() => {
    if (found) lineChart(place, found.days, [
      { label: "answers", values: found.requests, colour: "--one", bars: true, fromZero: true },
      { label: "failed attempts", values: found.failed, colour: "--two", scale: "failed", fromZero: true },
    ], { height: 170, changes: modelChanges(), alarmed: found.lost });
  });
  return card(answer.overview?.costs.days.length ? "c6" : "c12", "Predictions a day", place);
}

function costChart() {
  const costs = answer.overview?.costs;
  if (!costs?.days.length) return null;
  const place = element("div", { class: "chart", id: "costs" });
  const days = costs.days.map((day) => day.day);
  queueMicrotask(() => lineChart(place, days, [
    { label: `tasks, ${costs.currency} a day`, values: costs.days.map((day) => day.tasks), colour: "--one", bars: true, digits: 2, fromZero: true },
    { label: `per 1,000 predictions`, values: costs.days.map((day) => day.per_thousand), colour: "--two", scale: "thousand", fromZero: true },
  ], { height: 170 }));
  return card("c6", "Cost a day", place);
}

function trainingsCard() {
  const costs = answer.overview?.costs;
  return card("c12", "Trainings and decisions",
    table(["Trained", "Version", "Outcome", "Asked for", `#${sentence(answer.overview?.ranked_by || "figure")}`, "#Champion's", "#Cost", ""], (answer.overview?.candidates || []).map((one) => {
      const [kind, word] = OUTCOMES[one.outcome];
      return [when(one.started), one.version !== null ? `${one.version}` : "–", chip(kind, word), one.because || "schedule or by hand", figure(one.measured), figure(one.champion_measured),
        one.price !== null && costs?.currency ? money(one.price, costs.currency) : "–", one.report_uri ? link(one.report_uri, "verdict") : one.why_not || ""];
    }), "Trainings"),
    answer.overview?.decisions.length ? [element("h3", {}, "Decisions about retraining"), table(["At", "", "Why"], answer.overview.decisions.map((one) => [
      when(one.at), one.requested ? chip("on", "requested") : chip("", "not requested"), one.said]), "Decisions")] : null);
}

function dataCards() {
  const tables = answer.overview?.tables || [], audits = answer.overview?.audits || [];
  return [
    card("c6", "Data freshness", tables.length ? table(["Table", "Published until", "At", "#Rows"], tables.map((one) => [
      one.run ? runLink(one.run, one.table) : one.table, when(one.until), `${when(one.at)}, ${ago(one.at)}`, count(one.rows)]), "Tables") : quiet("No table yet.")),
    card("c6", "Audits", audits.length ? table(["Interval", "At", "Outcome", ""], audits.map((one) => [
      one.interval, when(one.at), one.passed ? chip("good", "passed") : chip("bad", `${one.failures.length} failed`),
      [one.failures.slice(0, 3).join("; "), " ", one.report_uri ? link(one.report_uri, "report") : ""]]), "Audits") : quiet("No audit yet.")),
  ];
}

function spendingCards() {
  const costs = answer.overview?.costs;
  if (!costs?.runs.length) return [];
  const price = (value) => (costs.currency ? money(value, costs.currency) : "–");
  return [
    card("c6", "What runs used", table(["Run", "Started", "#Tasks' time", "#CPU", "#Cost"], costs.runs.map((run) => [
      link(runPath(run.dag_id, run.run_id), run.dag_id.replace(`${answer.name}_`, ""), true), when(run.started), took(run.wall_seconds), took(run.cpu_seconds), price(run.price)]), "Runs")),
    card("c6", "Jobs and their machines", table(["Job", "#Time", "#vCPUs", "#GiB", "#Cost", "Machine"], costs.fits.map((one) => [
      one.module.split(".").slice(-1)[0], took(one.wall_seconds), figure(one.peak_vcpus, 1), figure(one.peak_memory_gib, 1), price(one.price),
      [one.machine || "–", one.suggestion ? [" ", chip("warn", "change"), ` ${one.suggestion}`] : ""]]), "Jobs"), quiet("vCPUs and GiB: the most in use at once, in 28 days."),
      costs.idle ? element("p", {}, chip("warn", "idle"), ` ${costs.idle}`) : null),
  ];
}

function show() {
  const scroll = scrollY;
  const { overview, live } = answer;
  // Of batches nothing is written by the hour.
  const stale = overview && answer.is_online && Date.now() - Date.parse(overview.written) > 3 * 3600e3;
  page.replaceChildren(
    element("header", { class: "head" },
      element("div", {}, element("h1", {}, answer.name), element("p", {}, answer.description),
        quiet(`Owner ${answer.owner}. `, overview ? `History as of ${when(overview.written)} UTC. ` : "", link(answer.mlflow, "MLflow"))),
      actionButtons(answer)),
    overview ? "" : element("p", { class: "note" }, `No history yet: ${answer.name}_overview writes it when features are published, a version goes live or a window was judged.`),
    stale ? element("p", { class: "note" }, `The history was written ${ago(overview.written)}: see whether ${answer.name}_monitoring and ${answer.name}_overview run.`) : "",
    ...live.problems.map((problem) => element("p", { class: "note" }, problem)),
    element("div", { class: "grid" },
      servingCard(), candidateCard(), alertsCard(), costCard(), rolloutCard(), runsCard(), qualityCard(), ...driftCards(),
      trafficCard(), costChart() || "", trainingsCard(), ...dataCards(), ...spendingCards()),
  );
  scrollTo(0, scroll);
  // After the charts, which are drawn once they are in the page.
  queueMicrotask(() => { root.dataset.shown = answer.name; });
}

async function load(name) {
  asked = name;
  try {
    const found = await ask(`use-cases/${encodeURIComponent(name)}`);
    if (asked !== name) return;
    answer = found;
    read = new Date().toISOString();
    show();
  } catch (error) {
    if (asked !== name) return;
    const said = element("p", { class: "note", id: "unread", role: "alert" }, answer ? `As of ${when(read)} UTC: it cannot be read again. ${error.message}` : `It could not be read. ${error.message}`);
    // What is there is shown on, and says that it is old: somebody may act on it.
    document.getElementById("unread")?.remove();
    if (answer) page.prepend(said);
    else page.replaceChildren(said);
  }
}

async function start() {
  let all;
  try {
    all = await ask("use-cases");
  } catch (error) {
    page.replaceChildren(element("p", { class: "note", role: "alert" }, `Sign in to Airflow to see this page. ${error.message}`));
    return;
  }
  if (!all.length) {
    page.replaceChildren(element("p", { class: "note" }, "There is no use case that you may read."));
    return;
  }
  const choose = () => {
    // A link to Airflow's page names the use case there, until another is chosen here.
    const wanted = decodeURIComponent((location.hash || window.parent.location.hash).slice(1));
    const name = all.some((one) => one.name === wanted) ? wanted : all[0].name;
    tabs.replaceChildren(...all.map((one) => element("a", { href: `#${one.name}`, "aria-current": one.name === name ? "page" : null }, one.name)));
    if (answer?.name !== name) answer = null;
    load(name);
  };
  addEventListener("hashchange", choose);
  choose();
  setInterval(() => { if (!document.hidden && !dialog.open) load(asked); }, REFRESH_MILLISECONDS);
}

followTheme(() => { if (answer) show(); });
addEventListener("resize", () => { clearTimeout(window.resized); window.resized = setTimeout(() => answer && show(), 150); });
start();
