"""A rollout as one page that a person reads: each stage, what was decided, and by which numbers.

Belongs here: how a rollout is shown. Does not belong here: the decisions, or reading them
(`airloop.rollout_decisions`).
"""

from __future__ import annotations

from typing import Final

from jinja2 import DictLoader, Environment, StrictUndefined

from airloop.references import StageDecision
from airloop.rollout_decisions import decisions, report_folder
from airloop.settings import Settings
from airloop.use_cases.spec import UseCase
from airloop.whole_files import write_whole

_PAGE: Final = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>{{ use_case }}: {{ about }}</title>
<style>
body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:75rem;padding:0 1rem;color:#1c1e21}
h1{margin-bottom:.2rem}h2{margin:2rem 0 .3rem}
table{border-collapse:collapse;width:100%}
td,th{border-bottom:1px solid #ddd;padding:.3rem .7rem;text-align:left;vertical-align:top}
td.number,th.number{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}
.passed{color:#116329}.breached{color:#a40e26;font-weight:600}.unknown,.quiet{color:#667}
.decision{display:inline-block;padding:.1rem .7rem;border-radius:1rem;color:#fff;font-size:.8em}
.go_on{background:#1a7f37}.hold{background:#0969da}.roll_back{background:#cf222e}.superseded{background:#9a6700}
</style>
<h1>{{ use_case }}: {{ about }}</h1>
<p class="quiet">Beside version {{ last.champion if last.champion is not none else "none" }}. {{ run }}</p>
{% for stage in stages %}
<h2>{{ stage.stage }} <span class="decision {{ stage.decision }}">{{ word(stage) }}</span></h2>
<p>{{ stage.reason }}<br>
<span class="quiet">{{ "{:,}".format(stage.requests) }} requests of clients
{% if stage.since %}from {{ stage.since.strftime("%Y-%m-%d %H:%M:%S") }}{% endif +%}
to {{ stage.until.strftime("%Y-%m-%d %H:%M:%S") }} UTC{% if stage.disagreement is not none %};
on the same requests the two differ by {{ number(stage.disagreement) }} on average{% endif %}</span></p>
{% if stage.checks %}
<table>
<tr><th>rule</th><th class="number">candidate</th><th class="number">bounds</th>
<th class="number">champion</th><th class="number">allowed</th><th class="number">on</th>
<th>outcome</th><th></th></tr>
{% for check in stage.checks %}
<tr><td>{{ check.name.replace("_", " ") }}</td>
<td class="number">{{ number(check.value) }}</td>
<td class="number">{{ number(check.low) }}
{% if check.high is not none %} to {{ number(check.high) }}{% endif %}</td>
<td class="number">{{ number(check.champion) }}</td>
<td class="number">{{ number(check.threshold) }}</td>
<td class="number">{{ "{:,}".format(check.requests) }}</td>
<td class="{{ check.outcome }}">{{ check.outcome }}</td>
<td class="quiet">{{ check.detail }}</td></tr>
{% endfor %}
</table>
{% endif %}
{% if stage.experiment %}
<h3>{{ stage.experiment.name }}: version {{ stage.experiment.champion }} (A) and version
{{ stage.experiment.version }} (B)</h3>
<p>{{ "{:,}".format(stage.experiment.control_units) }} and
{{ "{:,}".format(stage.experiment.treatment_units) }} units, drawn to give B a share of
{{ number(stage.experiment.share) }}: <span class="{{ 'breached' if stage.experiment.sample_ratio_mismatch
else 'passed' }}">sample ratio {{ "mismatch, no result" if stage.experiment.sample_ratio_mismatch
else "as drawn" }}</span> (p {{ number(stage.experiment.sample_ratio_p_value) }})</p>
<table>
<tr><th>mean over units</th><th class="number">A</th><th class="number">B</th><th class="number">B less A</th>
<th class="number">95% interval</th><th class="number">units with it</th></tr>
{% for measure in stage.experiment.measures %}
<tr><td>{{ measure.name.replace("_", " ") }}</td><td class="number">{{ number(measure.control) }}</td>
<td class="number">{{ number(measure.treatment) }}</td><td class="number">{{ number(measure.effect) }}</td>
<td class="number">{{ number(measure.low) }} to {{ number(measure.high) }}</td>
<td class="number">{{ "{:,}".format(measure.control_units) }} and
{{ "{:,}".format(measure.treatment_units) }}</td></tr>
{% endfor %}
</table>
{% endif %}
{% endfor %}
<p class="quiet">A rule is breached when the bound, or without one the candidate's value, is above what is
allowed. The method of each: <code>serving/analysis.py</code>.</p>
</html>
"""
EXPERIMENT: Final = "experiment"
"""The stage of an experiment, which is no rollout's."""
_WORDS: Final = {
    "go_on": "goes on",
    "hold": "holds",
    "roll_back": "rolled back",
    "superseded": "superseded",
}


def write_report(settings: Settings, spec: UseCase, run: str, decision: StageDecision) -> str:
    """Put `decision` in the place of the stage's last one, and make the page anew; the page's URI."""
    folder = report_folder(settings, spec, run)
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(folder / f"{decision.stage}.json", decision.model_dump_json(indent=2))
    page = folder / "index.html"
    write_whole(page, page_of(spec.name, run, decisions(folder)))
    return page.as_uri()


def page_of(use_case: str, run: str, stages: list[StageDecision]) -> str:
    """The page of a rollout, or of an experiment."""
    last = stages[-1]
    about = f"rollout of version {last.version}"
    if last.stage == EXPERIMENT:
        name = f" {last.experiment.name}" if last.experiment is not None else ""
        about = f"experiment{name} with version {last.version}"
    environment = Environment(
        loader=DictLoader({"page": _PAGE}), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    return environment.get_template("page").render(
        use_case=use_case, run=run, about=about, stages=stages, last=last, word=_word, number=_number
    )


def _word(stage: StageDecision) -> str:
    return "ended" if stage.experiment and stage.decision == "go_on" else _WORDS[stage.decision]


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"
