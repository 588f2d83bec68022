"""The DAGs load, keep the policy, order what must be ordered, and meet through their Assets."""

from __future__ import annotations

import itertools
import re
from datetime import UTC, datetime, timedelta
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest
from airflow.sdk.configuration import conf

from airloop.use_cases.budget_policy import Budget
from airloop.use_cases.catalogue import all_use_cases
from airloop_airflow.approval import APPROVED_BY, PersonApproves
from airloop_airflow.policy import interval_of

REPOSITORY = Path(__file__).resolve().parents[2]
KINDS = (
    *("features", "training", "rollout", "rollback", "override", "push", "experiment", "scoring", "drill"),
    *("monitoring", "retraining", "silence", "skew", "overview"),
)
PLATFORM_OWNER = conf.get("operators", "default_owner")
PLATFORM = {
    "stream_ingest": "ingest",
    "maintenance": "maintenance",
    "erasure": "erasure",
    "predictions": "predictions",
    "backup": "backup",
    "cost": "cost",
    "watchdog": "watchdog",
}


# What a use case has only with a source, or a table of events, of its own, or if a gateway answers for it.
NEEDS = {
    "rollback": lambda spec: spec.lender is None,
    "scoring": lambda spec: spec.event_table is not None,
    "push": lambda spec: spec.is_pushed,
    **dict.fromkeys(
        ("monitoring", "retraining", "silence", "skew", "experiment"), lambda spec: spec.is_online
    ),
}


def kinds_of(spec) -> list[str]:
    return [kind for kind in KINDS if NEEDS.get(kind, lambda spec: True)(spec)]


def kind_of(dag) -> str:
    return PLATFORM.get(dag.dag_id) or dag.dag_id.rsplit("_", 1)[1]


def test_each_use_case_has_its_dags_and_the_platform_its_own(dags):
    expected = {f"{spec.name}_{kind}" for spec in all_use_cases() for kind in kinds_of(spec)} | set(PLATFORM)
    assert set(dags) == expected


def test_every_dag_keeps_the_policy(dags):
    for dag in dags.values():
        kind = kind_of(dag)
        assert dag.doc_md
        assert f"docs/runbooks/{kind}_failed.md" in dag.doc_md
        assert dag.description
        assert {"airloop", kind} <= set(dag.tags)
        # Going back waits for no rollout; the jobs see to it that one rollout has the traffic.
        assert dag.max_active_runs == (4 if kind == "rollout" else 1)
        assert dag.catchup is False
        owners = {spec.owner for spec in all_use_cases() if dag.dag_id == f"{spec.name}_{kind}"}
        if not owners:
            owners = {PLATFORM_OWNER, *(spec.owner for spec in all_use_cases())}
        for task in dag.tasks:
            assert task.owner in owners
            assert task.retries == 2
            assert task.retry_exponential_backoff
            assert task.execution_timeout is not None
            callback = "page_unless_rolled_back" if task.task_type == "StageOperator" else "alert_on_failure"
            assert [f.__name__ for f in task.on_failure_callback] == [callback]


def test_every_runbook_that_an_alert_names_is_there(dags):
    sources = [*(REPOSITORY / "plugins").rglob("*.py"), *(REPOSITORY / "dags").glob("*.py")]
    sources.append(REPOSITORY / "deploy" / "aws" / "infrastructure" / "alarms.py")
    sources += (REPOSITORY / "serving/observability/rules").glob("*.yml")
    named = {name for path in sources for name in re.findall(r"docs/runbooks/(\w+)\.md", path.read_text())}
    named |= {f"{kind}_failed" for kind in (*KINDS, *PLATFORM.values())}
    assert named == {path.stem for path in (REPOSITORY / "docs/runbooks").glob("*.md")} - {"index"}


OF_A_SOURCE = {"ingest", "clean", "audit", "publish", "changed"}


def _asset_names(schedule) -> list[str]:
    return [asset.name for asset in schedule]


def _follows(dag, first: str, second: str) -> bool:
    return second in dag.get_task(first).get_flat_relative_ids(upstream=False)


