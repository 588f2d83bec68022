"""The clock: day by day through a year, under a policy that says when a candidate is trained.

Belongs here: what happens when, and what a policy's runs and champions were. Does not belong here: each of
the steps (`candidates`, `gate`, `watch`, `airloop.retraining.decision`), or what comes of it (`report`).

One tick a day, at 03:00 UTC: the day that ended at midnight has been judged, the labels of the day before it
are in, and a training looks back from that midnight, as the DAG's does. Its verdict and rollout are over by
04:00, between the last requests of an evening in New York and the first of a morning. A candidate that its
verdict rejects leaves the champion where it is. No person does anything.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final, NamedTuple

import numpy as np

from airloop.intervals import ONE_DAY, Interval
from airloop.retraining.causes import Cause
from airloop.retraining.decision import Past, Refusal, Training, decide
from airloop.use_cases.retraining_policy import DECAY, DRIFT, Retraining
from benchmarks.simulation.candidates import Candidate, Candidates
from benchmarks.simulation.watch import Look, Watch
from benchmarks.simulation.year import Year

TICK: Final = timedelta(hours=3)
ROLLED_OUT: Final = timedelta(hours=4)
SCHEDULED: Final = "schedule"

Gate = Callable[[Year, Candidate, Candidate | None], tuple[str, ...]]
"""The rules that a candidate fails."""


class Policy(NamedTuple):
    """When candidates are trained."""

    name: str
    said: str
    weeks: int | None = None
    """Every so many Mondays after the first day."""
    verdict: Retraining | None = None
    """On what monitoring finds, within these limits."""


class Run(NamedTuple):
    """One training."""

    at: datetime
    causes: tuple[str, ...]
    """Names of causes, or `SCHEDULED`."""
    why: str
    failed: tuple[str, ...]
    """Rules that the candidate failed; none: it became the champion."""
    seconds: float


@dataclass
class Story:
    """What happened under a policy."""

    policy: Policy
    answers: np.ndarray
    """Probability of each row of the span, by the champion of its moment, float32 [rows]."""
    runs: list[Run] = field(default_factory=list)
    champions: list[tuple[datetime, datetime]] = field(default_factory=list)
    """Since when each served, and as of when it was trained; the first one from the start."""
    looks: list[Look] = field(default_factory=list)
    """Of each day."""
    refusals: Counter[Refusal] = field(default_factory=Counter)
    """Days on which there was cause to train, and something against it."""

    @property
    def promoted(self) -> int:
        """Trainings whose candidate became the champion."""
        return sum(not run.failed for run in self.runs)


def replay(
    year: Year,
    policy: Policy,
    span: Interval,
    candidates: Candidates,
    gate: Gate,
    say: Callable[[str], None] = lambda _: None,
) -> Story:
    """Live through the days of `span`; the first champion is as of its start, and costs no run."""
    rows = year.numbers(span)
    champion = candidates.as_of(span.start)
    story = Story(policy, champion.of(rows).copy())
    story.champions.append((span.start, champion.as_of))
    watch = Watch(year, champion, span.start)
    trainings = [Training(span.start, "won", as_of=span.start)]
    last_request: datetime | None = None
    for number, day in enumerate(piece.start for piece in span.pieces(ONE_DAY)):
        at = day + TICK
        look = watch.look(at)
        story.looks.append(look)
        causes: tuple[str, ...] = ()
        why = ""
        if policy.weeks and number and day.weekday() == 0 and (number // 7) % policy.weeks == 0:
            causes, why = (SCHEDULED,), SCHEDULED
        elif policy.verdict:
            decision = decide(
                policy.verdict, at, _heeded(policy.verdict, look), Past(last_request, trainings)
            )
            if decision.refusal:
                story.refusals[decision.refusal] += 1
            if decision.requested:
                last_request = at
                causes, why = tuple(cause.name for cause in decision.causes), decision.said
        if not causes:
            continue
        candidate = candidates.as_of(day)
        failed = gate(year, candidate, champion)
        story.runs.append(Run(at, causes, why, failed, candidate.seconds))
        trainings.append(Training(at, "lost" if failed else "won", as_of=day))
        say(f"{policy.name} {day:%Y-%m-%d} {why}: {'; '.join(failed) or 'promoted'}")
        if failed:
            continue
        champion = candidate
        since = day + ROLLED_OUT
        served = year.numbers(Interval(since, span.end))
        story.answers[served.start - rows.start :] = champion.of(served)
        story.champions.append((since, champion.as_of))
        watch = Watch(year, champion, since)
    return story


def _heeded(policy: Retraining, look: Look) -> list[Cause]:
    wanted: Mapping[str, bool] = {DRIFT: policy.on_drift, DECAY: policy.on_decay}
    return [cause for cause in look.causes if wanted[cause.name]]
