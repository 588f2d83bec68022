// What a person can have done from the page: each starts a run of a DAG, as that person.
"use strict";

const dialog = document.getElementById("dialog");

// Asks for `fields` ({name, label, type, value, options, help, required}), then triggers `dag` with `conf(values)`.
function askAndTrigger({ title, explain, fields, dag, conf, button }) {
  const failed = element("p", { class: "failed", role: "alert", hidden: true });
  const inputs = {};
  const rows = fields.map((field) => {
    const common = { id: `field-${field.name}`, name: field.name, required: field.required !== false };
    const input = field.options
      ? element("select", common, field.options.map((option) => element("option", { value: option }, option)))
      : element("input", { ...common, type: field.type || "text", min: field.min, max: field.max });
    if (field.value !== undefined) input.value = field.value;
    inputs[field.name] = input;
    return [
      element("label", { for: common.id }, field.label),
      input,
      field.help ? element("p", { class: "quiet" }, field.help) : null,
    ];
  });
  const go = element("button", { class: "main", type: "submit" }, button || title);
  const form = element(
    "form",
    {
      method: "dialog",
      onsubmit: async (event) => {
        event.preventDefault();
        go.disabled = true;
        failed.hidden = true;
        const values = Object.fromEntries(Object.entries(inputs).map(([name, input]) => [name, input.value.trim()]));
        try {
          const run = await trigger(dag, conf(values));
          dialog.replaceChildren(
            element("h2", {}, "Started"),
            element("p", {}, "Run ", link(runPath(dag, run.dag_run_id), run.dag_run_id, true), ` of ${dag}.`),
            element("div", { class: "actions" }, element("button", { class: "main", onclick: () => dialog.close() }, "Close")),
          );
        } catch (error) {
          failed.textContent = error.message;
          failed.hidden = false;
          go.disabled = false;
        }
      },
    },
    element("h2", {}, title),
    explain ? element("p", { class: "quiet" }, explain) : null,
    rows,
    failed,
    element("div", { class: "actions" }, element("button", { type: "button", onclick: () => dialog.close() }, "Cancel"), go),
  );
  dialog.replaceChildren(form);
  dialog.showModal();
}

const inDays = (days) => new Date(Date.now() + days * 86400e3).toISOString().slice(0, 10);

function actionButtons(answer) {
  const { name, may, user, overview, live, off } = answer;
  const serving = live.periods.at(-1);
  const newest = overview?.candidates?.[0];
  const challenger = overview?.candidates?.find((one) => one.version !== null && one.version !== serving?.version && one.outcome === "open");
  const causes = ["drift", "decay", "new_events", "lost_traffic", "skew", ...(overview?.drift.features || []).map((one) => `drift of ${one.feature}`)];
  const reason = { name: "reason", label: "Reason", help: "It is kept; whoever comes next reads it." };
  const button = (shown, action, unless, onclick) => {
    if (!(action in may)) return "";
    const why = !may[action] ? "Your role may not start this." : off.includes(action) ? "The DAG is switched off: a run of it would wait." : unless;
    return element("button", { onclick, disabled: Boolean(why), title: why }, shown);
  };
  return element(
    "div",
    { class: "actions", id: "actions" },
    button("Retrain", "train", null, () =>
      askAndTrigger({
        title: "Retrain", dag: `${name}_training`, fields: [reason],
        explain: "Trains a candidate on the newest data. It serves only if its verdict and its rollout allow it.",
        conf: (values) => ({ reason: `${values.reason} (${user})` }),
      })),
    newest && newest.verdict === "rejected"
      ? button("Accept rejected", "accept", null, () =>
          askAndTrigger({
            title: "Accept a rejected candidate", dag: `${name}_override`, fields: [reason],
            explain: `Its verdict: ${newest.why_not || "see the report"}. Your name and reason are on the verdict, the model card and in the audit log.`,
            conf: (values) => ({ run_id: newest.run_id, by: user, reason: values.reason }),
          }))
      : button("Promote", "roll_out", challenger ? null : "There is no candidate that was accepted and is not decided.", () =>
          askAndTrigger({
            title: `Roll out version ${challenger.version}`, dag: `${name}_rollout`, fields: [reason],
            explain: "Its checks, shadow and canaries come first; it becomes the champion if it holds.",
            conf: (values) => ({ action: "roll_out", version: challenger.version, reason: `${values.reason} (${user})` }),
          })),
    button("Roll back", "roll_back", serving ? null : "Nothing serves yet.", () =>
      askAndTrigger({
        title: "Roll back", dag: `${name}_rollout`, fields: [reason],
        explain: live.routing.rollout || live.routing.experiment
          ? "Ends what is under way: the champion has all traffic again at once."
          : "The version before has all traffic again at once.",
        conf: (values) => ({ action: "rollback", reason: `${values.reason} (${user})` }),
      })),
    button("Silence", "silence", null, () =>
      askAndTrigger({
        title: "Silence a cause", dag: `${name}_silence`,
        explain: "It is still judged and shown here; no alert of it is sent, and it leads to no training.",
        fields: [
          { name: "cause", label: "Cause", options: causes },
          { name: "until", label: "Until (midnight UTC)", type: "date", value: inDays(7), min: inDays(0), max: inDays(89) },
          reason,
        ],
        conf: (values) => ({ cause: values.cause, until: `${values.until}T00:00:00Z`, by: user, reason: values.reason }),
      })),
  );
}