@pytest.mark.parametrize(
    ("kind", "order"),
    [
        (
            "features",
            [
                *("resolve_interval", "ingest", "clean", "audit", "publish", "features", "materialise"),
                *("changed", "mark_stale", "retraining_wanted", "request_training"),
            ],
        ),
        ("training", ["resolve_as_of", "training_set", "train", "evaluate", "gate", "register", "tell"]),
        (
            "rollout",
            [
                *("action", "infra_check", "compare", "shadow", "canary_5", "canary_25", "canary_50"),
                *("promote", "live"),
            ],
        ),
        ("rollout", ["action", "roll_back", "tell_rollback"]),
        ("rollout", ["compare", "nothing_beside", "promote", "watch"]),
        (
            "rollback",
            [
                *("roll_back", "confirmed", "features", "materialise", "mark_stale"),
                *("retraining_wanted", "request_training"),
            ],
        ),
        ("override", ["override", "register", "tell"]),
        ("experiment", ["infra_check", "experiment", "abandon"]),
        ("experiment", ["infra_check", "experiment", "ended"]),
        ("scoring", ["resolve_interval", "scoring_set", "score"]),
        ("monitoring", ["resolve_hours", "reference", "count", "judge", "tell"]),
        ("monitoring", ["count", "count_scores", "judge_quality", "tell_quality"]),
        ("retraining", ["decide", "wanted", "request_training"]),
        ("retraining", ["decide", "tell"]),
        ("skew", ["resolve_interval", "count_skew", "tell_skew"]),
        ("skew", ["resolve_interval", "reference", "report"]),
    ],
)
def test_tasks_run_in_order(dags, kind, order):
    for spec in (one for one in all_use_cases() if kind in kinds_of(one)):
        dag = dags[f"{spec.name}_{kind}"]
        here = [name for name in order if spec.lender is None or name not in OF_A_SOURCE]
        for first, second in itertools.pairwise(here):
            assert _follows(dag, first, second), f"{second} must wait for {first}"


def test_who_reads_the_tables_of_another_follows_it(dags):
    borrowers = [spec for spec in all_use_cases() if spec.lender]
    assert borrowers
    for spec in borrowers:
        for kind in ("features", "push"):
            dag = dags[f"{spec.name}_{kind}"]
            assert not OF_A_SOURCE & set(dag.task_ids)
            event = {"features": "features", "push": "pushed"}[kind]
            assert _asset_names(dag.schedule) == [f"{spec.lender}_{event}"]
            made = dags[f"{spec.lender}_{kind}"].tasks
            assert f"{spec.lender}_{event}" in [asset.name for task in made for asset in task.outlets]


def test_a_failed_experiment_unloads_its_version_and_still_fails_the_run(dags):
    for spec in all_use_cases():
        dag = dags[f"{spec.name}_experiment"]
        assert dag.get_task("abandon").trigger_rule == "one_failed"
        assert {task.task_id for task in dag.leaves} == {"abandon", "ended"}
        assert dag.get_task("ended").trigger_rule == "all_success"


def test_a_failed_rollout_abandons_the_candidate_and_still_fails_the_run(dags):
    for spec in all_use_cases():
        dag = dags[f"{spec.name}_rollout"]
        abandon = dag.get_task("abandon")
        assert abandon.trigger_rule == "one_failed"
        stages = {"shadow", *(f"canary_{percent}" for percent in spec.rollout.canary_percent)}
        assert abandon.upstream_task_ids == {"infra_check", "promote", *stages}
        # `live` is the leaf that turns upstream_failed, which is what fails the run.
        assert {task.task_id for task in dag.leaves} == {"live", "abandon", "watch", "tell_rollback"}
        assert dag.get_task("live").trigger_rule == "all_success"
        # A skipped stage (a newer candidate took over) must not let `compare`'s success promote.
        assert dag.get_task("promote").upstream_task_ids == {
            "nothing_beside",
            f"canary_{spec.rollout.canary_percent[-1]}",
        }
        assert dag.get_task("promote").trigger_rule == "none_failed_min_one_success"


