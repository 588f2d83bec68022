"""Benchmark: the same jobs on 1, 10 and 100 times the flights, each stage's time and memory.

    make bench-scale        (or: python -m benchmarks.scale [--volumes 1,10,100])

Each stage is a process of its own, as under Airflow, over one week of 2013 (the replay's `volume` option
multiplies its flights, their movements and the planes), with the settings' Spark: its heap does not grow
with the volume. Ends with one line of JSON: seconds and peak memory per stage and volume, and
`growth_exponent`, the slope of the logarithm of all stages' time over that of the volume, from the second
largest volume to the largest: 1 is linear, and less says that starting Spark still costs more than the rows.
`growth_exponents` has the same by stage. Exits with 1 when either is more than `MOST_GROWTH` times linear.

Belongs here: the measure. Does not belong here: anything that the jobs need.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, NamedTuple

import psutil

from airloop.intervals import Interval
from airloop.settings import Settings, load_settings
from airloop.stack.memory import proportional_bytes
from airloop.use_cases.catalogue import use_case
from airloop.use_cases.spec import Expectation, UseCase

MIB: Final = 2**20
SAMPLE_SECONDS: Final = 0.5
WEEK: Final = Interval(datetime(2013, 3, 4, tzinfo=UTC), datetime(2013, 3, 11, tzinfo=UTC))
MOST_GROWTH: Final = 1.15
"""Time at the largest volume over what linear growth from the volume before would give."""


class Measured(NamedTuple):
    """What one stage took."""

    seconds: float
    peak_mib: float
    rows: int


def spec_of(volume: int) -> UseCase:
    """flight_delay whose replay carries `volume` times the flights."""
    spec = use_case("flight_delay")
    (source,) = spec.sources
    wide = source.model_copy(update={"options": {"volume": str(volume)}})
    tables = tuple(
        table.model_copy(update={"expectations": tuple(map(_with_more_digits, table.expectations))})
        for table in spec.clean_tables
    )
    return spec.model_copy(update={"sources": (wide,), "clean_tables": tables})


def _with_more_digits(expectation: Expectation) -> Expectation:
    """The copies have flight numbers of their own, of more digits than an airline's; the rest stays."""
    if expectation.arguments.get("column") != "flight_number" or "max_value" not in expectation.arguments:
        return expectation
    return expectation.model_copy(update={"arguments": {**expectation.arguments, "max_value": 10**8}})


def run_stage(name: str, volume: int, settings: Settings) -> int:
    """Run one stage in this process; returns how many rows it was about."""
    from spark_jobs.session import open_session

    spec = spec_of(volume)
    if name == "publish":
        from airloop.lakehouse.publish import publish
        from spark_jobs.clean import branch_of

        return sum(item.rows for item in publish(spec, branch_of(WEEK), WEEK, settings).snapshots)
    spark = open_session(settings, f"scale {name} {volume}")
    stages: dict[str, Callable[..., int]] = {
        "ingest": _ingest,
        "clean": _clean,
        "audit": _audit,
        "features": _features,
        "materialise": _materialise,
        "training_set": _training_set,
    }
    return stages[name](spark, spec, settings)


STAGES: Final = ("ingest", "clean", "audit", "publish", "features", "materialise", "training_set")


def _ingest(spark: Any, spec: UseCase, settings: Settings) -> int:
    from spark_jobs.ingest import ingest

    return sum(item.rows for item in ingest(spark, spec, WEEK, settings).snapshots)


def _clean(spark: Any, spec: UseCase, settings: Settings) -> int:
    from spark_jobs.clean import clean

    return sum(item.rows for item in clean(spark, spec, WEEK).snapshots)


def _audit(spark: Any, spec: UseCase, settings: Settings) -> int:
    from spark_jobs.audit import audit
    from spark_jobs.clean import branch_of

    branch = branch_of(WEEK)
    audit(spark, spec, WEEK, branch, settings)
    tables = [f"clean.{table.name}" for table in spec.clean_tables]
    return sum(spark.read.option("branch", branch).table(table).count() for table in tables)


def _features(spark: Any, spec: UseCase, settings: Settings) -> int:
    from spark_jobs.features import build_features

    return sum(item.rows for item in build_features(spark, spec, WEEK).snapshots)


def _materialise(spark: Any, spec: UseCase, settings: Settings) -> int:
    from feature_repo.materialise import materialise
    from feature_repo.store import open_store

    return len(materialise(open_store(settings), spec, WEEK, settings).feature_views)


