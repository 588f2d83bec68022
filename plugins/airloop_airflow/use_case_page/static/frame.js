// How the page lives in Airflow's UI: its theme, its links, and the way to Airflow's API.
"use strict";

const root = document.documentElement;

// Airflow shows the page in a frame of its own origin, whose root element bears the theme's class.
function followTheme(changed) {
  const outer = window.parent !== window ? window.parent.document.documentElement : null;
  const asked = window.matchMedia("(prefers-color-scheme: dark)");
  const apply = () => {
    const dark = outer ? outer.classList.contains("dark") : asked.matches;
    const theme = dark ? "dark" : "light";
    if (root.dataset.theme !== theme) {
      root.dataset.theme = theme;
      changed();
    }
  };
  if (outer) new MutationObserver(apply).observe(outer, { attributes: true, attributeFilter: ["class"] });
  else asked.addEventListener("change", apply);
  apply();
}

const base = new URL("..", location.href).pathname;

// The frame may neither navigate its parent nor open a window; a link of the parent's own document may.
function openFromAirflow(href, newTab) {
  const anchor = window.parent.document.createElement("a");
  anchor.href = href;
  if (newTab) {
    anchor.target = "_blank";
    anchor.rel = "noopener";
  }
  window.parent.document.body.append(anchor);
  anchor.click();
  anchor.remove();
}

document.addEventListener("click", (event) => {
  const link = event.target.closest("main a[href], dialog a[href]");
  if (!link) return;
  event.preventDefault();
  openFromAirflow(link.href, event.ctrlKey || event.metaKey || !("airflow" in link.dataset));
});

const runPath = (dag, run) => `${base}dags/${encodeURIComponent(dag)}/runs/${encodeURIComponent(run)}`;

// An Airflow run as records name it: <dag id>/<run id>.
function runLink(named, shown) {
  const [dag, ...rest] = (named || "").split("/");
  if (!rest.length) return text(shown ?? named ?? "");
  return link(runPath(dag, rest.join("/")), shown ?? named, true);
}

async function ask(path, options) {
  const answer = await fetch(path, { credentials: "same-origin", ...options });
  if (answer.ok) return answer.json();
  const said = await answer.json().catch(() => ({}));
  const detail = typeof said.detail === "string" ? said.detail : JSON.stringify(said.detail ?? "");
  throw new Error(answer.status === 403 ? "You may not do that." : `${answer.status}: ${detail || answer.statusText}`);
}

const trigger = (dag, conf) =>
  ask(`${base}api/v2/dags/${dag}/dagRuns`, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ logical_date: null, conf }),
  });

// Elements, never markup: whatever a record says stays text.
function element(name, attributes, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes || {})) {
    if (value === null || value === undefined || value === false) continue;
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else made.setAttribute(key, value === true ? "" : value);
  }
  made.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined));
  return made;
}
const text = (value) => document.createTextNode(value);
// Only ways that lead somewhere: a record cannot smuggle in a script.
function link(href, shown, inAirflow) {
  const safe = /^(https?:|\/)/.test(href);
  if (!safe) return text(shown);
  return element("a", { href, "data-airflow": inAirflow, rel: "noopener" }, shown);
}