def test_while_a_person_decides_no_client_depends_on_the_candidate_and_nothing_times_out(monkeypatch):
    monkeypatch.setenv("AIRFLOW__CORE__UNIT_TEST_MODE", "True")
    name = "rollout_with_approval"
    found = spec_from_file_location(name, REPOSITORY / "dags" / "rollout.py")
    module = module_from_spec(found)
    found.loader.exec_module(module)
    (first, *_) = all_use_cases()
    asked = first.model_copy(update={"rollout": first.rollout.model_copy(update={"approval": True})})
    dag = module.build(asked)
    last = f"canary_{first.rollout.canary_percent[-1]}"
    order = [last, "stand_by", "approve", "confirm", "promote"]
    for before, after in itertools.pairwise(order):
        assert before in dag.get_task(after).upstream_task_ids
    for task_id in ("stand_by", "confirm"):
        flags = dag.get_task(task_id).flags
        assert (flags["stage"], flags["bake-seconds"]) == ("shadow", 0)
    approve = dag.get_task("approve")
    assert (approve.response_timeout, approve.execution_timeout) == (None, None)
    assert {"stand_by", "approve", "confirm", last} <= dag.get_task("abandon").upstream_task_ids
    assert dag.get_task("promote").upstream_task_ids == {"nothing_beside", "confirm"}
    assert isinstance(approve, PersonApproves)
    assert dag.get_task("promote").flags["approved-by"] == APPROVED_BY
    assert module.build(first).get_task("promote").flags["approved-by"] == ""


def test_an_override_is_made_by_whoever_airflow_says_and_not_by_the_name_that_was_typed(dags):
    for spec in all_use_cases():
        flags = dags[f"{spec.name}_override"].get_task("override").flags
        assert flags["who"] == "{{ dag_run.triggering_user_name or '' }}"


def test_with_a_budget_a_training_asks_for_room_before_it_spends_anything(monkeypatch):
    monkeypatch.setenv("AIRFLOW__CORE__UNIT_TEST_MODE", "True")
    found = spec_from_file_location("training_with_budget", REPOSITORY / "dags" / "training.py")
    module = module_from_spec(found)
    found.loader.exec_module(module)
    (first, *_) = all_use_cases()
    dag = module.build(first.model_copy(update={"budget": Budget(per_week=10)}))
    check = dag.get_task("check_budget")
    assert "check_budget" in dag.get_task("training_set").upstream_task_ids
    assert [callback.__name__ for callback in check.on_failure_callback] == ["alert_on_refusal"]
    assert dag.params.get_param("whatever_it_costs").resolve() is False
    assert "params.whatever_it_costs" in check.flags["whatever-it-costs"]
    assert "ti.start_date" in check.flags["at"], "a run that waited counts what those before it spent"
    assert "check_budget" in dag.get_task("tell_budget").upstream_task_ids


def test_a_promotion_gets_the_reason_and_the_person_for_the_record(dags):
    for spec in all_use_cases():
        dag = dags[f"{spec.name}_rollout"]
        flags = dag.get_task("promote").flags
        assert "params.reason" in flags["reason"]
        assert "triggering_user_name" in flags["who"]
        assert dag.params.get_param("reason").resolve() is None
        assert flags["reason"].endswith("or '' }}")


def test_the_trigger_form_asks_for_nothing_that_may_be_empty(dags):
    """It marks a text without a null as required, and lets nobody trigger while that is empty."""
    for dag_id, dag in dags.items():
        for name in dag.params:
            param = dag.params.get_param(name)
            assert param.value != "", f"{dag_id}: {name}"


