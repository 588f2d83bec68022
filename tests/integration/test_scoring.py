"""Batch scores: each event of a day once, with the features known then, by the champion that serves."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from airloop.errors import RolloutError, SpecError
from airloop.intervals import Interval
from airloop.lakehouse.catalog import open_catalog
from airloop.prediction_request import parse_request
from airloop.references import TrainingSet
from airloop.settings import Settings
from airloop.use_cases.spec import UseCase
from serving.model_config import ServedModel, config_message
from serving.model_server_client import CHAMPION, ModelServer
from serving.score import score
from spark_jobs import scoring_set
from tests.serving.rollout.stack import answer_directly, free_port, model_server_process, save_model

DAY = Interval(datetime(2013, 3, 8, tzinfo=UTC), datetime(2013, 3, 9, tzinfo=UTC))
VERSIONS = {1: 0.0, 2: 1.0}


@pytest.fixture(scope="module")
def serving(
    settings: Settings, spec: UseCase, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Settings, Path]]:
    folder = tmp_path_factory.mktemp("models")
    with_server = settings.model_copy(update={"model_server_grpc_port": free_port()})
    for version, bias in VERSIONS.items():
        save_model(spec, bias, folder / spec.model_name / str(version))
    with_server.models_dir.mkdir(parents=True, exist_ok=True)
    with model_server_process(with_server, folder / "log"):
        yield with_server, folder / spec.model_name


def promote(settings: Settings, spec: UseCase, models: Path, champion: int | None) -> None:
    with ModelServer.of(settings) as server:
        plain = ServedModel(spec.model_name, models, frozenset(VERSIONS))
        server.reload(config_message({spec.model_name: plain}), timeout=60)
        if champion is not None:
            labelled = ServedModel(spec.model_name, models, plain.versions, {CHAMPION: champion})
            server.reload(config_message({spec.model_name: labelled}), timeout=60)


def test_a_day_is_scored_by_the_champion_and_again_by_the_next(
    trained_on: TrainingSet, spark: SparkSession, spec: UseCase, serving: tuple[Settings, Path]
) -> None:
    settings, models = serving
    asked = scoring_set.build(spark, spec, DAY, settings)
    seconds = int(spec.prediction_lead.total_seconds())
    flights = spark.table("clean.flights").withColumn(
        "at", F.col("scheduled_departure") - F.expr(f"INTERVAL {seconds} SECONDS")
    )
    start, end = (F.lit(moment.isoformat()).cast("timestamp") for moment in DAY)
    expected = flights.where((F.col("at") >= start) & (F.col("at") < end)).count()
    assert asked.rows == expected > 500

    promote(settings, spec, models, None)
    with pytest.raises(RolloutError, match="a champion of flight_delay"):
        score(settings, spec, DAY, asked.snapshot_id)
    promote(settings, spec, models, 1)
    first = score(settings, spec, DAY, asked.snapshot_id)
    assert (first.rows, first.version) == (expected, 1)
    table = open_catalog(settings).load_table(first.table)
    rows = table.scan().to_arrow().sort_by([("prediction_time", "ascending"), ("request", "ascending")])
    assert len(rows) == expected
    assert len(set(rows["request"].to_pylist())) == expected
    request = parse_request(spec, rows["request"][0].as_py())
    assert request.prediction_time == rows["prediction_time"][0].as_py()
    assert DAY.start <= request.prediction_time < DAY.end

    # What was asked is what a training set has for the same event, and the answer is the model's own.
    inputs = ", ".join(item.name for item in spec.inputs)
    both = spark.sql(
        f"SELECT {inputs}, request FROM scoring.{spec.name}_requests INTERSECT "
        f"SELECT {inputs}, request FROM training.{spec.name}"
    )
    labelled = spark.table(f"training.{spec.name}").where(
        (F.col("prediction_time") >= start) & (F.col("prediction_time") < end)
    )
    assert both.count() == labelled.count() > 500
    one = both.orderBy("request").limit(8).toPandas()
    columns = {item.name: one[item.name].tolist() for item in spec.inputs}
    direct = answer_directly(models / "1", spec, columns)
    scored = dict(
        zip(rows["request"].to_pylist(), (answer for (answer,) in rows["answer"].to_pylist()), strict=True)
    )
    assert [scored[text] for text in one["request"]] == pytest.approx(direct, abs=1e-6)

    again = scoring_set.build(spark, spec, DAY, settings)
    promote(settings, spec, models, 2)
    second = score(settings, spec, DAY, again.snapshot_id)
    assert (second.rows, second.version) == (expected, 2)
    table.refresh()
    assert set(table.scan().to_arrow()["version"].to_pylist()) == {2}
    assert second.mean_answer[spec.label.name] > first.mean_answer[spec.label.name]


def test_without_an_event_table_there_is_nothing_to_score(
    spark: SparkSession, spec: UseCase, settings: Settings
) -> None:
    with pytest.raises(SpecError, match="event_table"):
        scoring_set.build(spark, spec.model_copy(update={"event_table": None}), DAY, settings)
