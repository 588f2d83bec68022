"""A model crosses from one MLflow server to another only under a verdict that accepts it, byte for byte."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from mlflow.entities import Run, RunData, RunInfo, RunTag

from airloop import registry
from airloop.delivery import promote_model
from airloop.delivery.promote_model import PROMOTED_FROM, objections, promotable, promote
from airloop.erasure.models import ERASED, REVOKED
from airloop.errors import EXIT_PERMANENT, AirloopError, PromotionError, RegistryError
from airloop.settings import Settings
from airloop.training.tracking import CODE_COMMIT, COMPLETE, VERDICT, VERDICT_FILE, tags_of_run
from airloop.use_cases.flight_delay import USE_CASE
from airloop.use_cases.spec import UseCase
from airloop.verdict import Override
from serving.rollout import candidate_version, stage_model
from tests.delivery.conftest import COMMIT, Environments, make_champion, verdict_on, version_tags

RUN = "4" * 32
FAILED = verdict_on(USE_CASE, "").rules[0].model_copy(update={"passed": False, "value": 0.001})
OVERRIDE = Override(
    by="Ada Lovelace",
    reason="the storm",
    at="2026-11-25T08:00:00+00:00",
    rules=(FAILED.name,),
    audit_record=7,
)
OTHER_SET = verdict_on(USE_CASE, "").training_set.model_copy(update={"snapshot_id": 5})


def versions_of(settings: Settings, spec: UseCase) -> list[int]:
    """The versions of the use case's model that the registry has."""
    found = registry.open_registry(settings).search_model_versions(f"name='{spec.model_name}'")
    return sorted(int(version.version) for version in found)


@pytest.mark.delivery
def test_an_accepted_champion_arrives_whole_and_the_targets_rollout_takes_it_up(
    environments: Environments, spec: UseCase, tmp_path: Path
) -> None:
    source, target = environments.source, environments.target
    version = make_champion(source, spec, tmp_path)
    came = promote(source, target, spec, promotable(source, spec, version=version))
    assert (came.code_commit, came.training_set) == (COMMIT, "as_of_20130603")
    assert candidate_version(target, spec, None) == came.version
    assert registry.version_behind(target, spec.model_name, registry.CHAMPION) is None
    # As the first step of the target's rollout does, with nothing but the public key.
    requests = stage_model(target, spec.model_name, came.version or 0)
    assert json.loads(requests) == {"inputs": {}, "probability": []}

    here, there = registry.open_registry(source), registry.open_registry(target)
    before = here.get_run(registry.run_of(source, spec.model_name, version))
    after = there.get_run(came.run_id)
    assert after.data.metrics == before.data.metrics == {"test_roc_auc": 0.72}
    assert after.data.params == before.data.params
    assert after.info.status == "FINISHED"
    for tag in (CODE_COMMIT, VERDICT, COMPLETE, "airloop.training_set", "mlflow.runName"):
        assert after.data.tags[tag] == before.data.tags[tag]
    assert after.data.tags[PROMOTED_FROM] == f"{spec.name}/{version}/{before.info.run_id}" == came.origin
    for folder in ("", "plots", "saved_model/variables"):
        listed = [
            [(item.path, item.file_size) for item in client.list_artifacts(run_id, folder)]
            for client, run_id in ((here, before.info.run_id), (there, came.run_id))
        ]
        assert listed[0] == listed[1] != []
    tags = registry.tags_of(target, spec.model_name, came.version or 0)
    same = registry.tags_of(source, spec.model_name, version)
    assert {**same, "verdict_uri": tags["verdict_uri"], PROMOTED_FROM: came.origin} == tags
    assert came.run_id is not None
    assert came.run_id in tags["verdict_uri"]


@pytest.mark.delivery
def test_promoting_again_copies_nothing_and_a_champion_keeps_its_aliases(
    environments: Environments, spec: UseCase, tmp_path: Path
) -> None:
    source, target = environments.source, environments.target
    make_champion(source, spec, tmp_path)
    came = promote(source, target, spec, promotable(source, spec))
    assert promote(source, target, spec, promotable(source, spec)) == came
    assert versions_of(target, spec) == [came.version]
    registry.set_alias(target, spec.model_name, registry.CHAMPION, came.version or 0)
    registry.drop_alias(target, spec.model_name, registry.CHALLENGER)
    promote(source, target, spec, promotable(source, spec))
    assert registry.version_behind(target, spec.model_name, registry.CHALLENGER) is None


