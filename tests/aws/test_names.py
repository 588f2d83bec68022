"""Names and tags that every service accepts."""

from __future__ import annotations

import itertools
import re
from types import SimpleNamespace

import pytest

from airloop_airflow.compute.names import names_of, stem_of, tags_of

SAGEMAKER = re.compile(r"[a-zA-Z0-9](-*[a-zA-Z0-9]){0,62}")


def _instance(**other):
    given = {"dag_id": "flight_delay_training", "run_id": "r", "task_id": "train", "map_index": -1}
    return SimpleNamespace(**(given | other))


@pytest.mark.parametrize(
    "other",
    [
        {},
        {"dag_id": "a" * 250, "task_id": "b" * 250},
        {"dag_id": "éâ", "task_id": "__"},
        {"task_id": "group.-task-", "map_index": 1234},
    ],
)
def test_names_are_of_the_strictest_kind(other):
    stem = stem_of("production", _instance(**other))
    for name in itertools.islice(names_of(stem, 999), 99):
        assert SAGEMAKER.fullmatch(name), name


def test_a_name_is_of_one_task_of_one_deployment():
    stems = {stem_of("production", _instance())}
    stems.add(stem_of("staging", _instance()))
    for other in ({"dag_id": "d"}, {"run_id": "r2"}, {"task_id": "fold"}, {"map_index": 0}, {"map_index": 1}):
        stems.add(stem_of("production", _instance(**other)))
    assert len(stems) == 7
    assert stem_of("production", _instance()) in stems
    # No stem is the beginning of another's names: a listing by it finds its own.
    assert len({len(stem.rstrip("-").rpartition("-")[2]) for stem in stems}) == 1


def test_tags_have_the_characters_and_the_length_that_services_take():
    tags = tags_of("production", None, _instance(run_id="manual <é> " + "x" * 300))
    assert tags["airloop:use-case"] == "platform"
    for value in tags.values():
        assert re.fullmatch(r"[\w .:/=+@-]{0,256}", value)
    assert tags["airloop:run"].startswith("manual _é_ xx")
