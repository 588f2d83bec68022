"""`make try-use-case NAME=churn`: what a use case's own functions make of its source, without Airflow.

Belongs here: running them one after the other on a few weeks, and saying what came of it. Does not belong
here: what they do (`spark_jobs.transforms`), or any rule about it (the jobs'). It writes nothing but scratch.
"""

from __future__ import annotations

import argparse
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from airloop.dotted import load
from airloop.errors import AirloopError, AuditError, SourceError, SpecError
from airloop.intervals import ONE_DAY, Interval, resolve_as_of
from airloop.prediction_request import assemble_inputs, parse_request
from airloop.settings import REPOSITORY, Settings, load_settings
from airloop.use_cases.catalogue import use_case
from airloop.use_cases.spec import LOCAL_SUFFIX, CleanTable, UseCase
from airloop.work_folders import work_folder
from spark_jobs.audit import audit_table
from spark_jobs.auditing.reference import Reference
from spark_jobs.auditing.suite import join_references
from spark_jobs.clean import cleaned
from spark_jobs.features import conformed
from spark_jobs.history import EVENT_TIMESTAMP
from spark_jobs.ingest import stage_all
from spark_jobs.raw_tables import raw_rows
from spark_jobs.request_columns import request_column
from spark_jobs.session import open_session
from spark_jobs.tables import within

DAYS: Final = 28
REQUESTS: Final = 100
"""Examples whose requests are read as the gateway would read them."""

Say = Callable[[str], None]


def try_use_case(
    spark: SparkSession, spec: UseCase, as_of: datetime, days: int, settings: Settings, say: Say
) -> None:
    """Have `spec` make clean tables, features and examples of `days` whose labels are known at `as_of`.

    `say` what came of each. The lookback is read too. Raises what the jobs would raise.
    """
    matured = as_of - spec.label.matures_after
    days_asked = Interval(matured - days * ONE_DAY, matured)
    reach = Interval(days_asked.start - spec.lookback, as_of)
    maker = use_case(spec.lender) if spec.lender else spec
    with work_folder(settings, f"try_{spec.name}") as folder:
        clean = {
            name: rows.cache()
            for name, rows in cleaned(maker, _records(spark, maker, reach, settings, folder, say)).items()
        }
        for table in maker.own_clean_tables:
            _audited(clean, maker, table, reach, say)
        wanted = {table.name for table in spec.clean_tables}
        known = {name: rows for name, rows in clean.items() if name in wanted}
        module = load(spec.transform)
        for name, rows in conformed(spec, module.features(known, days_asked)).items():
            _described(rows, spec.feature_table(name).features, name, say)
        _examples(module.examples(known, days_asked, spec.prediction_lead), spec, days_asked, say)


def _records(
    spark: SparkSession, spec: UseCase, reach: Interval, settings: Settings, folder: Path, say: Say
) -> Mapping[str, DataFrame]:
    found = {}
    for item in stage_all(spec, reach, settings, folder):
        if not item.rows:
            raise SourceError(
                expected=f"records of {item.feed.name} from {reach.start:%Y-%m-%d} to {reach.end:%Y-%m-%d}",
                found="none",
                next_step="name the day after the source's last with AS_OF=<date>, or correct its options in "
                f"{_file(spec.name)}",
            )
        bad = f", {item.malformed_rows:,} malformed ones set aside" if item.malformed_rows else ""
        say(f"source    {item.feed.name}: {item.rows:,} records{bad}")
        found[item.feed.name] = raw_rows(spark.read.parquet(str(item.records)), item.feed, item.source.name)
    return found


def _audited(
    clean: Mapping[str, DataFrame], spec: UseCase, table: CleanTable, reach: Interval, say: Say
) -> None:
    name, count = table.name, clean[table.name].count()
    others = {link.table: (clean[link.table], spec.clean_table(link.table)) for link in table.references}
    rows = join_references(clean[name], table, reach, others)
    found = audit_table(rows, table, reach, Reference(), count)
    if found.failures:
        raise AuditError(
            expected=f"the expectations of clean table {name} to hold",
            found="; ".join(found.failures),
            next_step=f"mend clean in {_path(spec.transform)}, or the expectations in {_file(spec.name)}",
        )
    say(f"clean     {name}: {count:,} rows; {len(found.result.results)} expectations hold")


def _described(rows: DataFrame, features: Mapping[str, str], name: str, say: Say) -> None:
    figures = [F.count("*").alias("rows")]
    for feature, kind in features.items():
        mean = F.avg(feature) if kind in ("long", "double") else F.lit(None)
        figures += [F.count(feature).alias(f"{feature}_known"), mean.alias(f"{feature}_mean")]
    found = rows.agg(*figures).first()
    assert found is not None  # an aggregate has a row
    say(f"features  {name}: {found['rows']:,} rows")
    for feature in features:
        share = found[f"{feature}_known"] / found["rows"] if found["rows"] else 0.0
        mean = found[f"{feature}_mean"]
        say(
            f"            {feature}: known in {share:.0%}"
            + (f", mean {mean:,.4g}" if mean is not None else "")
        )