@pytest.mark.delivery
def test_a_promotion_that_was_cut_off_is_done_by_the_next(
    environments: Environments, spec: UseCase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, target = environments.source, environments.target
    make_champion(source, spec, tmp_path)
    model = promotable(source, spec)
    with monkeypatch.context() as patch:
        patch.setattr(
            promote_model.TrainingRuns, "finish", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt)
        )
        with pytest.raises(KeyboardInterrupt):
            promote(source, target, spec, model)
    assert versions_of(target, spec) == []
    came = promote(source, target, spec, model)
    client = registry.open_registry(target)
    experiment = client.get_experiment_by_name(spec.name)
    runs = client.search_runs([experiment.experiment_id])
    assert {run.info.run_id: run.info.status for run in runs}[came.run_id or ""] == "FINISHED"
    assert sorted(run.info.status for run in runs) == ["FAILED", "FINISHED"]


@pytest.mark.parametrize(
    ("how", "found"),
    [
        ({"accepted": False, "rules": (FAILED,)}, "rejects it: roc_auc_gain_over_baseline: better"),
        ({"accepted": True, "rules": (FAILED,)}, "rules failed and nobody overrode them: roc_auc_gain"),
        ({"rules": ()}, "no rule was applied"),
        (
            {"rules": (FAILED,), "override": OVERRIDE},
            r"Ada Lovelace overrode the verdict \(the storm\); failed: roc_auc_gain",
        ),
        ({"use_case": "another"}, "is about run .* of another"),
        ({"run_id": "0" * 32}, "is about run 0000"),
        ({"training_set": OTHER_SET}, "training set is .*123456789012345678.* by its tags and .*'5'"),
        ({"tags": {CODE_COMMIT: "unknown"}}, "not named by a commit .*is unknown"),
        ({"tags": {CODE_COMMIT: f"{COMMIT}-dirty"}}, "not named by a commit .*-dirty"),
        ({"tags": {CODE_COMMIT: ""}}, "not named by a commit .*is missing"),
        ({"tags": {CODE_COMMIT: "3" * 40}}, "version and run name different commits: 333.*, 222"),
        ({"commit": "3" * 40}, "version and run name different commits: 222.*, 333"),
        ({"tags": {"training_set": "as_of_20130604"}}, r"training set is \('as_of_20130604'"),
        ({"run_tags": {"airloop.training_set": "other"}}, "run names the training set other"),
        ({"tags": {"verdict": "rejected"}}, "tag verdict is 'rejected'"),
        ({"run_tags": {VERDICT: "rejected"}}, "tag airloop.verdict is 'rejected'"),
        ({"tags": {registry.STALE: "rolled back"}}, "tag airloop.stale: rolled back"),
        ({"tags": {registry.ROLLED_BACK: "slow"}}, "tag airloop.rolled_back: slow"),
        ({"tags": {REVOKED: "erasure"}}, "tag airloop.revoked: erasure"),
        ({"run_tags": {ERASED: "abc"}}, "tag airloop.erased: abc"),
    ],
)
def test_each_objection_is_named(how: dict[str, Any], found: str) -> None:
    verdict = verdict_on(USE_CASE, RUN)
    tags = {**version_tags(verdict.training_set, COMMIT), **how.pop("tags", {})}
    run_tags = {
        **tags_of_run(USE_CASE, verdict.training_set, how.pop("commit", COMMIT)),
        VERDICT: "accepted",
        COMPLETE: "true",
        **how.pop("run_tags", {}),
    }
    (objection,) = objections(USE_CASE, run_of(run_tags), tags, verdict.model_copy(update=how))
    assert re.search(found, objection), objection


def run_of(tags: dict[str, str]) -> Run:
    """MLflow's record of a run with `tags`."""
    info = RunInfo(
        run_id=RUN,
        experiment_id="1",
        user_id="",
        status="FINISHED",
        start_time=0,
        end_time=0,
        lifecycle_stage="",
    )
    return Run(info, RunData(tags=[RunTag(name, value) for name, value in tags.items()]))