def test_tuning_and_folds_are_mapped_off_by_default_and_in_order(dags):
    for spec in all_use_cases():
        dag = dags[f"{spec.name}_training"]
        policy = spec.training
        wanted = {"tune": policy.tuning, "cross_validate": policy.cross_validation}
        for param, part in wanted.items():
            assert (param in dag.params) == (part is not None)
            if part is not None:
                assert dag.params.get_param(param).resolve() is False
        if policy.tuning:
            for first, second in itertools.pairwise(("study", "trial", "tuned", "train")):
                assert dag.get_task(first).task_id in dag.get_task(second).upstream_task_ids
            trial = dag.get_task("trial")
            assert trial.is_mapped
            assert trial.max_active_tis_per_dagrun == policy.tuning.parallel_trials
            assert dag.get_task("tuned").trigger_rule == "all_done_min_one_success"
            assert dag.get_task("tuned").upstream_task_ids == {"study", "trial"}
        assert dag.get_task("train").trigger_rule == "none_failed_min_one_success"
        if policy.cross_validation:
            for first, second in itertools.pairwise(("train", "folds", "fold", "cross_validated")):
                assert dag.get_task(first).task_id in dag.get_task(second).upstream_task_ids
            fold = dag.get_task("fold")
            assert fold.is_mapped
            assert fold.max_active_tis_per_dagrun == policy.cross_validation.parallel_folds
            # Nothing waits for the folds: they inform, and hold up no candidate.
            assert not _follows(dag, "folds", "evaluate")


def test_an_erasure_runs_in_order_and_forgets_its_subject_whatever_happens(dags):
    dag = dags["erasure"]
    order = [
        "hand_over",
        "plan",
        "models_used",
        "confirmed",
        "erase",
        "prove",
        "models",
        "write_down",
        "decide",
    ]
    for first, second in itertools.pairwise(order):
        assert _follows(dag, first, second), f"{second} must wait for {first}"
    assert dag.get_task("forget").is_teardown
    assert dag.get_task("hand_over").is_setup
    assert dag.params.get_param("dry_run").resolve() is True


def test_every_run_begins_with_asking_what_it_needs(dags):
    for dag in dags.values():
        assert [task.task_id for task in dag.roots] == ["check_dependencies"]
        others = set(dag.task_dict) - {"check_dependencies"}
        assert dag.get_task("check_dependencies").get_flat_relative_ids(upstream=False) == others
        # Nothing of it stays an Airflow task's own process longer than the asking takes.
        assert dag.get_task("check_dependencies").task_type == "_PythonDecoratedOperator"


def test_a_run_asks_for_what_its_jobs_need_and_no_more(dags):
    def asked(dag_id: str) -> set[str]:
        (needs,) = dags[dag_id].get_task("check_dependencies").op_args
        return set(needs)

    for spec in all_use_cases():
        everything = {"catalog", "feast_registry", "online_store", "warehouse"}
        assert asked(f"{spec.name}_features") >= everything
        assert asked(f"{spec.name}_push") == everything
        assert asked(f"{spec.name}_training") == {"catalog", "feast_registry", "mlflow", "warehouse"}
        # Going back is for when things are down.
        assert asked(f"{spec.name}_rollout") == {"mlflow"}
    assert asked("maintenance") == {"catalog", "warehouse"}


def test_a_backup_is_read_back_and_an_erasure_is_known_to_it(dags):
    assert _follows(dags["backup"], "create", "verify")
    assert _follows(dags["erasure"], "write_down", "keep_list")


def test_what_was_recorded_is_told(dags):
    assert _follows(dags["cost"], "record", "tell")


def test_the_watchdog_tells_what_is_late_of_each_use_case_though_runs_are_missing(dags):
    for spec in all_use_cases():
        tell = dags["watchdog"].get_task(f"tell_{spec.name}")
        assert tell.upstream_task_ids == {"check_runs", f"late_data_{spec.name}"}


def test_each_stream_is_landed_and_switched_off_without_its_connection(dags):
    for spec in all_use_cases():
        for stream in spec.streams:
            task = dags["stream_ingest"].get_task(f"{spec.name}_{stream.name}")
            assert task.skip_without_connections
            assert stream.connection in task.connections
            assert _follows(dags["stream_ingest"], task.task_id, f"{spec.name}_late_days")


