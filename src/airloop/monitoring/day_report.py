"""Job: a day's inputs and answers beside the champion's own, as Evidently's reports, for people to look at.

    python -m airloop.monitoring.day_report --use-case NAME --version 3 --run-id ... --start 2026-11-20
        --end 2026-11-21

Belongs here: sampling both sides, and having the reports written. Does not belong here: whether something
drifted; `judge` decides that, by counts of days (`docs/adr/0025-drift-by-counts-of-days.md`).

What is compared is what monitoring watches: the model's inputs and its answers, and nothing else of a record.
The pages need no network, and nothing is reported home.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
import pyarrow as pa
from jinja2 import Template
from pyiceberg.catalog import Catalog
from pyiceberg.expressions import And, BooleanExpression, EqualTo, IsNull, NotEqualTo

from airloop.intervals import Interval, make_interval, parse_instant
from airloop.jobs import run_job
from airloop.lakehouse.catalog import load_table, open_catalog
from airloop.lakehouse.sample import sample_rows
from airloop.monitoring.day_report_files import day_folder
from airloop.monitoring.logged import logged_answers, logged_inputs
from airloop.monitoring.monitored import PREDICTION, watched_values
from airloop.monitoring.tables import existing, starting_in
from airloop.prediction_log import record, variants
from airloop.prediction_log.answers import COLUMN
from airloop.references import DayReport
from airloop.registry import open_registry
from airloop.settings import Settings
from airloop.training.examples import SPLIT, vector
from airloop.use_cases.catalogue import use_case
from airloop.use_cases.spec import UseCase
from airloop.whole_files import write_whole

log = logging.getLogger(__name__)

MOST_ROWS: Final = 20_000
"""Of each side."""
WEEK: Final = timedelta(days=7)
PAGE: Final = "index.html"
_INDEX: Final = Template(
    """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{{ title }}</title>