def test_an_incomplete_run_has_no_model() -> None:
    verdict = verdict_on(USE_CASE, RUN)
    run = run_of({**tags_of_run(USE_CASE, verdict.training_set, COMMIT), VERDICT: "accepted"})
    tags = version_tags(verdict.training_set, COMMIT)
    assert objections(USE_CASE, run, tags, verdict) == [f"its run {RUN} is not complete"]


@pytest.mark.delivery
def test_everything_that_speaks_against_it_is_named_at_once(
    environments: Environments, spec: UseCase, tmp_path: Path
) -> None:
    source = environments.source
    version = make_champion(source, spec, tmp_path, accepted=False, rules=(FAILED,), commit="unknown")
    registry.tag_version(source, spec.model_name, version, registry.STALE, "old")
    found = "rejects it: roc_auc_gain.*by a commit.*airloop.stale: old"
    with pytest.raises(PromotionError, match=found) as refused:
        promotable(source, spec)
    assert "the target keeps serving" in refused.value.next_step


@pytest.mark.delivery
def test_what_a_person_accepted_goes_only_when_that_is_asked_for(
    environments: Environments, spec: UseCase, tmp_path: Path
) -> None:
    make_champion(environments.source, spec, tmp_path, rules=(FAILED,), override=OVERRIDE)
    assert promotable(environments.source, spec, accept_overridden=True).verdict.overridden_by == OVERRIDE.by


@pytest.mark.delivery
def test_only_the_champion_that_was_looked_at_goes(
    environments: Environments, spec: UseCase, tmp_path: Path
) -> None:
    with pytest.raises(PromotionError, match=r"expected a champion of .*; found none"):
        promotable(environments.source, spec)
    version = make_champion(environments.source, spec, tmp_path)
    with pytest.raises(PromotionError, match=f"found version {version}"):
        promotable(environments.source, spec, version=version + 1)


@pytest.mark.delivery
@pytest.mark.parametrize("text", [None, "{}", "no verdict"])
def test_without_a_readable_verdict_nothing_goes(
    environments: Environments, spec: UseCase, tmp_path: Path, text: str | None
) -> None:
    source = environments.source
    version = make_champion(source, spec, tmp_path)
    run_id = registry.run_of(source, spec.model_name, version)
    if text is None:
        artifacts = registry.open_registry(source).get_run(run_id).info.artifact_uri
        root = source.state_dir.parent / "artifacts"
        (root / artifacts.removeprefix("mlflow-artifacts:/") / VERDICT_FILE).unlink()
    else:
        registry.open_registry(source).log_text(run_id, text, VERDICT_FILE)
    with pytest.raises(AirloopError, match=r"verdict\.json"):
        promotable(source, spec)


