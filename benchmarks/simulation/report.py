"""What came of the policies: figures, a table, and a picture of the year.

Belongs here: measuring stories, and showing them. Does not belong here: the stories (`replay`).

Figures are of all days' rows together; a day's own are measured as monitoring measures them. Ranges are those
of a paired bootstrap over days, as in a verdict.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from airloop.intervals import Interval
from airloop.monitoring.scores.binary import BinaryFigures, BinaryScoring
from airloop.training.bootstrap import gain_range
from airloop.training.measures.binary import measure
from airloop.verdict import Range
from benchmarks.simulation.candidates import Candidates
from benchmarks.simulation.gate import ranges
from benchmarks.simulation.replay import Story
from benchmarks.simulation.year import EPOCH, Year

COLOURS: Final = ("#8a8f98", "#0b5cad", "#d1495b", "#edae49", "#2a9d8f", "#6a4c93")
QUIET: Final = "#8a8f98"
AGES: Final = (1, 2, 4, 8, 13, 26)
OLD: Final = 4


def measured(year: Year, span: Interval, story: Story, price_per_hour: float) -> dict[str, Any]:
    """The figures of one policy."""
    labels = year.rows.labels[year.numbers(span)]
    pooled, every = measure(labels, story.answers), _figures(story.answers, labels)
    hours = sum(run.seconds for run in story.runs) / 3600
    days = [one for one in _by(year, span, story, 1).values() if one.gain is not None]
    causes = [{cause.name for cause in look.causes} for look in story.looks]
    return {
        "roc_auc": _shown(pooled.roc_auc),
        "log_loss": _shown(pooled.log_loss),
        "gain": _shown(every.gain),
        "calibration_error": _shown(pooled.calibration_error),
        "mean_of_days": {
            "roc_auc": _shown(float(np.mean([one.roc_auc for one in days]))),
            "gain": _shown(float(np.mean([one.gain for one in days]))),
        },
        "trainings": len(story.runs),
        "promoted": story.promoted,
        "rejected": len(story.runs) - story.promoted,
        "training_hours": round(hours, 3),
        "cost": round(hours * price_per_hour, 2),
        "days": len(story.looks),
        "days_under_alarm": sum(bool(found) for found in causes),
        "days_by_cause": dict(Counter(name for found in causes for name in sorted(found))),
        "refusals": {str(refusal): count for refusal, count in story.refusals.items()},
    }


def compared(year: Year, span: Interval, stories: Sequence[Story], to: str) -> dict[str, Any]:
    """Each other policy less the policy `to`, with ranges: above 0 it is better than that."""
    rows = year.numbers(span)
    labels, days = year.rows.labels[rows], year.days(rows)
    by_name = {story.policy.name: story for story in stories}
    base = by_name.pop(to)
    usual = _by(year, span, base, 1)
    found = {}
    for name, story in by_name.items():
        drawn = ranges({name: story.answers, to: base.answers}, labels, days, year.spec.training.seed)
        ours, theirs = (measure(labels, one.answers) for one in (story, base))
        daily = [
            (one.gain - usual[day].gain, one.roc_auc - usual[day].roc_auc)
            for day, one in _by(year, span, story, 1).items()
            if one.gain is not None
        ]
        found[name] = {
            "roc_auc": _difference(ours.roc_auc - theirs.roc_auc, drawn.get(f"roc_auc_over_{to}")),
            "log_loss_lower": _difference(theirs.log_loss - ours.log_loss, drawn.get(f"log_loss_under_{to}")),
            "mean_of_days": {
                figure: _difference(float(values.mean()), gain_range(values, np.arange(len(values)), 1))
                for figure, values in zip(("gain", "roc_auc"), np.array(daily).T, strict=True)
            },
        }
    return found


def weeks(year: Year, span: Interval, story: Story) -> dict[str, dict[str, float | None]]:
    """ROC AUC and gain of each week from the span's start on, by its first day."""
    return {
        f"{EPOCH + timedelta(days=int(day)):%Y-%m-%d}": {
            "roc_auc": _shown(one.roc_auc),
            "gain": _shown(one.gain),
            "late_share": round(one.positives / one.labelled, 3),
        }
        for day, one in _by(year, span, story, 7).items()
    }


