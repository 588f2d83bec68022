"""Stages of a rollout on a real model server, registry and prediction log: routed, decided, undone."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from airloop import registry
from airloop.audit_log import records
from airloop.errors import RolloutError
from airloop.prediction_log import variants
from airloop.prediction_log.outcome import OutcomeRecord
from airloop.prediction_log.record import PredictionRecord
from airloop.prediction_log.spool import Spool
from airloop.references import StageDecision, WentBack
from airloop.rollout_decisions import decisions, report_folder
from airloop.routing_document import Routing, Split
from airloop.serving_history import serving_history
from airloop.settings import Settings
from airloop.use_cases.spec import UseCase
from serving import experiment as experiment_job
from serving.abandon import abandon
from serving.infra_check import infra_check
from serving.model_config import read_models
from serving.model_server_client import AVAILABLE, CHAMPION, ModelServer
from serving.promote import promote
from serving.roll_back import roll_back
from serving.rollout import candidate_version
from serving.routing import forget_giving_up, read_routing, write_routing
from serving.stage import DECISION, look

Candidate = Callable[..., int]
START = datetime(2026, 11, 20, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
BAKE = 2 * MINUTE


class Traffic:
    """What gateways would have written: records of predictions, at made-up times."""

    def __init__(self, settings: Settings, spec: UseCase) -> None:
        self._settings, self._spec = settings, spec
        self._random = np.random.default_rng(1)
        self._count = 0

    def send(
        self,
        at: datetime,
        champion: int,
        candidate: int,
        *,
        requests: int = 400,
        canary: float = 0.0,
        errors: float = 0.0,
        shift: float = 0.0,
        slow: float = 1.0,
        noise: float = 0.0,
        labels: bool = False,
    ) -> None:
        """`requests` at `at`: the champion answers and the candidate gets copies, or a share of them."""
        rows: list[PredictionRecord] = []
        told: list[OutcomeRecord] = []
        for _ in range(requests):
            self._count += 1
            truth = float(self._random.beta(2, 6))
            logit = np.log(truth / (1 - truth)) + self._random.normal(0, noise) if noise else None
            other = truth if logit is None else float(1 / (1 + np.exp(-logit)))
            failed = self._random.uniform() < errors
            mine = {
                "answer": None if failed else (min(other + shift, 1.0),),
                "error": variants.REFUSED if failed else None,
            }
            seconds = float(self._random.lognormal(-5.5, 0.3)) * slow
            if self._random.uniform() < canary:
                rows.append(self._record(at, candidate, variants.CANARY, seconds, **mine))
                if failed:
                    rows.append(self._record(at, champion, variants.FALLBACK, 0.004, answer=(truth,)))
            else:
                rows.append(self._record(at, champion, variants.CHAMPION, 0.004, answer=(truth,)))
                rows.append(self._record(at, candidate, variants.SHADOW, seconds, **mine))
            if labels:
                told.append(self._outcome(at, truth))
        with closing(Spool(self._settings.prediction_spool_dir)) as spool:
            spool.append(rows)
        if told:
            with closing(Spool(self._settings.outcome_spool_dir)) as spool:
                spool.append(told)

    def units(self, at: datetime, champion: int, version: int, *, units: int = 300) -> None:
        """An experiment's: each unit asks once, and its outcome is known."""
        rows, told = [], []
        for number in range(units):
            self._count += 1
            truth, treated = float(self._random.beta(2, 6)), self._random.uniform() < 0.5
            variant = variants.TREATMENT if treated else variants.CONTROL
            rows.append(
                self._record(
                    *(at, version if treated else champion, variant, 0.004),
                    answer=(truth,),
                    unit=f"unit {number}",
                )
            )
            told.append(self._outcome(at, truth))
        for folder, kept in (
            (self._settings.prediction_spool_dir, rows),
            (self._settings.outcome_spool_dir, told),
        ):
            with closing(Spool(folder)) as spool:
                spool.append(kept)

    def _outcome(self, at: datetime, truth: float) -> OutcomeRecord:
        """What became of the last request, drawn by its probability."""
        return OutcomeRecord(
            request_id=str(self._count),
            instance=0,
            use_case=self._spec.name,
            label=float(self._random.uniform() < truth),
            observed_at=at,
            received_at=at,
            caller="web",
        )

    def _record(
        self, at: datetime, version: int, variant: str, seconds: float, **answer: object
    ) -> PredictionRecord:
        return PredictionRecord(
            request_id=str(self._count),
            trace_id="0" * 31 + "1",
            instance=0,
            caller="web",
            use_case=self._spec.name,
            model=self._spec.model_name,
            version=version,
            variant=variant,
            predicted_at=at,
            prediction_time=at,
            latency_seconds=seconds,
            model_seconds=seconds,
            entities={},
            request={},
            features={},
            missing_features=[],
            **answer,
        )