@pytest.mark.delivery
def test_the_code_must_be_in_the_history_of_the_checkout(
    environments: Environments, spec: UseCase, tmp_path: Path
) -> None:
    def git(*arguments: str) -> str:
        identity = ("-c", "user.name=t", "-c", "user.email=t@example.org")
        command = ["git", *identity, "-C", str(tmp_path / "checkout"), *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    (tmp_path / "checkout").mkdir()
    git("init", "--quiet", "--initial-branch", "main")
    commits = []
    for _ in range(2):
        git("commit", "--quiet", "--allow-empty", "--message", "change")
        commits.append(git("rev-parse", "HEAD"))
    make_champion(environments.source, spec, tmp_path, commit=commits[0])
    promotable(environments.source, spec, repository=tmp_path / "checkout")
    git("checkout", "--quiet", "--orphan", "elsewhere")
    git("commit", "--quiet", "--allow-empty", "--message", "not reviewed")
    with pytest.raises(PromotionError, match=f"its code, {commits[0]}, is not in the history"):
        promotable(environments.source, spec, repository=tmp_path / "checkout")


@pytest.mark.delivery
@pytest.mark.parametrize("changed", ["saved_model/saved_model.pb", registry.RECORDED_REQUESTS])
def test_a_byte_that_was_changed_before_is_refused_and_nothing_arrives(
    environments: Environments, spec: UseCase, tmp_path: Path, changed: str
) -> None:
    source, target = environments.source, environments.target
    version = make_champion(source, spec, tmp_path)
    run_id = registry.run_of(source, spec.model_name, version)
    registry.open_registry(source).log_text(run_id, "other", changed)
    with pytest.raises(RegistryError, match=f"Hash mismatch for '{changed}'"):
        promote(source, target, spec, promotable(source, spec))
    assert versions_of(target, spec) == []


@pytest.mark.delivery
def test_an_unsigned_version_and_anothers_signature_are_refused(
    environments: Environments, spec: UseCase, tmp_path: Path
) -> None:
    source, target = environments.source, environments.target
    version = make_champion(source, spec, tmp_path / "ours")
    theirs = source.model_copy(update={"state_dir": tmp_path / "theirs"})
    other = spec.model_copy(update={"name": f"{spec.name}_theirs"})
    make_champion(theirs, other, tmp_path / "of_theirs")
    with pytest.raises(RegistryError, match="Key mismatch"):
        promote(source, target, other, promotable(source, other))
    registry.open_registry(source).delete_model_version_tag(
        spec.model_name, str(version), registry.SIGNATURE_DIGEST
    )
    with pytest.raises(RegistryError, match="to be signed"):
        promote(source, target, spec, promotable(source, spec))
    keyless = target.model_copy(update={"verification_key": None})
    with pytest.raises(PromotionError, match="AIRLOOP_VERIFICATION_KEY"):
        promote(source, keyless, spec, promotable(source, spec))
    assert versions_of(target, spec) == versions_of(target, other) == []


@pytest.mark.delivery
def test_what_was_changed_after_it_arrived_gets_no_alias(
    environments: Environments, spec: UseCase, tmp_path: Path
) -> None:
    source, target = environments.source, environments.target
    make_champion(source, spec, tmp_path)
    came = promote(source, target, spec, promotable(source, spec))
    registry.drop_alias(target, spec.model_name, registry.CHALLENGER)
    registry.open_registry(target).log_text(came.run_id, "other", "saved_model/variables/data")
    with pytest.raises(RegistryError, match="Hash mismatch"):
        promote(source, target, spec, promotable(source, spec))
    assert registry.version_behind(target, spec.model_name, registry.CHALLENGER) is None


@pytest.mark.delivery
def test_what_the_target_gave_up_is_not_offered_again(
    environments: Environments, spec: UseCase, tmp_path: Path
) -> None:
    source, target = environments.source, environments.target
    make_champion(source, spec, tmp_path)
    came = promote(source, target, spec, promotable(source, spec))
    registry.drop_alias(target, spec.model_name, registry.CHALLENGER)
    registry.tag_version(target, spec.model_name, came.version or 0, registry.ROLLED_BACK, "errors")
    with pytest.raises(PromotionError, match="its rollout gave it up: errors"):
        promote(source, target, spec, promotable(source, spec))
    assert registry.version_behind(target, spec.model_name, registry.CHALLENGER) is None


@pytest.mark.delivery
def test_the_command_line_checks_first_and_says_why_it_refuses(
    environments: Environments, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, target = environments.source, environments.target
    version = make_champion(source, USE_CASE, tmp_path)
    monkeypatch.setenv("AIRLOOP_MLFLOW_URI", target.tracking_uri)
    monkeypatch.setenv("AIRLOOP_STATE_DIR", str(target.state_dir))
    monkeypatch.setenv("AIRLOOP_VERIFICATION_KEY", str(target.verification_key))
    result = tmp_path / "result.json"
    flags = ["--use-case", "flight_delay", "--from-mlflow", source.tracking_uri, "--result", str(result)]
    assert promote_model.main([*flags, "--dry-run"]) == 0
    assert json.loads(result.read_text())["version"] is None
    assert versions_of(target, USE_CASE) == []
    assert promote_model.main([*flags, "--version", str(version)]) == 0
    assert versions_of(target, USE_CASE) == [json.loads(result.read_text())["version"]]
    assert promote_model.main([*flags, "--version", str(version + 1)]) == EXIT_PERMANENT
    assert json.loads(result.read_text())["error"]["type"] == "PromotionError"
    same = ["--use-case", "flight_delay", "--from-mlflow", target.tracking_uri]
    assert promote_model.main(same) == EXIT_PERMANENT
