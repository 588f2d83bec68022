"""The rollout, on a real model server and registry: what serves after each step, and after each failure."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from airloop import registry
from airloop.approval import ApprovalError
from airloop.audit_log import AuditLogError, audit_log_file, records
from airloop.errors import EXIT_PERMANENT, RegistryError, RolloutError
from airloop.serving_history import serving_history
from airloop.settings import Settings, environment_of
from airloop.use_cases.catalogue import use_case
from airloop.use_cases.spec import UseCase
from serving import abandon as abandon_job
from serving import infra_check as infra_check_job
from serving import model_config, model_server_client
from serving import promote as promote_job
from serving.abandon import abandon
from serving.model_config import read_models
from serving.model_server_client import AVAILABLE, CHAMPION, PREVIOUS, ModelServer, ModelServerDown
from serving.promote import promote
from tests.serving.rollout.stack import (
    ROWS,
    answer_directly,
    free_port,
    model_server_process,
    register,
    some_rows,
)

Candidate = Callable[..., int]
# Without a server of its own for each, which takes seconds; test_stage.py has that.
infra_check = partial(infra_check_job.infra_check, apart=False)


class Killed(BaseException):
    """Stands for the end of the process: nothing catches it."""


def loaded(server: ModelServer, spec: UseCase) -> set[int]:
    """The versions that answer."""
    states = server.states(spec.model_name)
    return {version for version, found in states.items() if found.state == AVAILABLE}


def roll_out(settings: Settings, spec: UseCase, version: int) -> None:
    """The whole rollout of a version."""
    infra_check(settings, spec, version)
    promote(settings, spec, version)


def test_label_and_alias_of_the_champion_have_one_name() -> None:
    assert model_server_client.CHAMPION == registry.CHAMPION


def test_infra_check_takes_the_challenger_and_gives_it_no_traffic(
    settings: Settings, spec: UseCase, candidate: Candidate, server: ModelServer
) -> None:
    version = candidate(0.0)
    checked = infra_check(settings, spec, None)
    assert (checked.version, checked.requests_replayed) == (version, ROWS)
    assert checked.largest_difference <= 1e-5
    assert loaded(server, spec) == {version}
    assert server.labelled(spec.model_name, CHAMPION) is None
    assert infra_check(settings, spec, None) == checked


def test_infra_check_without_any_candidate_says_what_to_run(settings: Settings, spec: UseCase) -> None:
    with pytest.raises(RegistryError, match="_training first"):
        infra_check(settings, spec, None)


def test_infra_check_falls_back_to_the_champion(
    settings: Settings, spec: UseCase, candidate: Candidate
) -> None:
    version = candidate(0.0)
    roll_out(settings, spec, version)
    assert registry.version_behind(settings, spec.model_name, registry.CHALLENGER) is None
    assert infra_check(settings, spec, None).version == version


def test_a_lost_config_lets_no_challenger_skip_its_stages(
    settings: Settings, spec: UseCase, candidate: Candidate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model_config, "all_use_cases", lambda: (spec,))
    champion = candidate(0.0)
    roll_out(settings, spec, champion)
    challenger = candidate(1.0)
    settings.model_config_file.unlink()
    # The folder is there: the champion on record goes on being the one to beat.
    checked = infra_check(settings, spec, None, apart=False)
    assert (checked.version, checked.champion) == (challenger, champion)
    # So it does in a config that a stack was started with since.
    settings.model_config_file.write_text("model_config_list {}\n")
    assert read_models(settings)[spec.model_name].champion == champion
    # It is not: then it comes back before anything else may serve.
    settings.model_config_file.unlink()
    shutil.rmtree(settings.models_dir / spec.model_name)
    checked = infra_check(settings, spec, None, apart=False)
    assert (checked.version, checked.champion) == (champion, None)


def test_a_model_that_answers_differently_is_refused_and_the_champion_keeps_serving(
    settings: Settings, spec: UseCase, candidate: Candidate, server: ModelServer
) -> None:
    champion = candidate(0.0)
    roll_out(settings, spec, champion)
    config = settings.model_config_file.read_text()
    other = candidate(1.0, shift=0.01)
    with pytest.raises(
        RolloutError, match=r"difference of 0\.01\d* at row \d of 8.*'origin': 'JFK"
    ) as refused:
        infra_check(settings, spec, other)
    assert "champion" in refused.value.next_step
    assert settings.model_config_file.read_text() == config
    assert server.labelled(spec.model_name, CHAMPION) == champion
    with pytest.raises(RolloutError, match="without a passed infra check"):
        promote(settings, spec, other)
    gone = abandon(settings, spec, other)
    assert (gone.version, gone.live_version) == (other, champion)
    assert loaded(server, spec) == {champion}
    assert not (settings.models_dir / spec.model_name / str(other)).exists()
    assert abandon(settings, spec, other) == gone


def test_a_model_that_does_not_load_is_refused_with_the_servers_reason(
    settings: Settings, spec: UseCase, candidate: Candidate, server: ModelServer
) -> None:
    champion = candidate(0.0)
    roll_out(settings, spec, champion)
    broken = candidate(1.0, broken=True)
    with pytest.raises(RolloutError, match=r"AVAILABLE within .*found END: \w+"):
        infra_check(settings, spec, broken)
    assert server.labelled(spec.model_name, CHAMPION) == champion
    assert read_models(settings)[spec.model_name].versions == {champion}
    abandon(settings, spec, broken)
    assert loaded(server, spec) == {champion}


def test_a_first_model_that_does_not_load_is_refused_and_can_be_tried_again(
    settings: Settings, spec: UseCase, candidate: Candidate
) -> None:
    # A model that is new to the model server fails on another path: the reload itself is refused.
    broken = candidate(0.0, broken=True)
    for _ in range(2):
        with pytest.raises(RolloutError, match="AVAILABLE within"):
            infra_check(settings, spec, broken)
        assert read_models(settings) == {}
        assert abandon(settings, spec, broken).live_version is None
    roll_out(settings, spec, candidate(0.0))


def test_promotion_moves_label_config_and_alias_and_keeps_one_version_to_go_back_to(
    settings: Settings, spec: UseCase, candidate: Candidate, server: ModelServer, saved: dict[float, Path]
) -> None:
    versions = []
    for bias in (-1.0, 0.0, 1.0):
        versions.append(candidate(bias))
        infra_check(settings, spec, None)
        live = promote(settings, spec, versions[-1])
        assert live.version == versions[-1]
        assert live.previous_version == (versions[-2] if len(versions) > 1 else None)
        columns = some_rows(spec)
        answer = server.predict(spec, columns, version=CHAMPION, timeout=10)
        assert answer.version == versions[-1]
        assert [number for (number,) in answer.answers] == pytest.approx(
            answer_directly(saved[bias], spec, columns), abs=1e-6
        )
    assert loaded(server, spec) == set(versions[1:])
    model = read_models(settings)[spec.model_name]
    assert model.labels == {CHAMPION: versions[2], PREVIOUS: versions[1]}
    folders = {folder.name for folder in (settings.models_dir / spec.model_name).iterdir()}
    assert folders == {str(version) for version in versions[1:]}
    assert registry.version_behind(settings, spec.model_name, registry.CHAMPION) == versions[2]
    assert registry.run_of(settings, spec.model_name, versions[0])


def test_promotion_repeated_changes_nothing(
    settings: Settings, spec: UseCase, candidate: Candidate, server: ModelServer
) -> None:
    for bias in (0.0, 1.0):
        version = candidate(bias)
        roll_out(settings, spec, version)
    before = settings.model_config_file.stat()
    live = promote(settings, spec, version)
    assert (live.version, live.previous_version) == (version, version - 1)
    assert settings.model_config_file.stat().st_ino == before.st_ino
    assert loaded(server, spec) == {version - 1, version}


def test_going_back_to_the_previous_version_is_a_promotion(
    settings: Settings, spec: UseCase, candidate: Candidate, server: ModelServer
) -> None:
    first, second = candidate(0.0), candidate(1.0)
    roll_out(settings, spec, first)
    roll_out(settings, spec, second)
    live = promote(settings, spec, first)
    assert (live.version, live.previous_version) == (first, second)
    assert server.labelled(spec.model_name, CHAMPION) == first
    assert loaded(server, spec) == {first, second}


def test_what_served_is_on_record_with_its_signature_and_its_reason(
    settings: Settings, spec: UseCase, candidate: Candidate
) -> None:
    first, second = candidate(0.0), candidate(1.0)
    roll_out(settings, spec, first)
    roll_out(settings, spec, second)
    infra_check(settings, spec, first)
    promote(settings, spec, first, reason="ticket 12", who="ada")
    # The daily rollout of a champion, and a candidate that is abandoned, change nothing that serves.
    roll_out(settings, spec, first)
    refused = candidate(1.0, shift=0.01)
    with pytest.raises(RolloutError):
        infra_check(settings, spec, refused)
    abandon(settings, spec, refused)
    periods = serving_history(settings, spec.name).periods
    assert [period.version for period in periods] == [first, second, first]
    assert periods[1].why_stopped == f"rolled back to version {first}: ticket 12"
    assert periods[2].promoted_by == "ada"
    *_, last = records(settings)
    tags = registry.tags_of(settings, spec.model_name, first)
    assert last["what"]["signature_sha256"] == tags[registry.SIGNATURE_DIGEST]
    assert last["what"]["mlflow_run"] == registry.run_of(settings, spec.model_name, first)


def test_where_the_spec_asks_for_approval_only_an_approver_has_a_champion_replaced(
    settings: Settings, spec: UseCase, candidate: Candidate, server: ModelServer
) -> None:
    asked = spec.model_copy(update={"rollout": spec.rollout.model_copy(update={"approval": True})})
    named = settings.model_copy(update={"approvers": ("ada",)})
    first, second = candidate(0.0), candidate(1.0)
    infra_check(settings, asked, first)
    promote(named, asked, first)
    infra_check(settings, asked, second)
    # The first is of a task that somebody marked as done.
    for given, who in ((settings, ""), (named, ""), (named, "charles")):
        with pytest.raises(ApprovalError):
            promote(given, asked, second, approved_by=who)
        assert server.labelled(spec.model_name, CHAMPION) == first
    promote(named, asked, second, approved_by="ada")
    assert records(settings)[-1]["what"]["approved_by"] == "ada"
    # Going back must not wait for anybody.
    promote(named, asked, first, giving_up=second)
    assert server.labelled(spec.model_name, CHAMPION) == first


def test_a_champion_from_before_the_record_is_put_on_it_without_a_start(
    settings: Settings, spec: UseCase, candidate: Candidate
) -> None:
    version = candidate(0.0)
    roll_out(settings, spec, version)
    audit_log_file(settings).unlink()
    roll_out(settings, spec, version)
    (period,) = serving_history(settings, spec.name).periods
    assert (period.version, period.start, period.promoted_by) == (version, None, None)


def test_a_record_that_was_tampered_with_stops_promotions_before_anything_changes(
    settings: Settings, spec: UseCase, candidate: Candidate, server: ModelServer
) -> None:
    first, second = candidate(0.0), candidate(1.0)
    roll_out(settings, spec, first)
    infra_check(settings, spec, second)
    log = audit_log_file(settings)
    log.write_text(log.read_text().replace('"who": "', '"who": "not '))
    with pytest.raises(AuditLogError):
        promote(settings, spec, second)
    assert server.labelled(spec.model_name, CHAMPION) == first
    assert registry.version_behind(settings, spec.model_name, registry.CHAMPION) == first


def test_a_version_that_is_not_loaded_or_not_registered_is_not_promoted(
    settings: Settings, spec: UseCase, candidate: Candidate
) -> None:
    version = candidate(0.0)
    with pytest.raises(RolloutError, match="infra_check"):
        promote(settings, spec, version)
    with pytest.raises(RegistryError):
        promote(settings, spec, version + 1)
    assert registry.version_behind(settings, spec.model_name, registry.CHAMPION) is None


def test_abandoning_the_champion_leaves_it_alone(
    settings: Settings, spec: UseCase, candidate: Candidate, server: ModelServer
) -> None:
    version = candidate(0.0)
    roll_out(settings, spec, version)
    assert abandon(settings, spec, None).live_version == version
    assert server.labelled(spec.model_name, CHAMPION) == version


@pytest.mark.parametrize("step", ["download", "rename", "load", "write"])
def test_infra_check_killed_at_any_step_and_run_again_gives_the_same(
    step: str,
    settings: Settings,
    spec: UseCase,
    candidate: Candidate,
    server: ModelServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    champion = candidate(0.0)
    roll_out(settings, spec, champion)
    version = candidate(1.0)

    def killed(*_: object, **__: object) -> None:
        raise Killed

    def killed_half_way(settings: Settings, run_id: str, path: str, destination: Path) -> Path:
        there = download(settings, run_id, path, destination)
        if path == registry.SAVED_MODEL:
            (there / "saved_model.pb").unlink()
            raise Killed
        return there

    download = registry.download_artifacts
    with monkeypatch.context() as patch:
        match step:
            case "download":
                patch.setattr(registry, "download_artifacts", killed_half_way)
            case "rename":
                patch.setattr(Path, "rename", killed)
            case "load":
                patch.setattr(ModelServer, "predict", killed)
            case "write":
                patch.setattr(infra_check_job, "write_models", killed)
        with pytest.raises(Killed):
            infra_check(settings, spec, version)
    assert server.labelled(spec.model_name, CHAMPION) == champion
    assert infra_check(settings, spec, version).version == version
    assert loaded(server, spec) == {champion, version}
    assert not list((settings.models_dir / spec.model_name).glob("staging*"))


@pytest.mark.parametrize(
    "step",
    ["before the record", "before the file", "before the alias", "after the alias", "before removal"],
)
def test_promotion_killed_at_any_step_serves_and_is_finished_by_the_next_run(
    step: str,
    settings: Settings,
    spec: UseCase,
    candidate: Candidate,
    server: ModelServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first, second = candidate(-1.0), candidate(0.0)
    roll_out(settings, spec, first)
    roll_out(settings, spec, second)
    third = candidate(1.0)
    infra_check(settings, spec, third)

    def killed(*_: object, **__: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        match step:
            case "before the record":
                patch.setattr(promote_job, "record_promotion", killed)
            case "before the file":
                patch.setattr(promote_job, "write_models", killed)
            case "before the alias":
                patch.setattr(registry, "set_alias", killed)
            case "after the alias":
                patch.setattr(registry, "drop_alias", killed)
            case "before removal":
                patch.setattr(promote_job.shutil, "rmtree", killed)
        with pytest.raises(Killed):
            promote(settings, spec, third)
    assert server.labelled(spec.model_name, CHAMPION) == third
    live = promote(settings, spec, third)
    assert (live.version, live.previous_version) == (third, second)
    assert loaded(server, spec) == {second, third}
    assert read_models(settings)[spec.model_name].labels == {CHAMPION: third, PREVIOUS: second}
    assert registry.version_behind(settings, spec.model_name, registry.CHAMPION) == third
    assert registry.version_behind(settings, spec.model_name, registry.CHALLENGER) is None
    assert not (settings.models_dir / spec.model_name / str(first)).exists()
    periods = serving_history(settings, spec.name).periods
    assert [(period.version, period.replaced_by) for period in periods] == [
        (first, second),
        (second, third),
        (third, None),
    ]


def test_no_request_fails_while_champions_change(
    settings: Settings, spec: UseCase, candidate: Candidate
) -> None:
    roll_out(settings, spec, candidate(-1.0))
    columns = {name: values[:1] for name, values in some_rows(spec).items()}
    stop = threading.Event()
    failures: list[Exception] = []
    answers: dict[int, set[float]] = {}

    def hammer() -> None:
        with ModelServer.of(settings) as client:
            while not stop.is_set():
                try:
                    answer = client.predict(spec, columns, version=CHAMPION, timeout=10)
                except Exception as error:
                    failures.append(error)
                else:
                    answers.setdefault(answer.version, set()).add(answer.answers[0])

    threads = [threading.Thread(target=hammer) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        for bias in (0.0, 1.0):
            roll_out(settings, spec, candidate(bias))
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert failures == []
    assert len(answers) >= 2
    assert all(len(values) == 1 for values in answers.values())


def test_a_model_server_that_is_down_is_no_verdict_on_the_candidate(
    settings: Settings, spec: UseCase, candidate: Candidate
) -> None:
    version = candidate(0.0)
    down = settings.model_copy(update={"model_server_grpc_port": free_port()})
    with pytest.raises(ModelServerDown):
        infra_check(down, spec, version)
    assert read_models(settings) == {}


def test_a_restarted_model_server_comes_up_with_champion_and_previous(
    settings: Settings, spec: UseCase, candidate: Candidate, tmp_path: Path
) -> None:
    for bias in (0.0, 1.0):
        version = candidate(bias)
        roll_out(settings, spec, version)
    restarted = settings.model_copy(update={"model_server_grpc_port": free_port()})
    with (
        model_server_process(restarted, tmp_path / "restarted.log"),
        ModelServer.of(restarted) as server,
    ):
        assert server.labelled(spec.model_name, CHAMPION) == version
        assert server.labelled(spec.model_name, PREVIOUS) == version - 1


def test_a_folder_of_another_run_is_not_served(
    settings: Settings, spec: UseCase, candidate: Candidate
) -> None:
    version = candidate(0.0)
    folder = settings.models_dir / spec.model_name / str(version)
    folder.mkdir(parents=True)
    with pytest.raises(RolloutError, match="no run"):
        infra_check(settings, spec, version)


def test_commands_follow_the_job_contract(
    settings: Settings, tmp_path: Path, saved: dict[float, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = use_case("flight_delay")
    version = register(settings, spec, saved[0.0], tmp_path / "artifacts")
    for name, value in environment_of(settings).items():
        monkeypatch.setenv(name, value)
    result = tmp_path / "result.json"
    common = ["--use-case", "flight_delay", "--result", str(result)]
    assert infra_check_job.main(common) == 0
    assert json.loads(result.read_text())["version"] == version
    why = ["--reason", "the first", "--who", "ada"]
    assert promote_job.main([*common, "--version", str(version), *why]) == 0
    (period,) = serving_history(settings, spec.name).periods
    assert (period.reason, period.promoted_by) == ("the first", "ada")
    assert json.loads(result.read_text()) == {
        "name": "flight_delay",
        "version": version,
        "previous_version": None,
    }
    assert promote_job.main([*common, "--version", "99"]) == EXIT_PERMANENT
    assert json.loads(result.read_text())["error"]["type"] == "RegistryError"
    assert abandon_job.main(common) == 0
    assert json.loads(result.read_text())["live_version"] == version
