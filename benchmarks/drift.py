"""Benchmark: what the monitor finds on a year of real flights, of drift that is there and of none.

    make bench-drift        (or: python -m benchmarks.drift [--windows 1000] [--seed 1])

A window is a day of flight_delay's model inputs, as training has them, with the answers of a logistic
regression that did not learn from that day. It is judged as the monitoring DAG judges it
(`airloop.monitoring`): against a reference of as many days as the spec trains on, predictions against as many
as it tests on.

- *Without drift*: the year's days are shuffled, so that reference and windows are alike; `--windows` of them.
- *Injected drifts*, of the sizes that the table states, from the third window of each shuffled sequence on:
  found when an alarm names a feature that was changed within five windows, by 2 of the last 3 windows. Of a
  number whose days are unlike each other (wind speed), and of one whose days are alike (seats of the plane).
- *Seasonal return*: of a reference of winter days, five days of July and then five other winter days.
- *Concept drift without feature drift*: other labels for the same features. What looks at features alone
  cannot see it, and is not to: it would be a false alarm.
- *The year in its order*: the reference is its first months, and every later day a window.

Beside it, Evidently's defaults on the same windows: its tests and thresholds for each column (Wasserstein
distance for numbers, Jensen-Shannon for categories, 0.1), against 10,000 rows of the same reference, with
"found" by any column that was changed, in the first window or a later one; and its verdict on a data set,
half of the columns.

Ends with one line of JSON. Exits with 1 when more windows without drift raise an alarm than the spec's
false-discovery rate.

Belongs here: the measure. Does not belong here: anything that monitoring needs. The data are those of
`make bench-model`.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from statistics import median
from typing import Any, Final, NamedTuple

# Benchmarks run where nothing outside is reached.
os.environ.setdefault("DO_NOT_TRACK", "1")

import numpy as np
import pandas as pd
from evidently.legacy.calculations.stattests import get_stattest
from evidently.legacy.core import ColumnType

from airloop.monitoring.cells import Cells
from airloop.monitoring.drift import Found, alarmed, judge
from airloop.monitoring.homogeneity import Comparison, compare
from airloop.monitoring.monitored import PREDICTION, watched, watched_values
from airloop.monitoring.profile import Profile, profile_of
from airloop.settings import load_settings
from airloop.training.examples import SECONDS_PER_DAY, Columns, Examples, read_examples, take
from airloop.use_cases.catalogue import use_case
from airloop.use_cases.spec import UseCase
from benchmarks.model import USE_CASE, bench_settings, build_training_set
from benchmarks.usual_models import linear

BEFORE, DRIFTED = 2, 5
"""Windows of a sequence without the drift, and with it."""
UNLIKE_DAYS, LIKE_DAYS = "wind_speed_mph", "tail_seats"
"""A number that is another one each day, and one whose days are much alike."""
EVIDENTLY_ROWS: Final = 10_000
FEWEST_ROWS: Final = 200
Values = dict[str, np.ndarray]
"""Of one window: by watched feature, [rows]; and the prediction."""


class Year(NamedTuple):
    """All rows, as the model gets them, with the day of each."""

    spec: UseCase
    columns: Columns
    labels: np.ndarray
    predictions: np.ndarray
    days: np.ndarray
    rows_of: Mapping[int, np.ndarray]


class Drift(NamedTuple):
    """A change of windows."""

    name: str
    change: Callable[[Year, np.ndarray, np.random.Generator], tuple[Columns, np.ndarray]]
    """The model's inputs and the predictions of the rows, changed."""
    features: tuple[str, ...]
    """Watched features that are no longer as they were; none for a change that these cannot show."""


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(description="Measure the monitor on real days, and on injected drifts.")
    parser.add_argument("--windows", type=int, default=1000, help="without drift")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args(argv)
    deployment, spec = load_settings(), use_case(USE_CASE)
    settings = bench_settings(deployment, spec)
    training_set = build_training_set(deployment, settings)
    splits = [read_examples(settings, spec, training_set, split) for split in ("train", "validation", "test")]
    year = whole_year(spec, splits, arguments.seed)
    print(f"{len(year.rows_of)} days, {len(year.labels)} rows, {len(watched(spec)) + 1} features", flush=True)
    calm, sequences = without_drift(year, arguments.windows, arguments.seed)
    print(f"without drift: {json.dumps(calm)}", flush=True)
    found = {}
    for drift in drifts(year):
        found[drift.name] = injected(year, drift, sequences, arguments.seed)
        print(f"{drift.name}: {json.dumps(found[drift.name])}", flush=True)
    season = seasonal_return(year, arguments.seed)
    print(f"seasonal return: {json.dumps(season)}", flush=True)
    weeks = in_order(year)
    print_table(calm, found, season, weeks)
    print(json.dumps({"without_drift": calm, "drifts": found, "seasonal_return": season, "weeks": weeks}))
    return 0 if calm["alarm_rate"] <= spec.monitoring.drift.false_discovery_rate else 1