def _training_set(spark: Any, spec: UseCase, settings: Settings) -> int:
    from airloop.use_cases.training_policy import TrainingPolicy
    from spark_jobs.training_set import build

    windows = {"train_days": 3, "validation_days": 1, "test_days": 1}
    policy = TrainingPolicy(**{**json.loads(spec.training.model_dump_json()), **windows})
    return build(spark, spec, policy, WEEK.end, settings).rows


def measure_stage(name: str, volume: int, state: Path) -> Measured:
    """Run one stage in a process of its own, sampling the memory of it and its children."""
    rows_file = state / "rows"
    command = [sys.executable, "-m", "benchmarks.scale", "--stage", name, "--volumes", str(volume)]
    started = time.monotonic()
    log = state / f"{name}.log"
    with log.open("wb") as output:
        process = psutil.Popen([*command, "--state", str(state)], stdout=output, stderr=output)
    peak = 0
    while process.poll() is None:
        try:
            peak = max(peak, proportional_bytes([process, *process.children(recursive=True)]))
        except psutil.NoSuchProcess:
            break
        time.sleep(SAMPLE_SECONDS)
    seconds = time.monotonic() - started
    if process.wait() != 0:
        tail = log.read_text("utf-8", errors="replace")[-3000:]
        raise subprocess.CalledProcessError(process.returncode, command, stderr=tail)
    return Measured(seconds, peak / MIB, int(rows_file.read_text("utf-8")))


def growth_exponent(seconds: dict[int, float]) -> float | None:
    """Slope of log(seconds) over log(volume) between the two largest volumes; None with a single one."""
    volumes = sorted(seconds)[-2:]
    if len(volumes) < 2:
        return None
    small, large = volumes
    return round(math.log(seconds[large] / seconds[small]) / math.log(large / small), 3)


def _rounded(measured: Measured) -> dict[str, float]:
    return {
        "seconds": round(measured.seconds, 1),
        "peak_mib": round(measured.peak_mib),
        "rows": measured.rows,
    }


def report(found: dict[int, dict[str, Measured]]) -> dict[str, Any]:
    """The figures of all volumes, printed as a table and returned as a document."""
    print(f"{'stage':<14}" + "".join(f"{f'{volume}x seconds':>14}{'peak MiB':>10}" for volume in found))
    for stage in STAGES:
        cells = [f"{m[stage].seconds:>14.1f}{m[stage].peak_mib:>10.0f}" for m in found.values()]
        print(f"{stage:<14}" + "".join(cells))
    totals = {volume: sum(m.seconds for m in stages.values()) for volume, stages in found.items()}
    print(f"{'all':<14}" + "".join(f"{total:>14.1f}{'':>10}" for total in totals.values()))
    return {
        "stages": {
            f"{volume}x": {name: _rounded(m) for name, m in stages.items()}
            for volume, stages in found.items()
        },
        "total_seconds": {f"{volume}x": round(total, 1) for volume, total in totals.items()},
        "growth_exponent": growth_exponent(totals),
        "growth_exponents": {
            stage: growth_exponent({volume: stages[stage].seconds for volume, stages in found.items()})
            for stage in STAGES
        },
        "largest_peak_mib": round(max(m.peak_mib for stages in found.values() for m in stages.values())),
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(description="Time and memory of each stage at growing volumes.")
    parser.add_argument("--volumes", default="1,10,100", help="how many times the flights, comma-separated")
    parser.add_argument("--stage", choices=STAGES, help=argparse.SUPPRESS)
    parser.add_argument("--state", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    volumes = [int(volume) for volume in arguments.volumes.split(",")]
    deployment = load_settings()
    if arguments.stage:
        settings = deployment.model_copy(update={"state_dir": arguments.state})
        rows = run_stage(arguments.stage, volumes[0], settings)
        (arguments.state / "rows").write_text(str(rows), encoding="utf-8")
        return 0
    found: dict[int, dict[str, Measured]] = {}
    for volume in volumes:
        state = deployment.state_dir / "bench" / "scale" / f"{volume}x"
        shutil.rmtree(state, ignore_errors=True)
        state.mkdir(parents=True)
        (state / "jars").symlink_to(deployment.jars_dir)
        found[volume] = {}
        for stage in STAGES:
            found[volume][stage] = measured = measure_stage(stage, volume, state)
            print(f"{volume}x {stage}: {measured.seconds:.1f} s, {measured.peak_mib:.0f} MiB", flush=True)
        shutil.rmtree(state)
    document = report(found)
    print(json.dumps(document))
    exponents = [document["growth_exponent"], *document["growth_exponents"].values()]
    if None in exponents:
        return 0
    small, large = sorted(volumes)[-2:]
    linear = large / small
    return 1 if linear ** max(exponents) > MOST_GROWTH * linear else 0


if __name__ == "__main__":
    sys.exit(main())
