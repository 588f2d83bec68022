"""Models that learnt from an erased subject: named, marked, and revoked where the spec says so."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import pytest

from airloop.erasure import models as module
from airloop.erasure.models import ERASED, ERASED_SNAPSHOT, REVOKED, affected_models
from airloop.errors import SpecError
from airloop.references import ErasureDone, ErasurePlan, ErasureTrainingSet
from airloop.registry import (
    CHALLENGER,
    CHAMPION,
    drop_alias,
    open_registry,
    set_alias,
    tags_of,
    version_behind,
)
from airloop.training.evaluate import evaluate
from airloop.training.register import register
from airloop.use_cases.spec import Erasure, UseCase
from tests.training.conftest import Trained

SUBJECT, OTHER = "a" * 64, "b" * 64


@pytest.fixture
def version(trained: Trained) -> Iterator[int]:
    """The candidate, registered and serving."""
    evaluated = evaluate(trained.settings, trained.spec, trained.training_set, trained.candidate)
    number = register(trained.settings, trained.spec, evaluated).version
    set_alias(trained.settings, "planted", CHAMPION, number)
    yield number
    drop_alias(trained.settings, "planted", CHAMPION)
    drop_alias(trained.settings, "planted", CHALLENGER)


def _says(monkeypatch: pytest.MonkeyPatch, trained: Trained, models: Literal["retrain", "revoke"]) -> None:
    """The catalogue has the planted use case, whose spec says that about models."""

    def use_case(name: str) -> UseCase:
        if name != "planted":
            raise SpecError(expected="planted", found=name, next_step="-")
        return trained.spec.model_copy(update={"erasure": Erasure(subject="colour", models=models)})

    monkeypatch.setattr(module, "use_case", use_case)


def _sets(trained: Trained, use_case: str = "planted", tag: str = "") -> tuple[ErasureTrainingSet, ...]:
    tag = tag or trained.training_set.tag
    return (ErasureTrainingSet(use_case=use_case, tag=tag, snapshot_id=99, rows=0, erased_rows=3),)


def _done(sets: tuple[ErasureTrainingSet, ...], subject: str = SUBJECT) -> ErasureDone:
    return ErasureDone(
        subject=subject,
        use_case="planted",
        tables=(),
        online_entries=0,
        texts_masked=0,
        strays_removed=0,
        training_sets=sets,
    )


def test_a_plan_names_the_models_and_changes_nothing(
    trained: Trained, version: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    _says(monkeypatch, trained, "revoke")
    before = tags_of(trained.settings, "planted", version)
    plan = ErasurePlan(
        subject=SUBJECT,
        use_case="planted",
        tables=(),
        online_entries=0,
        texts=0,
        training_sets=_sets(trained),
    )
    found = affected_models(trained.settings, plan)
    (model,) = found.models
    assert (model.run_id, model.version) == (trained.candidate.run_id, version)
    assert (model.aliases, model.action) == ((CHALLENGER, CHAMPION), "revoke")
    assert tags_of(trained.settings, "planted", version) == before
    assert version_behind(trained.settings, "planted", CHAMPION) == version


def test_models_to_be_trained_again_are_marked_and_go_on_serving(
    trained: Trained, version: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    _says(monkeypatch, trained, "retrain")
    left = trained.settings.checkpoints_dir / "planted" / "x" / "checkpoint.npz"
    left.parent.mkdir(parents=True)
    left.touch()
    for subject in (SUBJECT, OTHER, SUBJECT):
        found = affected_models(trained.settings, _done(_sets(trained), subject))
        assert found.retrain == ("planted",)
    run = open_registry(trained.settings).get_run(trained.candidate.run_id)
    assert run.data.tags[ERASED] == f"{SUBJECT},{OTHER}"
    assert run.data.tags[ERASED_SNAPSHOT] == "99"
    tags = tags_of(trained.settings, "planted", version)
    assert tags[ERASED] == f"{SUBJECT},{OTHER}"
    assert REVOKED not in tags
    assert version_behind(trained.settings, "planted", CHAMPION) == version
    assert not left.exists()


def test_revoked_models_lose_their_aliases_and_say_why(
    trained: Trained, version: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    _says(monkeypatch, trained, "revoke")
    for _ in range(2):
        found = affected_models(trained.settings, _done(_sets(trained)))
        assert found.retrain == ()
        assert f"revoked: planted {version}" in found.next_step
    assert "erased subject" in tags_of(trained.settings, "planted", version)[REVOKED]
    assert version_behind(trained.settings, "planted", CHAMPION) is None
    assert version_behind(trained.settings, "planted", CHALLENGER) is None


def test_other_training_sets_models_and_use_cases_that_are_gone_are_left_alone(
    trained: Trained, version: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    _says(monkeypatch, trained, "revoke")
    sets = (*_sets(trained, tag="as_of_another_day"), *_sets(trained, use_case="gone"))
    found = affected_models(trained.settings, _done(sets))
    assert found.models == ()
    assert found.next_step.startswith("none")
    assert version_behind(trained.settings, "planted", CHAMPION) == version