def staleness(year: Year, span: Interval, candidates: Candidates) -> dict[str, dict[str, float]]:
    """What a model's age costs: each Monday's candidate against the one of some weeks before, a week long.

    Both whatever their verdicts were; by age in weeks, the mean over the weeks, above 0 for a loss. With four
    weeks also by third of the span.
    """
    weeks = span.pieces(timedelta(weeks=1))
    labels = [year.rows.labels[year.numbers(week)] for week in weeks]

    def lost(week: int, age: int) -> tuple[float, float]:
        rows = year.numbers(weeks[week])
        old, new = (
            measure(labels[week], candidates.as_of(weeks[n].start).of(rows)) for n in (week - age, week)
        )
        return old.log_loss - new.log_loss, new.roc_auc - old.roc_auc

    def mean(age: int, part: range) -> dict[str, float]:
        found = np.array([lost(week, age) for week in part if week >= age])
        return {
            "weeks": len(found),
            "log_loss": _shown(found[:, 0].mean()),
            "roc_auc": _shown(found[:, 1].mean()),
        }

    ages = {f"{age} weeks": mean(age, range(len(weeks))) for age in AGES if age < len(weeks)}
    third = -(-len(weeks) // 3)
    thirds = [range(first, min(first + third, len(weeks))) for first in range(0, len(weeks), third)]
    for part in thirds:
        if part[-1] >= OLD:
            begins = weeks[max(part[0], OLD)].start
            ages[f"{OLD} weeks, {begins:%Y-%m-%d} to {weeks[part[-1]].start:%Y-%m-%d}"] = mean(OLD, part)
    return ages


def runs(story: Story) -> list[dict[str, Any]]:
    """Each training: when, why, and what became of it."""
    return [
        {
            "date": f"{run.at:%Y-%m-%d}",
            "causes": list(run.causes),
            "why": run.why,
            "failed": list(run.failed),
            "seconds": round(run.seconds, 1),
        }
        for run in story.runs
    ]


def print_table(document: Mapping[str, Any]) -> None:
    """What people read."""
    columns = ("roc_auc", "log_loss", "gain", "calibration_error", "trainings", "promoted", "rejected")
    print(
        f"\n{'policy':<14}" + "".join(f"{name:>18}" for name in (*columns, "hours", "cost", "alarmed days"))
    )
    for name, one in document["policies"].items():
        cells = [*(one[column] for column in columns), one["training_hours"], one["cost"]]
        print(f"{name:<14}" + "".join(f"{cell:>18}" for cell in (*cells, one["days_under_alarm"])))
    for name, one in document.get("staleness", {}).items():
        print(f"{name} old: {one}")
    for name, one in document["over_weekly"].items():
        print(f"{name} over weekly: {one}")


def draw(year: Year, span: Interval, stories: Sequence[Story], file: Path) -> None:
    """The quality of each week, and below it the trainings, to a PNG file."""
    figure = Figure(figsize=(11, 8.5), layout="constrained")
    FigureCanvasAgg(figure)
    auc, gain, trained = figure.subplots(3, 1, sharex=True, height_ratios=(3, 3, 0.6 + 0.25 * len(stories)))
    for number, story in enumerate(stories):
        colour = COLOURS[number % len(COLOURS)]
        by_week = _by(year, span, story, 7)
        days = [EPOCH + timedelta(days=int(day)) for day in by_week]
        label = f"{story.policy.name} ({len(story.runs)} trainings)"
        auc.plot(days, [one.roc_auc for one in by_week.values()], color=colour, label=label, linewidth=1.6)
        gain.plot(days, [one.gain for one in by_week.values()], color=colour, linewidth=1.6)
        for failed in (False, True):
            moments = [run.at for run in story.runs if bool(run.failed) == failed]
            trained.scatter(
                moments,
                [-number] * len(moments),
                s=28,
                marker="x" if failed else "o",
                color=colour,
                linewidths=1.4,
            )
    auc.set_ylabel("ROC AUC of the week")
    auc.legend(frameon=False, ncols=3, loc="lower left")
    gain.set_ylabel("gain over the week's base rate, nats")
    gain.axhline(0, color=QUIET, linewidth=0.8)
    trained.set_yticks([-n for n in range(len(stories))], [story.policy.name for story in stories])
    trained.set_ylim(-len(stories) + 0.4, 0.6)
    trained.set_xlabel("trainings: dot = promoted, cross = rejected by the verdict")
    for axes in (auc, gain, trained):
        axes.spines[["top", "right"]].set_visible(False)
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=110, metadata={"Software": None})


def _by(year: Year, span: Interval, story: Story, days: int) -> dict[int, BinaryFigures]:
    """Figures of each `days` days from the span's start on, by the first one's number since the epoch."""
    rows = year.numbers(span)
    first = (span.start - EPOCH).days
    labels, parts = year.rows.labels[rows], (year.days(rows) - first) // days
    return {
        first + int(part) * days: _figures(story.answers[parts == part], labels[parts == part])
        for part in np.unique(parts)
    }


def _figures(answers: np.ndarray, labels: np.ndarray) -> BinaryFigures:
    scoring = BinaryScoring()
    return scoring.figures(scoring.scores_of(answers, labels.astype(float)))


def _difference(value: float, found: Range | None) -> dict[str, float | None]:
    return {
        "value": _shown(value),
        "low": _shown(found.low if found else None),
        "high": _shown(found.high if found else None),
    }


def _shown(value: float | None) -> float | None:
    return None if value is None else round(float(value), 5)
