"""Run by `test_loop` beside the running stack: predicts upcoming events without the online path.

Features come from Feast's offline store point in time, the model from the registry, the answer from
TensorFlow: nothing of the gateway, the online store or the model server is used. Prints a list of
`[request, probability]`, and the share of features that were known.
"""

from __future__ import annotations

import json
import sys
import tempfile
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import tensorflow as tf
from pyspark.sql import functions as F

from airloop import registry
from airloop.intervals import Interval
from airloop.settings import load_settings
from airloop.use_cases.catalogue import use_case
from feature_repo.store import open_store
from spark_jobs.request_columns import request_column
from spark_jobs.session import open_session
from spark_jobs.tables import within
from spark_jobs.training_set import join_features, model_columns

as_of, version = datetime.fromisoformat(sys.argv[1]), int(sys.argv[2])
settings, spec = load_settings(), use_case("flight_delay")
spark = open_session(settings, "offline")
lead = spec.prediction_lead
LEAD = F.expr(f"INTERVAL {int(lead.total_seconds())} SECONDS")
soon = Interval(as_of + lead, as_of + lead + timedelta(hours=2))
events = (
    spark.table(f"clean.{spec.event_table}")
    .where(within(spec.event_field, soon))
    .withColumn("event_timestamp", F.col(spec.event_field) - LEAD)
)
rows = (
    join_features(open_store(settings), spec, events)
    .select(*model_columns(spec), request_column(spec).alias("request"))
    .toPandas()
)
with tempfile.TemporaryDirectory() as scratch:
    run = registry.run_of(settings, spec.model_name, version)
    folder = registry.download_artifacts(settings, run, registry.SAVED_MODEL, Path(scratch))
    model = tf.saved_model.load(str(folder)).signatures["serving_default"]
    kinds = {"string": tf.string, "double": tf.float32, "instant": tf.int64, "local_time": tf.int64}
    inputs = {}
    for item in spec.inputs:
        column = rows[item.name].to_numpy()
        if item.type == "double":
            column = column.astype(np.float32)
        inputs[item.name] = tf.constant(column, dtype=kinds[item.type])
    probability = model(**inputs)["probability"].numpy()
known = rows[[item.name for item in spec.inputs if item.type == "double"]].notna().mean().mean()
requests = rows["request"].tolist()
answers = list(zip(requests, map(float, probability), strict=True))
print(json.dumps({"known_share": float(known), "answers": answers}))