def test_an_override_hands_over_who_and_why_and_shows_the_verdict(dags):
    for spec in all_use_cases():
        dag = dags[f"{spec.name}_override"]
        task = dag.get_task("override")
        assert task.module == "airloop.training.override"
        assert set(task.flags) - {"who"} == {"run-id", "by", "reason"}
        assert {name.replace("_", "-") for name in dag.params} == {"run-id", "by", "reason"}
        assert [link.name for link in task.operator_extra_links] == ["Report"]
        # Registration is by the verdict that the override wrote, not by the form.
        assert set(dag.get_task("register").flags) == {"evaluated"}


def _outlets(dag, task_id: str) -> set[str]:
    return {asset.uri for asset in dag.get_task(task_id).outlets}


def _inlets(dag) -> set[str]:
    return {asset.uri for asset in dag.timetable.asset_condition.objects}


def test_the_dags_meet_through_assets(dags):
    for spec in all_use_cases():
        features, training, rollout, override, push = (
            dags[f"{spec.name}_{kind}"] for kind in ("features", "training", "rollout", "override", "push")
        )
        prefix = f"airloop://{spec.name}"
        assert _outlets(push, "push") == {f"{prefix}/pushed"}
        changing = [features]
        if spec.lender is None:
            changing.append(dags[f"{spec.name}_rollback"])
            late = _outlets(dags["stream_ingest"], f"{spec.name}_late_days")
            assert late == _inlets(features) == {f"{prefix}/data_changed"}
        for source in changing:
            assert _outlets(source, "materialise") == {f"{prefix}/features"}
            # Not by what was pushed: nothing is trained on what was not audited.
            assert _outlets(source, "request_training") == _inlets(training) == {f"{prefix}/retrain_request"}
        if spec.erasure is not None:
            assert _outlets(dags["erasure"], f"retrain_{spec.name}") == {f"{prefix}/retrain_request"}
        monitoring, retraining = dags[f"{spec.name}_monitoring"], dags[f"{spec.name}_retraining"]
        for task_id in ("tell", "tell_quality"):
            assert _outlets(monitoring, task_id) == _inlets(retraining) == {f"{prefix}/judged"}
        assert _outlets(retraining, "request_training") == {f"{prefix}/retrain_request"}
        assert _outlets(training, "register") == _inlets(rollout) == {f"{prefix}/candidate"}
        assert _outlets(override, "register") == {f"{prefix}/candidate"}
        for task_id in ("live", "roll_back"):
            assert _outlets(rollout, task_id) == {f"{prefix}/live_model"}


@pytest.mark.parametrize(
    ("kind", "good", "bad"),
    [
        ("rollback", {"before_run": "scheduled__1", "start_date": "2026-01-01"}, {"before_run": ""}),
        ("rollback", {"dry_run": True}, {"dry_run": "yes"}),
        ("override", {"run_id": "0a" * 16, "by": "Ada"}, {"run_id": "newest", "by": "", "reason": ""}),
        ("features", {"start_date": "2026-01-01", "end_date": "2026-02-01"}, {"start_date": 20260101}),
        ("features", {}, {"start_date": "January"}),
        ("training", {"as_of": "2026-01-01", "train_days": 14}, {"train_days": 0}),
        ("training", {"test_days": None}, {"test_days": "seven"}),
        ("training", {"tune": True, "trials": 3, "minutes": None}, {"tune": "yes", "trials": 0}),
        ("training", {"cross_validate": True}, {"cross_validate": None}),
        ("rollout", {"version": 3}, {"version": 0}),
        (
            "silence",
            {"cause": "drift of wind", "until": "2026-12-01T00:00:00Z", "by": "Ada", "reason": "a storm"},
            {"cause": "", "until": "soon", "by": "", "reason": ""},
        ),
        ("experiment", {"name": "wider", "version": 4, "share": 0.1}, {"name": "W i", "share": 1}),
        ("rollout", {"action": "rollback", "bake_minutes": 0.5}, {"version": "newest", "action": "forwards"}),
    ],
)
def test_parameters_are_typed(dags, kind, good, bad):
    from airflow.sdk.exceptions import ParamValidationError

    there = [spec for spec in all_use_cases() if kind in kinds_of(spec)]
    if {"tune", "cross_validate"} & set(good):
        there = [spec for spec in there if spec.training.tuning and spec.training.cross_validation]
    assert there
    for spec in there:
        params = dags[f"{spec.name}_{kind}"].params
        for name, value in good.items():
            assert params.get_param(name).resolve(value) == value
        for name, value in bad.items():
            with pytest.raises(ParamValidationError):
                params.get_param(name).resolve(value)


