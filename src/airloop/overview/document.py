"""The document behind a use case's page.

Belongs here: its shape, and writing it. Does not belong here: finding what it says (the modules beside this),
or how it is shown (the plugin).

A year must fit into one answer: series have a value a day, in step with the days of their part.
"""

from __future__ import annotations

from datetime import date, datetime
from pathlib import Path

from airloop.cost.advice import Fit
from airloop.cost.sums import DayCost, RunCost, Trend
from airloop.overview.part import Part
from airloop.settings import Settings
from airloop.whole_files import write_whole


class FeatureDrift(Part):
    """One feature, or the predictions, over time."""

    feature: str
    distance: tuple[float | None, ...]
    """The largest Jensen-Shannon distance of a window that ended on the day; None where none was judged."""
    alarmed: tuple[int, ...]
    """Places of the days with a window in which it was an alarm."""
    missing_share: float | None
    """In the last window."""
    usual_missing_share: float | None


class Drift(Part):
    """What was asked, day by day."""

    days: tuple[date, ...]
    features: tuple[FeatureDrift, ...]
    """The farthest in the last window first."""
    last_window: datetime | None = None


class Traffic(Part):
    """How much was asked; None for a day of which an hour was not counted."""

    days: tuple[date, ...]
    requests: tuple[int | None, ...]
    failed: tuple[int | None, ...]
    lost: tuple[int, ...]
    """Places of the days on which traffic was lost."""


class FigureByDay(Part):
    """A figure of a version's answers."""

    name: str
    words: str
    values: tuple[float | None, ...]
    usual: tuple[float | None, ...] | None
    """Means of the version's test days, where the figure tells decay."""


class Quality(Part):
    """How good the champion's answers were."""

    days: tuple[date, ...]
    version: tuple[int | None, ...]
    figures: tuple[FigureByDay, ...]
    """Those that tell decay first."""
    label_share: tuple[float | None, ...]
    """Of the day's answers, how many have a label yet."""
    alarmed: tuple[int, ...]
    worst_slices: tuple[str, ...] = ()
    """Of the last judged day, in words."""


class Candidate(Part):
    """A training, and what became of it."""

    run_id: str
    """Of MLflow."""
    started: datetime
    outcome: str
    """`won`, `lost`, `open` or `failed` (`airloop.retraining.decision.Training`)."""
    version: int | None
    verdict: str | None
    """`accepted` or `rejected`; None before it was evaluated."""
    because: str | None
    """Who or what asked for it, where that was said."""
    why_not: str | None
    """Why it was rejected or given up."""
    as_of: datetime | None
    measured: float | None
    """The figure that ranks candidates (`Overview.ranked_by`), on its test rows."""
    champion_measured: float | None
    """The champion's on the same rows."""
    price: float | None
    """Of its whole Airflow run, where that is known."""
    report_uri: str | None


class Decision(Part):
    """What was decided about a training."""

    at: datetime
    requested: bool
    said: str


class Silenced(Part):
    """A cause that nobody hears of."""

    cause: str
    until: datetime
    who: str
    reason: str


class PublishedTable(Part):
    """How fresh one table is."""

    table: str
    rows: int | None
    until: datetime | None
    """The end of the newest interval that was published."""
    at: datetime
    """When."""
    run: str | None


class Audit(Part):
    """One audit of data."""

    interval: str
    at: datetime
    passed: bool
    failures: tuple[str, ...]
    not_judged: int
    report_uri: str | None


class Costs(Part):
    """What it costs."""

    currency: str | None
    """None where nothing has a price."""
    week: float | None
    """Of all tasks in the seven days before."""
    budget_per_week: float | None
    trend: Trend | None
    change: float | None
    """By which share a week costs more than it did."""
    days: tuple[DayCost, ...]
    runs: tuple[RunCost, ...]
    fits: tuple[Fit, ...]
    idle: str | None = None
    """What of the serving machines is idle, and what would do, in words."""


class Overview(Part):
    """What a use case's page shows, but for what holds at this moment."""

    use_case: str
    written: datetime
    alarms: tuple[str, ...]
    """What is an alarm by the last windows and days that were judged, in words."""
    drift: Drift
    traffic: Traffic
    quality: Quality
    skewed: tuple[str, ...]
    """Features that were served otherwise than they are trained on, on the last compared day."""
    ranked_by: str
    """The figure that ranks candidates, in words."""
    candidates: tuple[Candidate, ...]
    """The newest first."""
    decisions: tuple[Decision, ...]
    """Those that had a cause, the newest first."""
    silences: tuple[Silenced, ...]
    tables: tuple[PublishedTable, ...]
    audits: tuple[Audit, ...]
    costs: Costs


def write_overview(settings: Settings, overview: Overview) -> Path:
    """Put `overview` in the place of the last one; its file."""
    path = settings.overview_file(overview.use_case)
    write_whole(path, overview.model_dump_json())
    return path