def whole_year(spec: UseCase, splits: Sequence[Examples], seed: int) -> Year:
    """All rows; each day's predictions come from the days of the other half."""
    columns = {
        item.name: np.concatenate([split.columns[item.name] for split in splits]) for item in spec.inputs
    }
    labels = np.concatenate([split.labels for split in splits])
    days = columns[spec.event_field] // SECONDS_PER_DAY
    half = np.random.default_rng(seed).permutation(np.unique(days))[::2]
    inside, predictions = np.isin(days, half), np.empty(len(labels))
    for learnt, asked in ((inside, ~inside), (~inside, inside)):
        fitted = linear(
            spec,
            Examples(take(columns, np.flatnonzero(learnt)), labels[learnt]),
            Examples(take(columns, np.flatnonzero(asked)), labels[asked]),
        )
        predictions[asked] = fitted.answers
    # The first and the last day are cut by the windows at noon.
    rows_of = {
        int(day): rows for day in np.unique(days) if len(rows := np.flatnonzero(days == day)) >= FEWEST_ROWS
    }
    return Year(spec, columns, labels, predictions, days, rows_of)


class Reference:
    """What windows are compared with: a profile of some days, and the same for Evidently."""

    def __init__(self, year: Year, train_days: Sequence[int], test_days: Sequence[int], seed: int) -> None:
        self.year, self.rule = year, year.spec.monitoring.drift
        train = np.concatenate([year.rows_of[day] for day in train_days])
        test = np.concatenate([year.rows_of[day] for day in test_days])
        inputs = take(year.columns, train)
        self.profile: Profile = profile_of(
            *(year.spec, "bench"),
            train=inputs,
            train_days=year.days[train],
            predictions=year.predictions[test],
            labels=year.labels[test],
            test_days=year.days[test],
        )
        every = (*self.profile.features, self.profile.prediction)
        self.cells: dict[str, Cells] = {one.cells.feature: one.cells for one in every}
        self.counts = {one.cells.feature: one.array() for one in every}
        random = np.random.default_rng(seed)
        values = watched_values(year.spec, inputs) | {PREDICTION: year.predictions[test]}
        self.sample = {
            name: pd.Series(random.choice(found, min(EVIDENTLY_ROWS, len(found)), replace=False))
            for name, found in values.items()
        }
        self.kinds = {
            name: ColumnType.Categorical if kind == "category" else ColumnType.Numerical
            for name, kind in watched(year.spec).items()
        }
        self.kinds[PREDICTION] = ColumnType.Numerical

    def compared(self, values: Values, names: Sequence[str]) -> dict[str, Comparison]:
        """Our comparison of the features `names` of a window."""
        return {name: compare(self.cells[name].count(values[name]), self.counts[name]) for name in names}

    def evidently(self, values: Values, names: Sequence[str]) -> set[str]:
        """The features that Evidently's default test takes for drifted."""
        drifted = set()
        for name in names:
            reference, current = self.sample[name].dropna(), pd.Series(values[name]).dropna()
            if current.empty:
                drifted.add(name)
                continue
            test = get_stattest(reference, current, self.kinds[name], None)
            if test(reference, current, self.kinds[name], None).drifted:
                drifted.add(name)
        return drifted


