"""A small use case with a signal planted in every kind of input, and rows of it.

Belongs here: what the training tests share. Does not belong here: anything about flights, which these tests
must not need.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa

from airloop.lakehouse.catalog import open_catalog
from airloop.references import TableSnapshot, TrainingSet
from airloop.settings import Settings
from airloop.use_cases.gates import FigureGate, Gates
from airloop.use_cases.rollout_policy import Rollout
from airloop.use_cases.spec import (
    Elapsed,
    FeatureTable,
    Label,
    ModelInput,
    Outcome,
    RequestField,
    UseCase,
    define,
)
from airloop.use_cases.training_policy import TrainingPolicy

SPLITS = {"train": 6000, "validation": 1500, "test": 2000}
FIRST = datetime(2013, 1, 1, tzinfo=UTC)
COLOURS = ["red", "green", "blue"]


def planted_use_case() -> UseCase:
    """The spec: one string, two numbers, a local time, and an elapsed time of two instants."""
    return define(
        name="planted",
        owner="tests",
        description="a label that depends on colour, heat, hour and waiting time",
        sources=(),
        transform="tests.training.planted",
        lookback=timedelta(days=1),
        clean_tables=(),
        feature_tables=(
            FeatureTable(
                name="colour_state",
                entities=("colour",),
                features={"heat": "double", "noise": "double", "seen_at": "long"},
                time_to_live=timedelta(days=1),
            ),
        ),
        feature_definitions="tests.training.planted",
        feature_service="planted_v1",
        prediction_lead=timedelta(hours=2),
        event_field="due",
        request=(
            RequestField(name="colour", type="string", description="a colour", example="red"),
            RequestField(
                name="due", type="datetime", description="when", example="2013-01-01T00:00:00-05:00"
            ),
        ),
        inputs=(
            ModelInput(name="colour", type="string", request_field="colour"),
            ModelInput(name="due_local", type="local_time", request_field="due"),
            ModelInput(name="due", type="instant", request_field="due"),
            ModelInput(name="heat", type="double"),
            ModelInput(name="noise", type="double"),
            ModelInput(name="seen_at", type="instant"),
        ),
        elapsed=(Elapsed(name="idle_hours", since="seen_at", until="due"),),
        label=Label(
            name="happened",
            description="1 or 0",
            matures_after=timedelta(hours=1),
            outcome=Outcome(name="intensity", description="above 0: it happened", thresholds=(-2, 2)),
        ),
        training=TrainingPolicy(
            model_builder="airloop.training.tabm:build",
            parameters={
                "width": 32,
                "hidden_layers": 2,
                "number_embedding_size": 4,
                "members": 2,
                "dropout": 0.1,
                "embedding_size": 4,
                "category_dropout": 0.0,
                "input_dropout": 0.0,
                "member_feature_share": 1.0,
                "quantile_bins": 6,
                "learning_rate": 0.01,
                "weight_decay": 0.001,
                "weight_average": 0.9,
                "batch_size": 256,
                "outcome_weight": 1.0,
                "max_epochs": 3,
                "patience_epochs": 2,
            },
            train_days=6,
            validation_days=2,
            test_days=2,
        ),
        gates=Gates(
            baseline=("colour", "due_local_hour"),
            min_test_rows=500,
            min_test_class_rows=50,
            figures={
                "roc_auc": FigureGate(
                    min_gain_over_baseline=0.01, beyond_chance=True, max_loss_to_champion=0.002
                ),
                "log_loss": FigureGate(max_loss_to_champion=0.002),
            },
        ),
        rollout=Rollout(replayed_requests=32, max_absolute_difference=1e-5, load_timeout_seconds=60),
    )


def planted_rows(seed: int = 7) -> pa.Table:
    """Rows of all three splits, by prediction time; heat is missing for a tenth of them."""
    random = np.random.default_rng(seed)
    rows = sum(SPLITS.values())
    due = int(FIRST.timestamp()) + np.arange(rows) * 400 + 7200
    due_local = due - 5 * 3600
    colour = random.integers(0, len(COLOURS), rows)
    heat = random.normal(60, 15, rows)
    missing = random.random(rows) < 0.1
    idle = random.uniform(0.5, 20, rows)
    unseen = random.random(rows) < 0.2
    hour = due_local // 3600 % 24
    logit = (
        -1.5
        + 0.8 * (colour == 0)
        + np.where(missing, 1.0, 1.5 * np.abs(heat - 60) / 15 - 1.0)
        + np.where(hour > 15, 0.7, 0.0)
        + np.where(unseen, 0.0, 1.2 * (idle < 4))
    )
    chance = random.random(rows)
    intensity = logit - np.log(chance / (1 - chance))
    happened = intensity > 0
    return pa.table(
        {
            "colour": pa.array([COLOURS[index] for index in colour]),
            "due_local": pa.array(due_local),
            "due": pa.array(due),
            "heat": pa.array(heat, mask=missing),
            "noise": pa.array(random.normal(size=rows)),
            "seen_at": pa.array(np.where(unseen, 0, due - (idle * 3600).astype(np.int64))),
            "happened": pa.array(happened.astype(np.int32)),
            "intensity": pa.array(intensity),
            "prediction_time": pa.array((due - 7200) * 1_000_000, pa.timestamp("us", tz="UTC")),
            "split": pa.array([name for name, count in SPLITS.items() for _ in range(count)]),
            "request": pa.array([json.dumps({"row": index}) for index in range(rows)]),
        }
    )


def write_training_set(settings: Settings, rows: pa.Table, tag: str = "as_of_20130112") -> TrainingSet:
    """Append `rows` as a new snapshot of `training.planted` that replaces the former rows, and tag it."""
    catalog = open_catalog(settings)
    catalog.create_namespace_if_not_exists("training")
    table = catalog.create_table_if_not_exists("training.planted", rows.schema)
    table.overwrite(rows)
    snapshot = table.current_snapshot()
    assert snapshot is not None
    table.manage_snapshots().create_tag(snapshot.snapshot_id, tag).commit()
    splits = rows["split"].to_pylist()
    return TrainingSet(
        table="training.planted",
        tag=tag,
        snapshot_id=snapshot.snapshot_id,
        rows=rows.num_rows,
        train_rows=splits.count("train"),
        validation_rows=splits.count("validation"),
        test_rows=splits.count("test"),
        as_of="2013-01-12T00:00:00+00:00",
        sources=(TableSnapshot(table="clean.colours", snapshot_id=11, rows=1),),
    )
