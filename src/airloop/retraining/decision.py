"""Whether a candidate is to be trained: causes, and everything that speaks against it.

Belongs here: the rule, a pure function. Does not belong here: finding causes (`causes`), or what was
trained before (`past`).
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from enum import StrEnum
from statistics import median
from typing import Final, Literal, NamedTuple

from airloop.retraining.causes import Cause
from airloop.use_cases.retraining_policy import Retraining

ONE_WEEK: Final = timedelta(days=7)
USUAL_OF: Final = 5
"""How many of the newest prices say what a training costs: the median of them."""


class Refusal(StrEnum):
    """Why nothing is requested though there is cause to."""

    SILENCED = "silenced"
    """A person said so, for every cause."""
    STOPPED = "stopped"
    """Too many candidates in a row did not win."""
    UNDER_WAY = "under way"
    """A candidate is being trained or rolled out."""
    BUDGET = "budget"
    """The week's trainings, or its money, are used up."""
    COOL_DOWN = "cool-down"
    """The last request or training is too recent."""


class Training(NamedTuple):
    """A candidate, trained for whatever reason."""

    started: datetime
    outcome: Literal["won", "lost", "open", "failed"]
    """`won`: it became the champion. `lost`: its verdict or its rollout was against it. `open`: neither yet.
    `failed`: there was no candidate in the end, which says nothing about candidates."""
    price: float | None = None
    """None where it is not known, or not yet."""
    as_of: datetime | None = None
    """The end of the data that it was trained and judged on, where it is known."""
    run_id: str = ""
    """Of MLflow."""


class Past(NamedTuple):
    """What was requested and trained, oldest first."""

    last_request: datetime | None
    trainings: Sequence[Training]


class Decision(NamedTuple):
    """What is to be done, and why."""

    requested: bool
    causes: tuple[Cause, ...]
    """Those that count; the silenced ones where none do."""
    refusal: Refusal | None
    said: str
    """All of it in words."""


def decide(
    policy: Retraining,
    at: datetime,
    causes: Sequence[Cause],
    past: Past,
) -> Decision:
    """Whether a candidate is to be requested at `at`.

    What only a person can change (a silence, too many losers) is said before what passes by itself.
    """
    if not causes:
        return Decision(False, (), None, "no cause")
    heard = tuple(cause for cause in causes if cause.silence is None)
    if not heard:
        said = "; ".join(f"{cause.why}: {cause.silence.said}" for cause in causes if cause.silence)
        return Decision(False, tuple(causes), Refusal.SILENCED, said)
    why = "; ".join(cause.why for cause in heard)
    refused = _refusal(policy, at, past)
    if refused is not None:
        refusal, said = refused
        return Decision(False, heard, refusal, f"{why}; not requested: {said}")
    return Decision(True, heard, None, why)


def losers(trainings: Sequence[Training]) -> int:
    """How many of the newest candidates lost, in a row; those that failed, or are open yet, do not count."""
    count = 0
    for training in reversed(trainings):
        if training.outcome == "won":
            break
        count += training.outcome == "lost"
    return count


def _refusal(policy: Retraining, at: datetime, past: Past) -> tuple[Refusal, str] | None:
    lost = losers(past.trainings)
    if lost >= policy.most_losers:
        return Refusal.STOPPED, (
            f"the last {lost} candidates did not become the champion (at most {policy.most_losers} in a "
            "row); a person has to see why, and to start the next training"
        )
    started = [training.started for training in past.trainings]
    newest = next((one for one in reversed(past.trainings) if one.outcome != "failed"), None)
    if newest is not None and newest.outcome == "open":
        return Refusal.UNDER_WAY, f"the candidate of {_shown(newest.started)} is not decided yet"
    week = [training for training in past.trainings if training.started > at - ONE_WEEK]
    if len(week) >= policy.trainings_per_week:
        return Refusal.BUDGET, (
            f"{len(week)} trainings within a week (at most {policy.trainings_per_week}), the oldest of "
            f"{_shown(week[0].started)}"
        )
    if policy.price_per_week is not None and (said := _too_dear(policy.price_per_week, week, past.trainings)):
        return Refusal.BUDGET, said
    last = max((moment for moment in (past.last_request, *started) if moment is not None), default=None)
    cool_down = policy.cool_down * 2**lost
    if last is not None and last > at - cool_down:
        said = f"it cools down until {_shown(last + cool_down)}"
        if lost:
            said += f", for {_days(cool_down)} after {lost} that did not become the champion"
        return Refusal.COOL_DOWN, said
    return None


def _too_dear(most: float, week: Sequence[Training], trainings: Sequence[Training]) -> str | None:
    """Why another training at the usual price would cost more than `most` a week; None if it would not.

    One whose price is not known counts as a usual one; where none has a price, nothing says what would be
    spent, and the budget refuses.
    """
    prices = [training.price for training in trainings if training.price is not None]
    if not prices:
        return (
            "no training has a price yet, so nothing tells what the budget of "
            f"{most:g} a week allows; set AIRLOOP_PRICES and train once by hand"
            if trainings
            else None
        )
    usual = median(prices[-USUAL_OF:])
    spent = sum(usual if training.price is None else training.price for training in week)
    if spent + usual <= most:
        return None
    return (
        f"{spent:.2f} spent within a week, another training costs about {usual:.2f} (at most {most:g} a week)"
    )


def _days(time: timedelta) -> str:
    return f"{time / timedelta(days=1):g} days"


def _shown(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M} UTC"