class Shuffled(NamedTuple):
    """Shuffled days, and what was found in each without a drift."""

    reference: Reference
    days: tuple[int, ...]
    compared: tuple[dict[str, Comparison], ...]


def window_values(year: Year, columns: Columns, predictions: np.ndarray) -> Values:
    """The watched values of a window."""
    return watched_values(year.spec, columns) | {PREDICTION: predictions}


def plain(year: Year, day: int) -> Values:
    """The watched values of a day as it was."""
    rows = year.rows_of[day]
    return window_values(year, take(year.columns, rows), year.predictions[rows])


def without_drift(year: Year, windows: int, seed: int) -> tuple[dict[str, Any], list[Shuffled]]:
    """How often shuffled days are taken for drift, and the days in sequences for other measures."""
    random, sequences = np.random.default_rng(seed), []
    count, found, alarms, columns, sets = 0, 0, 0, 0, 0
    named: Counter[str] = Counter()
    while count < windows:
        reference, order = shuffled(year, random)
        seen: list[dict[str, Found]] = []
        compared = []
        for day in order[: windows - count]:
            values = plain(year, day)
            compared.append(reference.compared(values, list(reference.cells)))
            seen.append(judge(compared[-1], reference.rule))
            found += any(one.drifted for one in seen[-1].values())
            alarm = alarmed(seen, reference.rule)
            named.update(alarm)
            alarms += bool(alarm)
            theirs = reference.evidently(values, list(reference.cells))
            columns += bool(theirs)
            sets += len(theirs) >= len(reference.cells) / 2
            count += 1
        length = BEFORE + DRIFTED
        for start in range(0, len(compared) - length + 1, length):
            part = slice(start, start + length)
            sequences.append(Shuffled(reference, tuple(order[part]), tuple(compared[part])))
    return {
        "windows": count,
        "stated_rate": year.spec.monitoring.drift.false_discovery_rate,
        "anything_found_rate": round(found / count, 4),
        "alarm_rate": round(alarms / count, 4),
        "alarmed_most": dict(named.most_common(5)),
        "evidently_any_column_rate": round(columns / count, 4),
        "evidently_data_set_rate": round(sets / count, 4),
    }, sequences


def shuffled(year: Year, random: np.random.Generator) -> tuple[Reference, list[int]]:
    """A reference of days at random, and the other days in an order at random."""
    order = random.permutation(list(year.rows_of)).tolist()
    policy = year.spec.training
    first, last = policy.train_days, policy.train_days + policy.test_days
    return Reference(year, order[:first], order[first:last], int(random.integers(2**31))), order[last:]


def injected(year: Year, drift: Drift, sequences: Sequence[Shuffled], seed: int) -> dict[str, Any]:
    """How often, and how soon, `drift` is found."""
    random = np.random.default_rng(seed)
    delays, their_delays, distances = [], [], []
    for sequence in sequences:
        reference = sequence.reference
        names = drift.features or tuple(reference.cells)
        seen: list[dict[str, Found]] = []
        delay = their_delay = None
        for place, (day, base) in enumerate(zip(sequence.days, sequence.compared, strict=True)):
            if place < BEFORE:
                seen.append(judge(base, reference.rule))
                continue
            columns, predictions = drift.change(year, year.rows_of[day], random)
            values = window_values(year, columns, predictions)
            compared = base | reference.compared(values, names)
            distances.append(max(compared[name].distance for name in names))
            seen.append(judge(compared, reference.rule))
            if delay is None and set(alarmed(seen, reference.rule)) & set(names):
                delay = place - BEFORE + 1
            if their_delay is None and reference.evidently(values, names):
                their_delay = place - BEFORE + 1
        delays.append(delay)
        their_delays.append(their_delay)
    return {
        "sequences": len(sequences),
        "found": _share(delays),
        "windows_until_found": _median(delays),
        "evidently_found": _share(their_delays),
        "evidently_windows_until_found": _median(their_delays),
        "largest_distance": round(median(distances), 3),
    }


