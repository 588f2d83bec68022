"""A study as one page that a person reads, and its plots: no script, no other file, no internet.

Belongs here: how a study is shown. Does not belong here: what follows from it (`tuned`).
"""

from __future__ import annotations

import base64
import io
import logging
import warnings
from collections.abc import Callable, Mapping
from typing import Any, Final

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import optuna
from jinja2 import Environment, StrictUndefined
from optuna.exceptions import ExperimentalWarning
from optuna.trial import FrozenTrial, TrialState
from optuna.visualization.matplotlib import (
    plot_optimization_history,
    plot_param_importances,
    plot_slice,
)

from airloop.references import Tuned
from airloop.use_cases.spec import UseCase

log = logging.getLogger(__name__)

PLOTS: Final[Mapping[str, tuple[str, Callable[[optuna.Study, str], Any]]]] = {
    "history.png": (
        "Each trial's {loss} on the validation split",
        lambda study, loss: plot_optimization_history(study, target_name=loss),
    ),
    "importances.png": (
        "How much of the differences each parameter explains",
        lambda study, _: plot_param_importances(study),
    ),
    "slice.png": (
        "Each trial's {loss} by each parameter",
        lambda study, loss: plot_slice(study, target_name=loss),
    ),
}
"""By file: a caption, and what draws it."""
_PAGE: Final = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>{{ tuned.study }}</title>
<style>
body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:75rem;padding:0 1rem;color:#1c1e21}
h1{margin-bottom:.2rem}h2{margin-top:2rem}
.wide{overflow-x:auto}table{border-collapse:collapse}
td,th{border-bottom:1px solid #ddd;padding:.3rem .7rem;text-align:left;white-space:nowrap}
td.number,th.number{text-align:right;font-variant-numeric:tabular-nums}
tr.best td{font-weight:600}.quiet{color:#667}img{max-width:100%}
figure{margin:0 0 1.5rem}img.strip{max-width:none;height:22rem}
</style>
<h1>Study {{ tuned.study }}</h1>
<p>{% if tuned.improved %}The best trial has a {{ loss }} of {{ "%.5f"|format(tuned.loss) }} on the validation
split{% if tuned.own_loss is not none %}, the spec's own parameters {{ "%.5f"|format(tuned.own_loss) }}{% else %};
the spec's own parameters diverged{% endif %}. The candidate is trained with the best trial's.
{% else %}No trial is known to beat the spec's own parameters, and the candidate is trained with these.{% endif %}</p>
<p class="quiet">{{ tuned.complete }} trials complete, {{ tuned.pruned }} pruned, {{ tuned.unfinished }} failed or
killed. Training set {{ training_set }}. The best of many trials looks better on the validation split than it is: the
verdict looks at the test split, which no trial has seen.</p>
<h2>Parameters</h2>
<div class="wide"><table>
<tr><th>parameter</th><th class="number">the spec's</th><th class="number">to train with</th></tr>
{% for name, value in tuned.parameters.items() %}
<tr{% if value != own[name] %} class="best"{% endif %}><td>{{ name }}</td>
<td class="number">{{ shown(own[name]) }}</td><td class="number">{{ shown(value) }}</td></tr>
{% endfor %}
</table></div>
{% for caption, image, wide in images %}
<h2>{{ caption }}</h2>
<figure class="wide"><img{% if wide %} class="strip"{% endif %} alt="{{ caption }}" src="data:image/png;base64,{{ image }}"></figure>
{% endfor %}
{% if lacking %}<p class="quiet">Too few trials are complete for: {{ lacking|join(", ") }}.</p>{% endif %}
<h2>Trials</h2>
<div class="wide"><table>
<tr><th class="number">trial</th><th class="number">slot</th><th>state</th><th class="number">{{ loss }}</th>
<th class="number">epochs</th><th class="number">seconds</th>
{% for name in names %}<th class="number">{{ name }}</th>{% endfor %}</tr>
{% for trial in trials %}
<tr{% if trial.number == best %} class="best"{% endif %}><td class="number">{{ trial.number }}</td>
<td class="number">{{ trial.user_attrs.get("slot", "") }}</td><td>{{ trial.state.name|lower }}</td>
<td class="number">{{ shown(trial.value) }}</td>
<td class="number">{{ trial.intermediate_values|length }}</td>
<td class="number">{{ "%.0f"|format(trial.duration.total_seconds()) if trial.duration else "" }}</td>
{% for name in names %}<td class="number">{{ shown(trial.params.get(name)) }}</td>{% endfor %}</tr>
{% endfor %}
</table></div>
</html>
"""  # noqa: E501 - a page


def plots_of(study: optuna.Study, spec: UseCase) -> dict[str, bytes]:
    """The study's plots as PNG, by file name; those that too few complete trials allow are left out."""
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    # Importances are shares of the differences between trials.
    differ = len({trial.value for trial in complete}) > 1
    wanted = {name: draw for name, (_, draw) in PLOTS.items() if differ or name != "importances.png"}
    return {name: _png(draw, study, spec.label.target.loss.words) for name, draw in wanted.items()}


def page_of(
    study: optuna.Study,
    spec: UseCase,
    tuned: Tuned,
    best: FrozenTrial,
    training_set: str,
    plots: Mapping[str, bytes],
) -> str:
    """The closed study as HTML."""
    loss = spec.label.target.loss.words
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    trials = study.get_trials(deepcopy=False)
    return environment.from_string(_PAGE).render(
        tuned=tuned,
        training_set=training_set,
        own=spec.training.parameters,
        loss=loss,
        images=[
            (caption.format(loss=loss), base64.b64encode(plots[name]).decode(), name == "slice.png")
            for name, (caption, _) in PLOTS.items()
            if name in plots
        ],
        lacking=[caption.format(loss=loss) for name, (caption, _) in PLOTS.items() if name not in plots],
        names=sorted({name for trial in trials for name in trial.params}),
        trials=trials,
        best=best.number,
        shown=_shown,
    )


def _shown(value: float | None) -> str:
    return "" if value is None else f"{value:.5g}"


def _png(draw: Callable[[optuna.Study, str], Any], study: optuna.Study, loss: str) -> bytes:
    matplotlib.use("Agg")
    # Optuna changes the style for the whole process, and calls its plots experimental.
    with plt.rc_context(), warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        axes = np.ravel(draw(study, loss))
        figure = axes[0].figure
        written = io.BytesIO()
        figure.savefig(written, format="png", dpi=100, bbox_inches="tight")
        plt.close(figure)
    return written.getvalue()
