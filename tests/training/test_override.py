"""A person accepts what the rules rejected: by name, with a reason, once, and only what can be weighed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from airloop.approval import ApprovalError
from airloop.audit_log import audit_log_file, verify
from airloop.errors import EXIT_PERMANENT, RegistryError
from airloop.references import Evaluated
from airloop.registry import CHALLENGER, SAVED_MODEL, drop_alias, open_registry, version_behind
from airloop.training import override as module
from airloop.training.evaluate import evaluate
from airloop.training.override import OverrideError, override
from airloop.training.publication import read_verdict
from airloop.training.register import register
from airloop.use_cases.gates import FigureGate
from airloop.use_cases.spec import UseCase
from airloop.verdict import Verdict
from tests.training.conftest import Trained

NOW = datetime(2026, 11, 25, 8, tzinfo=UTC)
BY, REASON = "Ada Lovelace", "the baseline had a lucky week, see the incident of Monday"


def strict(spec: UseCase) -> UseCase:
    return spec.model_copy(
        update={
            "gates": spec.gates.model_copy(
                update={"figures": {"roc_auc": FigureGate(min_gain_over_baseline=0.9)}}
            )
        }
    )


@pytest.fixture
def rejected(trained: Trained) -> Iterator[Evaluated]:
    """The candidate under a rejecting verdict; afterwards accepted again, and nothing in the audit log."""
    audit_log_file(trained.settings).unlink(missing_ok=True)
    yield evaluate(trained.settings, strict(trained.spec), trained.training_set, trained.candidate)
    audit_log_file(trained.settings).unlink(missing_ok=True)
    evaluate(trained.settings, trained.spec, trained.training_set, trained.candidate)


def accept(trained: Trained, **changes: Any) -> Evaluated:
    given: dict[str, Any] = {"by": BY, "reason": REASON, "now": NOW, **changes}
    return override(trained.settings, given.pop("spec", trained.spec), trained.candidate.run_id, **given)


def records(trained: Trained) -> list[dict[str, Any]]:
    path = audit_log_file(trained.settings)
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def artifact(trained: Trained, name: str) -> Path:
    run = open_registry(trained.settings).get_run(trained.candidate.run_id)
    return Path(run.info.artifact_uri.removeprefix("file://")) / name


def test_an_override_is_on_record_everywhere(trained: Trained, rejected: Evaluated) -> None:
    assert not rejected.accepted
    before = read_verdict(trained.settings, rejected.run_id)
    evaluated = accept(trained)
    assert evaluated.accepted
    verdict = read_verdict(trained.settings, rejected.run_id)
    assert verdict.override is not None
    assert (verdict.override.by, verdict.override.reason) == (BY, REASON)
    assert verdict.override.at == "2026-11-25T08:00:00+00:00"
    assert verdict.override.rules == ("roc_auc_gain_over_baseline",)
    assert verdict.rules == before.rules
    folder = trained.settings.reports_dir / "planted" / trained.training_set.tag
    assert Verdict.model_validate_json((folder / "verdict.json").read_text()) == verdict
    for page in ("verdict.html", "model_card.html"):
        assert (folder / page).read_text() == artifact(trained, page).read_text()
        assert f"Accepted by {BY} in spite of the rules" in (folder / page).read_text()
        assert REASON in (folder / page).read_text()
    tags = open_registry(trained.settings).get_run(rejected.run_id).data.tags
    assert (tags["airloop.verdict"], tags["airloop.overridden_by"]) == ("accepted", BY)
    assert tags["airloop.override_reason"] == REASON
    assert "roc_auc_gain_over_baseline" in tags["airloop.rejected_for"]
    (record,) = records(trained)
    assert (record["kind"], record["who"]) == ("verdict overridden", BY)
    assert record["sequence"] == verdict.override.audit_record
    assert record["what"]["mlflow_run"] == rejected.run_id
    assert record["what"]["rules"] == ["roc_auc_gain_over_baseline"]
    assert record["what"]["reason"] == REASON
    assert verify(trained.settings).sequence == 1


def test_where_approvers_are_named_nobody_else_overrides_whatever_name_they_type(
    trained: Trained, rejected: Evaluated
) -> None:
    named = trained.settings.model_copy(update={"approvers": ("ada",)})
    for who in ("", "charles"):
        with pytest.raises(ApprovalError, match="AIRLOOP_APPROVERS"):
            override(named, trained.spec, rejected.run_id, by="ada", who=who, reason=REASON, now=NOW)
    assert records(trained) == []
    assert not read_verdict(trained.settings, rejected.run_id).accepted
    assert override(named, trained.spec, rejected.run_id, by=BY, who="ada", reason=REASON, now=NOW).accepted
    (record,) = records(trained)
    assert (record["who"], record["what"]["airflow_user"]) == (BY, "ada")


def test_an_overridden_candidate_can_be_registered_and_one_that_was_not_cannot(
    trained: Trained, rejected: Evaluated
) -> None:
    with pytest.raises(RegistryError, match="roc_auc_gain_over_baseline"):
        register(trained.settings, trained.spec, rejected)
    registered = register(trained.settings, trained.spec, accept(trained))
    assert version_behind(trained.settings, "planted", CHALLENGER) == registered.version
    drop_alias(trained.settings, "planted", CHALLENGER)


def test_doing_it_again_changes_nothing(trained: Trained, rejected: Evaluated) -> None:
    first = accept(trained)
    text = artifact(trained, "verdict.json").read_text()
    assert accept(trained, now=NOW + timedelta(days=1), by=f" {BY} ") == first
    assert artifact(trained, "verdict.json").read_text() == text
    assert len(records(trained)) == 1


def test_one_that_died_after_the_record_leaves_one_record_and_no_acceptance(
    trained: Trained, rejected: Evaluated, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(*_: object) -> Evaluated:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(module, "publish", die)
        with pytest.raises(KeyboardInterrupt):
            accept(trained)
    assert not read_verdict(trained.settings, rejected.run_id).accepted
    assert accept(trained).accepted
    assert len(records(trained)) == 1


def test_another_verdict_needs_another_decision(trained: Trained, rejected: Evaluated) -> None:
    accept(trained)
    again = evaluate(trained.settings, strict(trained.spec), trained.training_set, trained.candidate)
    assert not again.accepted
    tags = open_registry(trained.settings).get_run(rejected.run_id).data.tags
    assert (tags["airloop.verdict"], tags["airloop.overridden_by"]) == ("rejected", "")
    assert accept(trained).accepted
    assert len(records(trained)) == 2


@pytest.mark.parametrize("changes", [{"by": ""}, {"by": "  "}, {"reason": ""}, {"reason": "\n"}])
def test_without_a_name_or_a_reason_nothing_happens(
    trained: Trained, rejected: Evaluated, changes: dict[str, str]
) -> None:
    with pytest.raises(OverrideError, match="name of the person"):
        accept(trained, **changes)
    assert records(trained) == []
    assert not read_verdict(trained.settings, rejected.run_id).accepted


def test_a_second_person_is_told_of_the_first(trained: Trained, rejected: Evaluated) -> None:
    accept(trained)
    with pytest.raises(OverrideError, match=f"{BY} overrode it"):
        accept(trained, by="Charles Babbage")
    assert len(records(trained)) == 1


def test_what_every_rule_accepts_needs_nobody(trained: Trained, rejected: Evaluated) -> None:
    evaluate(trained.settings, trained.spec, trained.training_set, trained.candidate)
    with pytest.raises(OverrideError, match="one that every rule accepts"):
        accept(trained)
    assert records(trained) == []


def test_another_use_cases_verdict_is_refused(trained: Trained, rejected: Evaluated) -> None:
    with pytest.raises(OverrideError, match="of other"):
        accept(trained, spec=trained.spec.model_copy(update={"name": "other"}))
    assert records(trained) == []


@pytest.mark.parametrize("rule", sorted(module.LAST_WORD))
def test_what_was_not_measured_nobody_accepts(trained: Trained, rejected: Evaluated, rule: str) -> None:
    path = artifact(trained, "verdict.json")
    document = json.loads(path.read_text())
    for item in document["rules"]:
        if item["name"] == rule:
            item["passed"] = False
    path.write_text(json.dumps(document))
    with pytest.raises(OverrideError, match=rule):
        accept(trained)
    assert records(trained) == []


def test_what_was_not_evaluated_or_cannot_be_asked_is_refused(
    trained: Trained, rejected: Evaluated, tmp_path: Path
) -> None:
    inputs = tuple(item for item in trained.spec.inputs if item.name != "noise")
    with pytest.raises(RegistryError, match="input 'noise' is not in the spec"):
        accept(trained, spec=trained.spec.model_copy(update={"inputs": inputs}))
    for name, found in (
        (f"{SAVED_MODEL}/saved_model.pb", "SavedModel"),
        (SAVED_MODEL, "saved_model"),
        ("verdict.json", "verdict.json"),
    ):
        path = artifact(trained, name)
        shutil.move(path, tmp_path / "aside")
        try:
            with pytest.raises(RegistryError, match=found):
                accept(trained)
        finally:
            shutil.move(tmp_path / "aside", path)
    with pytest.raises(RegistryError, match="complete training run"):
        override(trained.settings, trained.spec, "f" * 32, by=BY, reason=REASON, now=NOW)
    assert records(trained) == []


def test_the_job_reports_a_refusal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRLOOP_STATE_DIR", str(tmp_path))
    monkeypatch.setenv("AIRLOOP_MLFLOW_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    result = tmp_path / "result.json"
    flags = ["--use-case", "flight_delay", "--run-id", "f" * 32, "--by", " ", "--reason", "why"]
    assert module.main([*flags, "--result", str(result)]) == EXIT_PERMANENT
    assert json.loads(result.read_text())["error"]["type"] == "OverrideError"