def _share(delays: Sequence[int | None]) -> float:
    return round(sum(delay is not None for delay in delays) / max(len(delays), 1), 3)


def _median(delays: Sequence[int | None]) -> float | None:
    found = [delay for delay in delays if delay is not None]
    return median(found) if found else None


def drifts(year: Year) -> Iterator[Drift]:
    """What is injected."""
    for number in (UNLIKE_DAYS, LIKE_DAYS):
        yield from _of_number(year, number)
    word = "carrier"
    for share in (0.02, 0.1):

        def new_word(
            year: Year, rows: np.ndarray, random: np.random.Generator, share: float = share
        ) -> tuple[Columns, np.ndarray]:
            columns = dict(take(year.columns, rows))
            columns[word] = np.where(random.random(len(rows)) < share, "ZZ", columns[word])
            return columns, year.predictions[rows]

        yield Drift(f"new category in {share:.0%} of rows", new_word, (word,))
    for factor in (1.5, 3.0):

        def more_late(
            year: Year, rows: np.ndarray, random: np.random.Generator, factor: float = factor
        ) -> tuple[Columns, np.ndarray]:
            weight = np.where(year.labels[rows] == 1, factor, 1.0)
            drawn = random.choice(rows, len(rows), p=weight / weight.sum())
            return take(year.columns, drawn), year.predictions[drawn]

        yield Drift(f"label shift (odds of late times {factor:g})", more_late, (PREDICTION,))

    def other_labels(year: Year, rows: np.ndarray, random: np.random.Generator) -> tuple[Columns, np.ndarray]:
        return take(year.columns, rows), year.predictions[rows]

    yield Drift("concept drift without feature drift", other_labels, ())


def _of_number(year: Year, number: str) -> Iterator[Drift]:
    known = year.columns[number][np.isfinite(year.columns[number])]
    mean, spread = float(known.mean()), float(known.std())

    def drift(name: str, change: Callable[[np.ndarray, np.random.Generator], np.ndarray]) -> Drift:
        def changed(year: Year, rows: np.ndarray, random: np.random.Generator) -> tuple[Columns, np.ndarray]:
            columns = dict(take(year.columns, rows))
            columns[number] = change(columns[number], random).astype(np.float32)
            return columns, year.predictions[rows]

        return Drift(f"{number}: {name}", changed, (number,))

    for size in (0.25, 0.5, 1.0, 2.0):
        yield drift(f"mean + {size} standard deviations", lambda v, _, s=size: v + s * spread)
    for size in (1.5, 2.0):
        yield drift(f"variance times {size**2:g}", lambda v, _, s=size: mean + (v - mean) * s)
    for share in (0.1, 0.5):
        yield drift(
            f"missing in {share:.0%} of rows",
            lambda v, random, s=share: np.where(random.random(len(v)) < s, np.nan, v),
        )
    yield drift("broken (always 0)", lambda v, _: np.zeros_like(v))