def _serialised(dag):
    from airflow.serialization.serialized_objects import DagSerialization

    return DagSerialization.to_dict(dag)


def test_two_parses_give_the_same_dags():
    """A value that changes from parse to parse would make a new DAG version each time."""
    from airflow.dag_processing.dagbag import DagBag

    first, again = (
        {k: _serialised(v) for k, v in DagBag(str(REPOSITORY / "dags")).dags.items()} for _ in "12"
    )
    assert first
    for dag_id in first:
        assert first[dag_id] == again[dag_id]


def _scheduler_timetable(dag):
    from airflow.serialization.serialized_objects import DagSerialization

    return DagSerialization.from_dict(_serialised(dag)).timetable


def _first_run(dag):
    from airflow.timetables.base import TimeRestriction

    return _scheduler_timetable(dag).next_dagrun_info(
        last_automated_data_interval=None,
        restriction=TimeRestriction(earliest=None, latest=None, catchup=False),
    )


def test_what_is_started_in_an_emergency_is_switched_on(dags):
    by_hand = {dag.dag_id for dag in dags.values() if dag.timetable.__class__.__name__ == "NullTimetable"}
    kinds = ("rollback", "override", "experiment", "silence")
    wanted = {f"{spec.name}_{kind}" for spec in all_use_cases() for kind in kinds if kind in kinds_of(spec)}
    assert by_hand == {"erasure", *wanted}
    for dag_id in by_hand | {"backup", "maintenance", "predictions", "watchdog"}:
        assert dags[dag_id].is_paused_upon_creation is False


def test_switching_a_dag_on_starts_no_run_for_a_time_already_past(dags):
    """Such a run would compete with the one that a person is about to trigger."""
    scheduled = [run for dag in dags.values() if (run := _first_run(dag)) is not None]
    kinds = ("features", "push", "training", "rollout", "scoring", "skew", "drill", "monitoring")
    by_the_clock = [
        (spec, kind)
        for spec in all_use_cases()
        for kind in kinds
        if kind in kinds_of(spec) and not (spec.lender and kind in ("features", "push"))
    ]
    assert len(scheduled) == len(by_the_clock) + len(
        {"stream_ingest", "maintenance", "predictions", "backup", "cost", "watchdog"}
    )
    for run in scheduled:
        assert run.run_after > datetime.now(UTC)


def test_a_scheduled_features_run_covers_the_day_before_it(dags):
    for spec in (one for one in all_use_cases() if one.lender is None):
        info = _first_run(dags[f"{spec.name}_features"])
        assert info.data_interval.end == info.run_after
        assert info.data_interval.end - info.data_interval.start == timedelta(days=1)


def test_nothing_in_dags_or_plugins_names_a_use_case():
    for folder in ("dags", "plugins"):
        for path in (REPOSITORY / folder).rglob("*.py"):
            text = path.read_text("utf-8")
            for spec in all_use_cases():
                for word in (spec.name, *spec.features, *(t.name for t in spec.clean_tables)):
                    assert not re.search(rf"\b{word}\b", text), f"{path} names {word}"


@pytest.mark.parametrize(
    ("cron", "days"), [("0 2 * * 1", 7), ("30 2 * * *", 1), ("5 * * * *", 1 / 24), ("0 6 * * 1-5", 3)]
)
def test_a_run_is_about_the_time_since_the_tick_before(cron, days):
    assert interval_of(cron) == timedelta(days=days)
