"""Plots as SVG elements that stand in a page by themselves.

Belongs here: drawing what a verdict or a model card shows as a picture. Does not belong here: what is
measured, or the pages. The same figures make the same bytes: no date, no random identifiers.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import matplotlib
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from airloop.use_cases.target import Target
from airloop.verdict import ReliabilityBin

if TYPE_CHECKING:
    from airloop.training.importance import SliceImportance

_BLUE: Final = "#0b5cad"
_QUIET: Final = "#8a8f98"
_INK: Final = "#1c1e21"
_STYLE: Final[dict[Any, Any]] = {
    # Text stays text, in the page's own font.
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 10,
    "axes.edgecolor": _QUIET,
    "axes.labelcolor": _INK,
    "text.color": _INK,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
}
_INCHES_PER_BAR: Final = 0.26


def reliability_plot(bins: Sequence[ReliabilityBin], target: Target) -> str:
    """Observed rate, or mean label, with its interval, over mean prediction, bin by bin; the diagonal is as
    predicted."""
    words = ("mean predicted probability", "observed rate", "probabilities")
    if not target.has_classes:
        unit = getattr(target, "unit", "")
        words = (f"mean prediction, {unit}", f"mean label, {unit}", "predictions")
    with matplotlib.rc_context({**_STYLE, "svg.hashsalt": "reliability"}):
        figure = _figure(5.6, 4.6)
        axes = figure.subplots()
        most = max((max(part.high, part.mean_prediction) for part in bins), default=1.0)
        least = min((min(part.low, part.mean_prediction) for part in bins), default=0.0)
        room = 0.08 * (most - least)
        start, end = (0.0, min(1.0, most * 1.08)) if target.has_classes else (least - room, most + room)
        axes.plot([start, end], [start, end], color=_QUIET, linewidth=1, linestyle="--", label="as predicted")
        predicted = [part.mean_prediction for part in bins]
        observed = [part.observed_rate for part in bins]
        below = [part.observed_rate - part.low for part in bins]
        above = [part.high - part.observed_rate for part in bins]
        axes.errorbar(
            predicted,
            observed,
            yerr=[below, above],
            fmt="o",
            color=_BLUE,
            markersize=5,
            capsize=3,
            linewidth=1,
            label="observed, 95% interval",
        )
        axes.set(xlim=(start, end), ylim=(start, end), xlabel=words[0], ylabel=words[1])
        axes.legend(frameon=False, loc="upper left")
        return _svg(figure, f"Reliability of the candidate's {words[2]}")


def importance_plot(importance: Mapping[str, float], scale: str, most: int = 20) -> str:
    """The `most` greatest values as horizontal bars, the greatest on top; the others together in one."""
    shown = dict(list(importance.items())[:most])
    others = len(importance) - len(shown)
    if others:
        shown[f"{others} others together"] = sum(list(importance.values())[most:])
    with matplotlib.rc_context({**_STYLE, "svg.hashsalt": "importance"}):
        figure = _figure(8.4, 0.8 + _INCHES_PER_BAR * len(shown))
        axes = figure.subplots()
        names, values = list(shown), list(shown.values())
        colours = [_BLUE] * (len(names) - bool(others)) + [_QUIET] * bool(others)
        places = range(len(names))
        axes.barh(places, values, color=colours, height=0.7)
        axes.set_yticks(places, names)
        axes.invert_yaxis()
        axes.set_ylim(len(names) - 0.4, -0.6)
        axes.margins(x=0.12)
        for place, value in zip(places, values, strict=True):
            axes.annotate(
                f"{value:.3f}", (value, place), xytext=(4, 0), textcoords="offset points", va="center"
            )
        axes.set_xlabel(f"mean |contribution|, {scale}")
        return _svg(figure, "Importance of the inputs")


def slice_importance_plot(
    overall: Mapping[str, float], slices: Sequence[SliceImportance], most: int = 12
) -> str:
    """The `most` important inputs by slice, as a table of shaded cells with their values."""
    names = list(overall)[:most]
    table = [[part.importance[name] for name in names] for part in slices]
    with matplotlib.rc_context({**_STYLE, "svg.hashsalt": "slices"}):
        figure = _figure(11.2, 2.2 + _INCHES_PER_BAR * len(slices))
        axes = figure.subplots()
        top = max((max(row) for row in table), default=1.0) or 1.0
        axes.pcolormesh(table, cmap="Blues", vmin=0, vmax=top * 1.3, edgecolors="white", linewidth=1)
        for row, values in enumerate(table):
            for column, value in enumerate(values):
                axes.text(
                    column + 0.5,
                    row + 0.5,
                    f"{value:.2f}",
                    ha="center",
                    va="center",
                    color="white" if value > 0.75 * top else _INK,
                    fontsize=8,
                )
        axes.set_xticks([place + 0.5 for place in range(len(names))], names, rotation=35, ha="left")
        axes.xaxis.tick_top()
        axes.set_yticks(
            [place + 0.5 for place in range(len(slices))], [f"{part.name} ({part.rows})" for part in slices]
        )
        axes.invert_yaxis()
        axes.tick_params(length=0)
        for spine in axes.spines.values():
            spine.set_visible(False)
        return _svg(figure, "Importance of the inputs by slice")


def _figure(width_inches: float, height_inches: float) -> Figure:
    figure = Figure(figsize=(width_inches, height_inches), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _svg(figure: Figure, title: str) -> str:
    """The `<svg>` element, without the head of a file of its own, no wider than the page."""
    written = io.StringIO()
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    figure.savefig(written, format="svg", metadata=nothing, transparent=True)
    element = written.getvalue()
    label = f'role="img" aria-label="{title}" style="max-width:100%;height:auto"'
    return element[element.index("<svg") :].replace("<svg ", f"<svg {label} ", 1)