@pytest.fixture(autouse=True)
def run(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Says which Airflow run this process works for; `run 1` at first."""

    def become(name: str) -> None:
        monkeypatch.setenv("AIRFLOW_CTX_DAG_ID", "rollout")
        monkeypatch.setenv("AIRFLOW_CTX_DAG_RUN_ID", name)

    become("run 1")
    return become


@pytest.fixture
def pair(settings: Settings, spec: UseCase, candidate: Candidate) -> tuple[int, int]:
    """A champion that serves, and a candidate that passed its infra check."""
    champion = candidate(0.0)
    infra_check(settings, spec, champion, apart=False)
    promote(settings, spec, champion)
    challenger = candidate(1.0)
    infra_check(settings, spec, challenger, apart=False)
    return champion, challenger


@pytest.fixture
def traffic(settings: Settings, spec: UseCase) -> Traffic:
    return Traffic(settings, spec)


def decided(found: StageDecision) -> tuple[str, str]:
    return found.stage, found.decision


def at(
    settings: Settings, spec: UseCase, version: int, stage: str, minutes: float, **how: bool
) -> StageDecision:
    return look(settings, spec, version, stage, now=START + minutes * MINUTE, bake=BAKE, **how)


def loaded(server: ModelServer, spec: UseCase) -> set[int]:
    return {v for v, found in server.states(spec.model_name).items() if found.state == AVAILABLE}


def outcome_of(found: StageDecision, rule: str) -> str:
    return {check.name: check.outcome for check in found.checks}[rule]


def test_a_good_candidate_goes_from_shadow_to_champion(
    settings: Settings, spec: UseCase, pair: tuple[int, int], traffic: Traffic, server: ModelServer
) -> None:
    champion, version = pair
    name = spec.model_name
    spec = spec.model_copy(
        update={"rollout": spec.rollout.model_copy(update={"when_quiet": "hold", "min_requests": 100})}
    )
    first = at(settings, spec, version, "shadow", 0)
    assert decided(first) == ("shadow", "hold")
    assert first.look_again_at == START + spec.rollout.look_every
    routing = read_routing(settings, name)
    assert (routing.shadow, routing.split) == (version, None)
    traffic.send(START + MINUTE, champion, version, labels=True)
    held = at(settings, spec, version, "shadow", 1.9, first=False)
    assert (held.decision, held.requests) == ("hold", 400)
    assert held.look_again_at == START + BAKE, "not later than the stage may end"
    passed = at(settings, spec, version, "shadow", 2, first=False)
    assert decided(passed) == ("shadow", "go_on")
    assert {check.outcome for check in passed.checks} == {"passed"}
    assert passed.disagreement == 0
    assert passed.since == START

    for number, percent in enumerate(spec.rollout.canary_percent):
        begun = 10.0 * (number + 1)
        assert at(settings, spec, version, f"canary_{percent}", begun).decision == "hold"
        split = read_routing(settings, name).split
        assert split is not None
        assert (split.version, split.share) == (version, percent / 100)
        few = at(settings, spec, version, f"canary_{percent}", begun + 3, first=False)
        assert few.decision == "hold"
        assert "too little is known" in few.reason
        traffic.send(START + (begun + 1) * MINUTE, champion, version, canary=percent / 100, requests=600)
        assert at(settings, spec, version, f"canary_{percent}", begun + 4, first=False).decision == "go_on"

    assert promote(settings, spec, version).previous_version == champion
    routing = read_routing(settings, name)
    assert (routing.split, routing.shadow) == (None, None)
    assert at(settings, spec, version, "watch", 50).decision == "hold"
    # Now the version before gets the copies.
    assert read_routing(settings, name).shadow == champion
    traffic.send(START + 51 * MINUTE, version, champion)
    assert at(settings, spec, version, "watch", 53, first=False).decision == "go_on"
    assert read_routing(settings, name) == Routing(changed_by="rollout/run 1")
    assert server.labelled(name, CHAMPION) == version
    on_record = [r["what"]["stage"] for r in records(settings) if r["kind"] == DECISION]
    assert on_record == ["shadow", "canary_5", "canary_25", "canary_50", "watch"]
    report = report_folder(settings, spec, "rollout/run 1")
    assert [item.stage for item in decisions(report)] == on_record
    page = (report / "index.html").read_text("utf-8")
    assert "canary_25" in page
    assert "population stability index" in page


@pytest.mark.parametrize(
    ("fault", "rule"),
    [
        ({"errors": 0.02}, "error_rate"),
        ({"shift": 0.2}, "prediction_shift"),
        ({"slow": 20.0}, "latency_p99_seconds"),
        ({"noise": 1.5, "labels": True, "requests": 1500}, "log_loss_excess"),
    ],
)
def test_a_bad_candidate_is_gone_at_the_first_look_that_shows_it(
    settings: Settings,
    spec: UseCase,
    pair: tuple[int, int],
    traffic: Traffic,
    server: ModelServer,
    fault: dict[str, float],
    rule: str,
) -> None:
    champion, version = pair
    at(settings, spec, version, "shadow", 0)
    traffic.send(START + 0.5 * MINUTE, champion, version, **fault)
    found = at(settings, spec, version, "shadow", 1, first=False)
    assert found.decision == "roll_back", "long before the stage is over"
    assert outcome_of(found, rule) == "breached"
    assert rule in found.reason
    routing = read_routing(settings, spec.model_name)
    assert (routing.shadow, routing.split, routing.rollout) == (None, None, None)
    assert loaded(server, spec) == {champion}
    assert server.labelled(spec.model_name, CHAMPION) == champion
    tags = registry.tags_of(settings, spec.model_name, version)
    assert rule in tags[registry.ROLLED_BACK]
    # The daily rollout does not try it again, nor does a repeated task.
    assert candidate_version(settings, spec, None) == champion
    again = at(settings, spec, version, "shadow", 2)
    assert (again.decision, again.reason) == ("roll_back", found.reason)


def test_a_new_champion_that_fails_its_watch_gives_way_to_the_one_before(
    settings: Settings, spec: UseCase, pair: tuple[int, int], traffic: Traffic, server: ModelServer
) -> None:
    champion, version = pair
    promote(settings, spec, version)
    at(settings, spec, version, "watch", 0)
    # The new champion errs on some requests, and the version before answers the copies.
    traffic.send(START + 0.5 * MINUTE, champion, version, canary=1.0, errors=0.05)
    traffic.send(START + 0.5 * MINUTE, version, champion, requests=200)
    found = at(settings, spec, version, "watch", 1, first=False)
    assert (found.decision, found.champion) == ("roll_back", champion)
    assert server.labelled(spec.model_name, CHAMPION) == champion
    assert loaded(server, spec) == {champion}
    assert registry.version_behind(settings, spec.model_name, registry.CHAMPION) == champion
    ended = [period for period in serving_history(settings, spec.name).periods if period.version == version]
    assert ended[0].stopped == "rolled back"
    assert "error_rate" in (ended[0].why_stopped or "")
    # Nothing leads back to it.
    with pytest.raises(RolloutError, match="with no version before it loaded"):
        roll_back(settings, spec, version=None, reason="once more")


def test_a_newer_candidate_takes_over_and_the_older_one_leaves(
    settings: Settings,
    spec: UseCase,
    pair: tuple[int, int],
    candidate: Candidate,
    server: ModelServer,
    run: Callable[[str], None],
) -> None:
    champion, version = pair
    at(settings, spec, version, "shadow", 0)
    newer = candidate(-1.0)
    infra_check(settings, spec, newer, apart=False)
    run("run 2")
    assert at(settings, spec, newer, "shadow", 1).decision == "hold"
    # Once more the same version, by the daily run: it is told so and changes nothing.
    run("run 3")
    same = at(settings, spec, newer, "shadow", 1.1)
    assert same.decision == "superseded"
    assert "is rolling it out already" in same.reason
    run("run 1")
    gone = at(settings, spec, version, "shadow", 1.2, first=False)
    assert gone.decision == "superseded"
    assert f"version {newer} is newer" in gone.reason
    assert loaded(server, spec) == {champion, newer}
    assert registry.ROLLED_BACK not in registry.tags_of(settings, spec.model_name, version)
    routing = read_routing(settings, spec.model_name)
    assert routing.shadow == newer
    assert routing.rollout is not None
    assert routing.rollout.run == "rollout/run 2"
    # A run that has not looked for long has no claim: whoever comes goes on.
    run("run 4")
    assert at(settings, spec, newer, "shadow", 60).decision == "hold"


def test_a_newer_candidate_waits_until_the_new_champion_is_no_longer_watched(
    settings: Settings,
    spec: UseCase,
    pair: tuple[int, int],
    candidate: Candidate,
    server: ModelServer,
    run: Callable[[str], None],
) -> None:
    _, version = pair
    at(settings, spec, version, "canary_50", 0)
    newer = candidate(-1.0)
    infra_check(settings, spec, newer, apart=False)
    promote(settings, spec, version)
    # Already before the first look of the watch.
    run("run 2")
    waits = at(settings, spec, newer, "shadow", 0.5)
    assert (waits.decision, waits.since) == ("hold", None)
    run("run 1")
    assert at(settings, spec, version, "watch", 1).decision == "hold"
    run("run 2")
    assert "still watches it" in at(settings, spec, newer, "shadow", 1.5).reason
    run("run 1")
    assert at(settings, spec, version, "watch", 4, first=False).decision == "go_on"
    run("run 2")
    assert at(settings, spec, newer, "shadow", 5).since == START + 5 * MINUTE
    assert server.labelled(spec.model_name, CHAMPION) == version


def test_a_candidate_whose_place_a_newer_one_took_is_not_promoted(
    settings: Settings,
    spec: UseCase,
    pair: tuple[int, int],
    candidate: Candidate,
    server: ModelServer,
    run: Callable[[str], None],
) -> None:
    champion, version = pair
    at(settings, spec, version, "canary_50", 0)
    newer = candidate(-1.0)
    infra_check(settings, spec, newer, apart=False)
    run("run 2")
    at(settings, spec, newer, "shadow", 1)
    run("run 1")
    with pytest.raises(RolloutError, match="which has taken its place"):
        promote(settings, spec, version)
    assert server.labelled(spec.model_name, CHAMPION) == champion


class _RegistryDown(Exception):
    pass


def _fails(*_: object, **__: object) -> None:
    raise _RegistryDown


def test_a_breach_takes_the_traffic_without_the_registry_and_is_finished_when_that_is_back(
    settings: Settings,
    spec: UseCase,
    pair: tuple[int, int],
    traffic: Traffic,
    server: ModelServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    champion, version = pair
    promote(settings, spec, version)
    at(settings, spec, version, "watch", 0)
    traffic.send(START + 0.5 * MINUTE, champion, version, canary=1.0, errors=0.05)
    traffic.send(START + 0.5 * MINUTE, version, champion, requests=200)
    with monkeypatch.context() as down:
        for name in ("tags_of", "tag_version", "run_of"):
            down.setattr(registry, name, _fails)
        with pytest.raises(_RegistryDown):
            at(settings, spec, version, "watch", 1, first=False)
    assert server.labelled(spec.model_name, CHAMPION) == champion
    assert read_models(settings)[spec.model_name].champion == champion
    assert [r["what"]["decision"] for r in records(settings) if r["kind"] == DECISION] == ["roll_back"]
    # Airflow tries again, from the first look.
    again = at(settings, spec, version, "watch", 2)
    assert again.decision == "roll_back"
    assert "error_rate" in again.reason
    assert registry.version_behind(settings, spec.model_name, registry.CHAMPION) == champion
    assert registry.ROLLED_BACK in registry.tags_of(settings, spec.model_name, version)
    assert loaded(server, spec) == {champion}
    ended = [period for period in serving_history(settings, spec.name).periods if period.version == version]
    assert (ended[0].stopped, ended[0].replaced_by) == ("rolled back", champion)


def test_a_canary_that_was_given_up_gets_nothing_back_when_its_task_is_tried_again(
    settings: Settings,
    spec: UseCase,
    pair: tuple[int, int],
    traffic: Traffic,
    server: ModelServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    champion, version = pair
    at(settings, spec, version, "canary_25", 0)
    traffic.send(START + 0.5 * MINUTE, champion, version, canary=0.25, errors=0.05)
    with monkeypatch.context() as down:
        down.setattr(registry, "tag_version", _fails)
        with pytest.raises(_RegistryDown):
            at(settings, spec, version, "canary_25", 1, first=False)
    assert version in loaded(server, spec)
    again = at(settings, spec, version, "canary_25", 2)
    assert again.decision == "roll_back"
    assert read_routing(settings, spec.model_name).split is None
    assert loaded(server, spec) == {champion}
    # A run that is cleared from its start begins anew.
    forget_giving_up(settings, spec.model_name, "rollout/run 1")
    infra_check(settings, spec, version, apart=False)
    assert at(settings, spec, version, "canary_25", 3).decision == "hold"


def test_an_experiment_keeps_its_split_and_the_canary_waits(
    settings: Settings, spec: UseCase, pair: tuple[int, int]
) -> None:
    champion, version = pair
    experiment = Split(version=champion, share=0.5, salt="s", experiment="ab")
    write_routing(settings, spec.model_name, Routing(split=experiment))
    at(settings, spec, version, "shadow", 0)
    assert read_routing(settings, spec.model_name).split == experiment
    found = at(settings, spec, version, "canary_5", 3)
    assert found.decision == "hold"
    assert "experiment" in found.reason
    assert read_routing(settings, spec.model_name).split == experiment


def test_an_experiment_runs_to_its_horizon_and_its_version_leaves(
    settings: Settings,
    spec: UseCase,
    pair: tuple[int, int],
    server: ModelServer,
    traffic: Traffic,
    run: Callable[[str], None],
) -> None:
    champion, version = pair
    name = spec.model_name

    def experiment(minutes: float, **how: bool) -> StageDecision:
        now, horizon = START + minutes * MINUTE, 5 * MINUTE
        return experiment_job.look(
            settings, spec, version, name="ab", share=0.5, horizon=horizon, now=now, **how
        )

    assert experiment(0).decision == "hold"
    split = read_routing(settings, name).split
    assert split is not None
    assert (split.version, split.experiment) == (version, "ab")
    # A canary of whatever version waits for it, and so does another experiment.
    run("run 2")
    with pytest.raises(RolloutError, match=r"the experiment ab by rollout/run 1"):
        experiment(1)
    run("run 1")
    traffic.units(START + MINUTE, champion, version)
    held = experiment(4.9, first=False)
    assert (held.decision, held.look_again_at, held.experiment) == ("hold", START + 5 * MINUTE, None)
    ended = experiment(5, first=False)
    assert ended.decision == "go_on"
    assert ended.experiment is not None
    assert ended.experiment.control_units + ended.experiment.treatment_units == 300
    assert not ended.experiment.sample_ratio_mismatch
    assert "log loss" in ended.reason
    assert read_routing(settings, name) == Routing(changed_by="rollout/run 1")
    assert loaded(server, spec) == {champion}
    page = (report_folder(settings, spec, "rollout/run 1") / "index.html").read_text("utf-8")
    assert "as drawn" in page
    assert [r["what"]["decision"] for r in records(settings) if r["kind"] == "experiment"] == ["go_on"]


def test_going_back_by_hand_ends_the_rollout_that_is_under_way(
    settings: Settings,
    spec: UseCase,
    pair: tuple[int, int],
    server: ModelServer,
    run: Callable[[str], None],
) -> None:
    champion, version = pair
    at(settings, spec, version, "canary_25", 0)
    back = roll_back(settings, spec, version=None, reason="ticket 12", who="ada", run="rollout/by hand")
    assert (back.version, back.given_up, back.was_candidate) == (champion, version, True)
    assert back.seconds < 10
    assert read_routing(settings, spec.model_name).split is None
    assert loaded(server, spec) == {champion}
    # The run that was waiting learns of it at its next look.
    assert "by ada: ticket 12" in registry.tags_of(settings, spec.model_name, version)[registry.ROLLED_BACK]
    with pytest.raises(RolloutError, match="a version that was given up is unloaded"):
        at(settings, spec, version, "canary_25", 1, first=False)
    kinds = [record["kind"] for record in records(settings)]
    assert "rollback" in kinds


def test_going_back_by_hand_ends_an_experiment_before_anything_else(
    settings: Settings,
    spec: UseCase,
    pair: tuple[int, int],
    candidate: Candidate,
    server: ModelServer,
    run: Callable[[str], None],
) -> None:
    champion, version = pair

    def experiment(first: bool) -> StageDecision:
        return experiment_job.look(
            *(settings, spec, version),
            name="ab",
            share=0.5,
            horizon=5 * MINUTE,
            now=START,
            first=first,
        )

    experiment(True)
    run("run 2")
    newer = candidate(-1.0)
    infra_check(settings, spec, newer, apart=False)
    at(settings, spec, newer, "shadow", 0)
    back = roll_back(settings, spec, version=None, reason="ticket 13", who="ada", run="rollout/by hand")
    assert (back.version, back.given_up, back.was_candidate) == (champion, version, True)
    routing = read_routing(settings, spec.model_name)
    assert (routing.split, routing.experiment, routing.shadow) == (None, None, newer)
    assert loaded(server, spec) == {champion, newer}
    run("run 1")
    assert experiment(False).decision == "superseded"
    again = roll_back(settings, spec, version=None, reason="ticket 13", who="ada", run="rollout/by hand")
    assert again.given_up == version, "the same run, tried again, goes back no further"
    back = roll_back(settings, spec, version=None, reason="ticket 13", who="ada", run="rollout/once more")
    assert (back.version, back.given_up) == (champion, newer)
    assert loaded(server, spec) == {champion}


@pytest.mark.parametrize("candidate_under_way", [True, False])
def test_going_back_by_hand_tried_again_finishes_and_goes_no_further(
    settings: Settings,
    spec: UseCase,
    pair: tuple[int, int],
    candidate: Candidate,
    server: ModelServer,
    monkeypatch: pytest.MonkeyPatch,
    candidate_under_way: bool,
) -> None:
    first, second = pair
    promote(settings, spec, second)
    given_up, expected = second, first
    if candidate_under_way:
        given_up, expected = candidate(-1.0), second
        infra_check(settings, spec, given_up, apart=False)
        at(settings, spec, given_up, "canary_25", 0)

    def back() -> WentBack:
        return roll_back(settings, spec, version=None, reason="ticket 14", who="ada", run="rollout/by hand")

    with monkeypatch.context() as down:
        down.setattr(registry, "tag_version", _fails)
        with pytest.raises(_RegistryDown):
            back()
    assert server.labelled(spec.model_name, CHAMPION) == expected
    found = back()
    assert (found.version, found.given_up, found.was_candidate) == (expected, given_up, candidate_under_way)
    assert server.labelled(spec.model_name, CHAMPION) == expected
    assert given_up not in loaded(server, spec)
    assert registry.ROLLED_BACK in registry.tags_of(settings, spec.model_name, given_up)
    assert registry.ROLLED_BACK not in registry.tags_of(settings, spec.model_name, expected)
    assert [r["what"]["given_up"] for r in records(settings) if r["kind"] == "rollback"] == [given_up]


def test_what_ends_leaves_the_way_back_loaded(
    settings: Settings, spec: UseCase, pair: tuple[int, int], server: ModelServer
) -> None:
    champion, version = pair
    promote(settings, spec, version)
    experiment_job.look(settings, spec, champion, name="ab", share=0.5, horizon=MINUTE, now=START)
    roll_back(settings, spec, version=None, reason="enough", who="ada", run="rollout/by hand")
    assert loaded(server, spec) == {champion, version}
    assert read_models(settings)[spec.model_name].previous == champion
    assert registry.ROLLED_BACK not in registry.tags_of(settings, spec.model_name, champion)


def test_a_run_abandons_no_candidate_of_another(
    settings: Settings,
    spec: UseCase,
    pair: tuple[int, int],
    server: ModelServer,
    run: Callable[[str], None],
) -> None:
    champion, version = pair
    at(settings, spec, version, "canary_25", 0)
    run("run 2")
    abandon(settings, spec, None)
    assert loaded(server, spec) == {champion, version}
    assert read_routing(settings, spec.model_name).split is not None
    run("run 1")
    abandon(settings, spec, None)
    assert loaded(server, spec) == {champion}


def test_going_back_by_hand_gives_the_traffic_to_the_version_before(
    settings: Settings, spec: UseCase, pair: tuple[int, int], server: ModelServer
) -> None:
    champion, version = pair
    promote(settings, spec, version)
    at(settings, spec, version, "watch", 0)
    back = roll_back(settings, spec, version=None, reason="complaints", who="ada", run="r")
    assert (back.version, back.given_up, back.was_candidate) == (champion, version, False)
    assert server.labelled(spec.model_name, CHAMPION) == champion
    assert loaded(server, spec) == {champion}
    assert at(settings, spec, version, "watch", 1, first=False).decision == "superseded"
    (last,) = (period for period in serving_history(settings, spec.name).periods if period.end is None)
    assert (last.version, last.promoted_by, last.reason) == (champion, "ada", "complaints")
    # A version that is not loaded any more is checked again first.
    again = roll_back(settings, spec, version=version, reason="it was not the model", run="r2")
    assert (again.version, again.given_up) == (version, champion)
    assert server.labelled(spec.model_name, CHAMPION) == version


def test_the_first_version_and_the_champion_itself_have_nothing_beside_them(
    settings: Settings, spec: UseCase, candidate: Candidate
) -> None:
    version = candidate(0.0)
    checked = infra_check(settings, spec, version)
    assert checked.champion is None
    assert checked.single_row_p99_seconds is not None
    assert checked.memory_mebibytes is not None
    assert at(settings, spec, version, "shadow", 0).decision == "go_on"
    promote(settings, spec, version)
    assert at(settings, spec, version, "canary_5", 0).decision == "go_on"
    assert at(settings, spec, version, "watch", 0).decision == "go_on"
    assert read_routing(settings, spec.model_name) == Routing()


def test_a_stage_that_does_not_exist_is_refused(settings: Settings, spec: UseCase) -> None:
    with pytest.raises(RolloutError, match="shadow, canary_5, canary_25, canary_50, watch"):
        at(settings, spec, 1, "canary_7", 0)


def test_limits_of_time_and_memory_are_the_specs(
    settings: Settings, spec: UseCase, candidate: Candidate, server: ModelServer
) -> None:
    version = candidate(0.0)
    for limit, words in (
        ({"max_single_row_p99_milliseconds": 0.001}, "ms, with the server to itself"),
        ({"max_memory_mebibytes": 1.0}, "MiB, with this version alone"),
    ):
        strict = spec.model_copy(update={"rollout": spec.rollout.model_copy(update=limit)})
        with pytest.raises(RolloutError, match=words):
            infra_check(settings, strict, version)
    assert server.states(spec.model_name) == {}
    assert not (settings.models_dir / spec.model_name / str(version)).exists()