<style>body { font-family: sans-serif; margin: 2em auto; max-width: 45em }</style></head>
<body><h1>{{ title }}</h1>
<p>Version {{ version }}. Samples of at most {{ most }} rows of each side. What counts as drift is decided
elsewhere (<code>monitoring.{{ use_case }}_drift</code>): Evidently takes the rows of a day for independent,
so it finds drift on most days.</p>
<ul>{% for name, what in pages %}<li><a href="{{ name }}.html">{{ what }}</a>
(<a href="{{ name }}.json">JSON</a>)</li>{% endfor %}</ul>
</body></html>
""",
    autoescape=True,
)


def day_report(settings: Settings, spec: UseCase, version: int, run_id: str, day: Interval) -> DayReport:
    """Write the reports of `day`; `skipped` says why there is none. Safe to repeat: they are replaced."""
    catalog = open_catalog(settings)
    current = logged_sample(catalog, spec, version, day)
    if current.empty:
        return DayReport(skipped=f"no answer of version {version} on {day.start:%Y-%m-%d}")
    sides = {"training": training_sample(catalog, settings, spec, run_id, day)}
    week_before = Interval(day.start - WEEK, day.end - WEEK)
    sides["week_before"] = logged_sample(catalog, spec, version, week_before)
    said = {
        "training": f"features, against the test days of version {version}'s training set",
        "week_before": "features and predictions, against the same day a week before",
    }
    folder = day_folder(settings, spec, day.start.date())
    folder.mkdir(parents=True, exist_ok=True)
    pages = [(name, said[name]) for name, reference in sides.items() if not reference.empty]
    for name, _ in pages:
        _write(folder / name, current, sides[name])
    index = folder / PAGE
    title = f"{spec.name}, {day.start:%Y-%m-%d}"
    write_whole(
        index,
        _INDEX.render(title=title, version=version, most=MOST_ROWS, use_case=spec.name, pages=pages),
    )
    return DayReport(
        page_uri=index.as_uri(),
        rows=len(current),
        compared_with={name: len(sides[name]) for name, _ in pages},
    )


def logged_sample(catalog: Catalog, spec: UseCase, version: int, span: Interval) -> pd.DataFrame:
    """What clients asked `version` in `span` and what it answered, at most `MOST_ROWS` at random."""
    table = existing(catalog, record.TABLE)
    if table is None or table.current_snapshot() is None:
        return pd.DataFrame()
    where: BooleanExpression = And(
        starting_in("predicted_at", span),
        EqualTo(term="use_case", value=spec.name),
        EqualTo(term="version", value=version),
        NotEqualTo(term="variant", value=variants.SHADOW),
        IsNull(term="error"),
    )
    columns = ("request", "features", COLUMN)
    rows = sample_rows(table, columns, where, most=MOST_ROWS, seed=_seed(span))
    inputs = logged_inputs(spec, _texts(rows["request"]), _texts(rows["features"]))
    return _frame(spec, inputs, logged_answers(spec, rows[COLUMN]))


def training_sample(
    catalog: Catalog, settings: Settings, spec: UseCase, run_id: str, span: Interval
) -> pd.DataFrame:
    """Rows of the test window of the training set of `run_id`, at most `MOST_ROWS` at random by `span`.

    Empty where the set is gone: a retired version's may be.
    """
    tags = open_registry(settings).get_run(run_id).data.tags
    name, snapshot_id = tags["airloop.training_table"], int(tags["airloop.snapshot_id"])
    table = load_table(catalog, name)
    if table.snapshot_by_id(snapshot_id) is None:
        log.warning("snapshot %d of %s is gone: nothing of the training to compare with", snapshot_id, name)
        return pd.DataFrame()
    rows = sample_rows(
        table,
        [item.name for item in spec.inputs],
        EqualTo(term=SPLIT, value="test"),
        most=MOST_ROWS,
        seed=_seed(span),
        snapshot_id=snapshot_id,
    )
    return _frame(spec, {item.name: vector(rows[item.name], item) for item in spec.inputs}, None)


def _seed(span: Interval) -> int:
    return int(span.start.timestamp())


def _texts(column: pa.ChunkedArray) -> pa.StringArray:
    return column.cast(pa.string()).combine_chunks()


def _frame(spec: UseCase, inputs: Mapping[str, np.ndarray], predictions: np.ndarray | None) -> pd.DataFrame:
    """The watched values, a missing one as None or NaN, and the predictions."""
    found = pd.DataFrame(watched_values(spec, inputs)).replace({"": None})
    return found if predictions is None else found.assign(**{PREDICTION: predictions})


def _write(path: Path, current: pd.DataFrame, reference: pd.DataFrame) -> None:
    """Both presets of the columns that the two have, as `path`.html and `path`.json."""
    # Evidently reports its use home unless it is told not to.
    os.environ["DO_NOT_TRACK"] = "1"
    from evidently import DataDefinition, Dataset, Report
    from evidently.presets import DataDriftPreset, DataSummaryPreset

    names = [str(name) for name in current if name in reference]
    both = [name for name in names if _known(current, reference, name)]
    numbers = [name for name in both if pd.api.types.is_numeric_dtype(current[name])]
    definition = DataDefinition(
        numerical_columns=numbers, categorical_columns=[name for name in both if name not in numbers]
    )
    sides = [
        Dataset.from_pandas(side[both].reset_index(drop=True), data_definition=definition)
        for side in (current, reference)
    ]
    made: Any = Report([DataDriftPreset(), DataSummaryPreset()]).run(*sides)
    write_whole(path.with_suffix(".html"), made.get_html_str(as_iframe=False))
    write_whole(path.with_suffix(".json"), made.json())


def _known(current: pd.DataFrame, reference: pd.DataFrame, name: str) -> bool:
    """Whether a column has a value on both sides: of nothing Evidently makes no histogram."""
    return bool(current[name].notna().any() and reference[name].notna().any())


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; see `airloop.jobs.run_job` for the exit status and the result file."""

    def work(arguments: argparse.Namespace, settings: Settings) -> DayReport:
        day = make_interval(parse_instant(arguments.start), parse_instant(arguments.end))
        spec = use_case(arguments.use_case)
        return day_report(settings, spec, arguments.version, arguments.run_id, day)

    parser = argparse.ArgumentParser(description="Evidently's reports of a day.")
    parser.add_argument("--use-case", required=True, help="name of the use case")
    parser.add_argument("--version", required=True, type=int, help="the champion")
    parser.add_argument("--run-id", required=True, help="its MLflow run")
    parser.add_argument("--start", required=True, help="start of the day, ISO 8601, UTC")
    parser.add_argument("--end", required=True, help="its end, excluded")
    return run_job(parser, work, argv)


if __name__ == "__main__":
    sys.exit(main())