def seasonal_return(year: Year, seed: int) -> dict[str, Any]:
    """Winter days as the reference: five days of July are drift, and five other winter days are none."""
    random = np.random.default_rng(seed)
    month = {day: datetime.fromtimestamp(day * SECONDS_PER_DAY, UTC).month for day in year.rows_of}
    winter = [day for day in month if month[day] <= 3]
    july = [day for day in month if month[day] == 7]
    found, returned, sequences = 0, 0, 0
    for _ in range(6):
        order = random.permutation(winter).tolist()
        reference = Reference(year, order[:60], order[:60], seed)
        rest = order[60:]
        for start in range(0, len(rest) - DRIFTED + 1, DRIFTED):
            away = random.choice(july, DRIFTED, replace=False).tolist()
            seen: list[dict[str, Found]] = []
            for place, day in enumerate([*away, *rest[start : start + DRIFTED]]):
                values = plain(year, day)
                seen.append(judge(reference.compared(values, ["temperature_f"]), reference.rule))
                alarm = bool(alarmed(seen, reference.rule))
                if place == DRIFTED - 1:
                    found += alarm
            returned += not alarm
            sequences += 1
    return {
        "sequences": sequences,
        "found_in_july": round(found / sequences, 3),
        "over_after_five_winter_days": round(returned / sequences, 3),
    }


def in_order(year: Year) -> list[dict[str, Any]]:
    """The alarms of each week, with the first months as the reference."""
    days, policy = sorted(year.rows_of), year.spec.training
    learnt = policy.train_days + policy.validation_days
    tested = learnt + policy.test_days
    reference = Reference(year, days[: policy.train_days], days[learnt:tested], 0)
    weeks: dict[str, dict[str, Any]] = {}
    seen: list[dict[str, Found]] = []
    late = year.labels.mean()
    for day in days[tested:]:
        seen.append(judge(reference.compared(plain(year, day), list(reference.cells)), reference.rule))
        monday = datetime.fromtimestamp(day * SECONDS_PER_DAY, UTC)
        name = "{}-W{:02}".format(*monday.isocalendar()[:2])
        week = weeks.setdefault(
            name, {"week": name, "days": 0, "alarmed_days": 0, "named": Counter(), "rows": []}
        )
        alarm = alarmed(seen, reference.rule)
        week["days"] += 1
        week["alarmed_days"] += bool(alarm)
        week["named"].update(alarm)
        week["rows"].append(year.rows_of[day])
    found = []
    for week in weeks.values():
        rows = np.concatenate(week.pop("rows"))
        named = week.pop("named").most_common(4)
        found.append(
            {
                **week,
                "named": dict(named),
                "late_share": round(float(year.labels[rows].mean()), 3),
                "usual_late_share": round(float(late), 3),
                "temperature_f": round(float(np.nanmean(year.columns["temperature_f"][rows])), 1),
                "mean_departure_delay_3h": round(
                    float(np.nanmean(year.columns["origin_mean_departure_delay_3h"][rows])), 1
                ),
            }
        )
    return found


def print_table(
    calm: Mapping[str, Any],
    found: Mapping[str, Mapping[str, Any]],
    season: Mapping[str, Any],
    weeks: Sequence[Mapping[str, Any]],
) -> None:
    """Print what people read."""
    print(
        f"\n{calm['windows']} windows without drift: an alarm in {calm['alarm_rate']:.1%} (at most "
        f"{calm['stated_rate']:.0%}), anything found in {calm['anything_found_rate']:.1%}\n"
        f"Evidently: any column in {calm['evidently_any_column_rate']:.1%}, "
        f"the data set in {calm['evidently_data_set_rate']:.1%}\n"
    )
    print(f"{'drift':<45}{'found':>8}{'windows':>9}{'Evidently':>11}{'windows':>9}")
    for name, one in found.items():
        print(
            f"{name:<45}{one['found']:>8.0%}{one['windows_until_found'] or '':>9}"
            f"{one['evidently_found']:>11.0%}{one['evidently_windows_until_found'] or '':>9}"
        )
    print(f"seasonal return: {season}\n")
    print(f"{'week':<10}{'alarmed':>8}{'late':>7}{'temp. F':>9}{'delay 3h':>10}  features")
    for week in weeks:
        print(
            f"{week['week']:<10}{week['alarmed_days']}/{week['days']:<6}{week['late_share']:>7.2f}"
            f"{week['temperature_f']:>9}{week['mean_departure_delay_3h']:>10}  {', '.join(week['named'])}"
        )


if __name__ == "__main__":
    sys.exit(main())