def _examples(rows: DataFrame, spec: UseCase, asked: Interval, say: Say) -> None:
    label, fields = spec.label, [field.name for field in spec.request]
    fields += [f"{field.name}{LOCAL_SUFFIX}" for field in spec.request if field.type == "datetime"]
    outcome = [label.outcome.name] if label.outcome else []
    wanted = [*fields, EVENT_TIMESTAMP, label.name, *outcome]
    missing = [name for name in wanted if name not in rows.columns]
    if missing:
        raise SpecError(
            expected=f"{spec.transform}.examples to yield {', '.join(wanted)}",
            found=f"no {', '.join(missing)}",
            next_step=f"add it in {_path(spec.transform)}, or correct request or label in {_file(spec.name)}",
        )
    rows = rows.cache()
    count = rows.count()
    if not count:
        raise SpecError(
            expected=f"examples between {asked.start:%Y-%m-%d} and {asked.end:%Y-%m-%d}",
            found="none",
            next_step=f"see examples in {_path(spec.transform)}: which rows does it leave out?",
        )
    outside = rows.where(~within(EVENT_TIMESTAMP, asked)).count()
    if outside:
        raise SpecError(
            expected=f"{spec.transform}.examples to yield rows with {EVENT_TIMESTAMP} in the interval alone",
            found=f"{outside:,} of {count:,} outside it",
            next_step=f"filter them in {_path(spec.transform)}: within({EVENT_TIMESTAMP!r}, interval)",
        )
    _require_labels(spec, rows)
    answers = {
        row[0]: row[1]
        for row in rows.groupBy(label.name).count().orderBy(F.desc("count")).limit(20).collect()
    }
    shown = ", ".join(f"{value}: {number / count:.1%}" for value, number in sorted(answers.items())[:8])
    if label.target.has_classes:
        say(f"examples  {count:,} rows; {label.name} {shown}")
    else:
        mean = rows.agg(F.avg(label.name)).first()
        say(f"examples  {count:,} rows; {label.name} {mean[0]:,.4g} on average" if mean else "")
    texts = [row[0] for row in rows.select(request_column(spec)).limit(REQUESTS).collect()]
    for text in texts:
        assemble_inputs(spec, parse_request(spec, text), dict.fromkeys(spec.features))
    say(f"requests  {len(texts)} of them read as the gateway reads them, such as {texts[0]}")


def _require_labels(spec: UseCase, rows: DataFrame) -> None:
    label, target = F.col(spec.label.name), spec.label.target
    allowed: Sequence[object] = (0, 1) if target.kind == "binary" else getattr(target, "classes", ())
    wrong = label.isNull() | (~label.isin(*allowed) if allowed else F.lit(False))
    found = rows.where(wrong).select(label).distinct().limit(5).collect()
    if found:
        raise SpecError(
            expected=f"{spec.label.name} to be {' or '.join(map(str, allowed)) or 'a number'}",
            found=", ".join(repr(row[0]) for row in found),
            next_step=f"see examples in {_path(spec.transform)}: an event without a label is no example",
        )


def _path(module: str) -> str:
    return f"{module.partition(':')[0].replace('.', '/')}.py"


def _file(name: str) -> str:
    return f"src/airloop/use_cases/{name}.py"


@contextmanager
def _blamed(spec: UseCase) -> Iterator[None]:
    """What a use case's own file raises becomes a `SpecError` that names the file and the line."""
    try:
        yield
    except AirloopError:
        raise
    except Exception as error:
        paths = [_path(path) for path in (spec.transform, spec.feature_definitions) if path is not None]
        own = {str(REPOSITORY / path): path for path in paths}
        for frame in reversed(traceback.extract_tb(error.__traceback__)):
            if frame.filename in own:
                raise SpecError(
                    expected=f"{own[frame.filename]} to run",
                    found=f"in line {frame.lineno}, {frame.line}: {type(error).__name__}: "
                    f"{(str(error).strip() or 'no more is said').splitlines()[0]}",
                    next_step="mend that line",
                ) from error
        raise


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; exit status 1 with what is wrong, where, and what to do."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--use-case", required=True)
    parser.add_argument(
        "--as-of", help="the day after the last to read, such as 2024-03-05; today by default"
    )
    parser.add_argument("--days", type=int, default=DAYS, help="how many days of examples to make")
    arguments = parser.parse_args(argv)
    began = time.monotonic()
    try:
        spec = use_case(arguments.use_case)
        settings = load_settings()
        as_of = resolve_as_of(as_of=arguments.as_of, data_interval=None, run_after=datetime.now(UTC))
        with _blamed(spec):
            if spec.feature_definitions is not None:
                load(spec.feature_definitions).definitions(spec, settings)
            spark = open_session(settings, f"try {spec.name}")
            # A file that was just enough for the spec's windows is enough for this.
            days = min(arguments.days, spec.training.total_days)
            try_use_case(spark, spec, as_of, days, settings, lambda line: print(line, flush=True))
    except AirloopError as error:
        print(f"try-use-case: {error}", file=sys.stderr)
        return 1
    seconds, day = time.monotonic() - began, f" AS_OF={arguments.as_of}" if arguments.as_of else ""
    print(f"{spec.name} holds together: {seconds:.0f} s. Next: make run USE_CASE={spec.name}{day}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
