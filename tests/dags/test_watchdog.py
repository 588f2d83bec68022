"""The watchdog: runs that never began or do not end, DAGs that are off or gone, data that are late."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest
from airflow.sdk.exceptions import AirflowRuntimeError, ErrorType
from airflow.sdk.execution_time.comms import ErrorResponse

from airloop.references import LateData
from airloop.use_cases.catalogue import all_use_cases
from airloop_airflow import watchdog
from airloop_airflow.expected_dags import DAY, HOUR, ExpectedDag, expected_dags
from airloop_airflow.watchdog import Seen, look
from tests.dags.conftest import REPOSITORY, run_in

NOW = datetime(2026, 11, 20, 12, 40, tzinfo=UTC)
HOURLY = ExpectedDag("hourly", "20 * * * *", HOUR, 3 * HOUR)
DAILY = ExpectedDag("daily", "0 0 * * *", DAY, 12 * HOUR, on_from_the_start=False)


class Told:
    """Airflow's answers, made up."""

    def __init__(self, dags: dict[str, bool], runs: dict[tuple[str, datetime], str]) -> None:
        self.dags, self._runs = dags, runs

    def is_on(self, dag_id: str) -> bool | None:
        return self.dags.get(dag_id)

    def runs(
        self, dag_id: str, logical_dates: Sequence[datetime] | None, states: Sequence[str] | None = None
    ) -> int:
        return sum(
            name == dag_id
            and (logical_dates is None or date in logical_dates)
            and (states is None or state in states)
            for (name, date), state in self._runs.items()
        )


def at(hour: int, minute: int = 20, day: int = 20) -> datetime:
    return datetime(2026, 11, day, hour, minute, tzinfo=UTC)


def hourly(*hours: int, state: str = "success") -> dict[tuple[str, datetime], str]:
    """Runs of the ticks at these hours: a run's logical date is the start of its interval."""
    return {("hourly", at(hour) - HOUR): state for hour in hours}


def seen(until: datetime, **fields: object) -> Seen:
    return Seen({"hourly": until}, **fields)


def test_a_run_that_is_not_there_is_missing_until_a_newer_one_is():
    airflow = Told({"hourly": True}, hourly(10))
    found = look(airflow, [HOURLY], seen(at(9)), NOW)
    assert found.seen.missing == {"hourly": [at(11), at(12)]}
    assert found.lines == {"hourly": "no run of 2026-11-20 11:20, 2026-11-20 12:20 (20 * * * *, UTC)"}
    airflow = Told({"hourly": True}, hourly(10, 13))
    later = look(airflow, [HOURLY], found.seen, NOW + HOUR)
    assert later.seen.wrong == set()
    assert later.made_up == {"hourly": [at(11), at(12)]}


def test_runs_that_are_there_and_ticks_of_a_moment_ago_are_no_news():
    airflow = Told({"hourly": True}, hourly(10, 11, 12))
    found = look(airflow, [HOURLY], seen(at(9)), NOW)
    assert (found.seen.wrong, found.made_up, found.lines) == (set(), {}, {})
    assert found.seen.judged_until == {"hourly": at(12)}
    soon = look(airflow, [HOURLY], found.seen, at(13, 25))
    assert soon.seen.wrong == set()


def test_what_was_left_out_while_airflow_was_down_is_told_though_the_newest_ran():
    found = look(Told({"hourly": True}, hourly(9, 12)), [HOURLY], seen(at(9)), NOW)
    assert found.made_up == {"hourly": [at(10), at(11)]}
    assert found.seen.wrong == set()


def test_a_run_that_takes_its_time_is_waited_for_but_not_for_ever():
    busy = {("hourly", at(3) - HOUR): "running"}
    soon = look(Told({"hourly": True}, busy), [HOURLY], seen(at(11)), NOW)
    assert soon.seen.missing == {}
    assert soon.seen.judged_until == {"hourly": at(11)}
    late = look(Told({"hourly": True}, busy), [HOURLY], soon.seen, NOW + DAY)
    assert "hourly" in late.seen.missing


@pytest.mark.parametrize("state", ["queued", "running"])
def test_a_run_that_does_not_end_is_stuck(state):
    runs = hourly(10, 11, 12) | hourly(9, state=state)
    found = look(Told({"hourly": True}, runs), [HOURLY], seen(at(12)), NOW)
    assert found.seen.stuck == {"hourly"}
    assert f"its run of 2026-11-20 09:20 UTC is still {state}" in found.lines["hourly"]
    again = look(Told({"hourly": True}, runs), [HOURLY._replace(ends_within=None)], seen(at(12)), NOW)
    assert again.seen.stuck == set()


def test_a_run_that_still_may_run_is_not_stuck():
    runs = hourly(9, 10, 11) | hourly(12, state="running")
    assert look(Told({"hourly": True}, runs), [HOURLY], seen(at(12)), NOW).seen.stuck == set()


def test_a_dag_is_expected_to_be_on_from_the_start_or_once_it_was():
    everything_off = Told({"hourly": False, "daily": False}, {})
    first = look(everything_off, [HOURLY, DAILY], Seen({}), NOW)
    assert first.seen.off == {"hourly"}
    on = look(Told({"hourly": True, "daily": True}, {}), [HOURLY, DAILY], first.seen, NOW)
    assert (on.seen.off, on.lines) == (set(), {})
    again = look(everything_off, [HOURLY, DAILY], on.seen, NOW + HOUR)
    assert again.seen.off == {"hourly", "daily"}
    # It stays so, though what was judged is forgotten.
    assert look(everything_off, [HOURLY, DAILY], again.seen, NOW + 2 * HOUR).seen.off == {"hourly", "daily"}


def test_ticks_of_before_a_dag_was_switched_on_again_are_nobodys():
    off = look(Told({"hourly": False}, {}), [HOURLY], seen(at(3)), at(4, 40))
    on = look(Told({"hourly": True}, {}), [HOURLY], off.seen, NOW)
    assert on.seen.wrong == set()
    assert on.seen.judged_until == {"hourly": NOW}


def test_a_dag_that_airflow_does_not_know_is_gone():
    assert look(Told({}, {}), [HOURLY, DAILY], Seen({}), NOW).seen.absent == {"hourly"}
    gone = look(Told({}, {}), [DAILY], Seen({"daily": at(0, 0)}), NOW)
    assert gone.seen.absent == {"daily"}


def test_after_a_long_outage_the_newest_ticks_are_looked_at():
    found = look(Told({"hourly": True}, {}), [HOURLY], seen(at(0, day=1)), NOW)
    assert len(found.seen.missing["hourly"]) == watchdog.MOST_TICKS
    assert found.seen.missing["hourly"][-1] == at(12)
    assert "and 45 more" in found.lines["hourly"]


def test_what_was_seen_survives_a_variable():
    kept = Seen({"a": NOW}, frozenset("b"), {"c": [NOW]}, frozenset("d"), frozenset("e"))
    assert Seen.of(json.loads(json.dumps(kept.as_document()))) == kept
    assert Seen.of(None) == Seen({})


@pytest.mark.parametrize(("status", "outcome"), [(404, None), (500, AirflowRuntimeError)])
def test_only_a_dag_that_is_not_there_is_gone(status, outcome):
    """As a worker's supervisor hands on the API server's answer."""
    answer = ErrorResponse(error=ErrorType.API_SERVER_ERROR, detail={"status_code": status, "message": "no"})

    def refused(dag_id: str) -> None:
        raise AirflowRuntimeError(answer)

    airflow = watchdog.TaskApi(SimpleNamespace(get_dag=refused))
    if outcome is None:
        assert airflow.is_on("some") is None
    else:
        with pytest.raises(outcome):
            airflow.is_on("some")


def test_the_watchdog_expects_what_the_dags_say(dags):
    """A DAG that it does not know would be watched by nobody."""
    expected = {dag.dag_id: dag for dag in expected_dags(all_use_cases())}
    timed = {}
    for dag_id, dag in dags.items():
        clock = getattr(dag.timetable, "timetable", dag.timetable)
        if hasattr(clock, "expression"):
            timed[dag_id] = (clock.expression, clock.interval)
    assert timed == {name: (dag.cron, dag.interval) for name, dag in expected.items() if dag.cron}
    switched_on = {dag_id for dag_id, dag in dags.items() if dag.is_paused_upon_creation is False}
    assert switched_on == {name for name, dag in expected.items() if dag.on_from_the_start}


LATE = LateData(
    use_case="flight_delay", at=NOW.isoformat(), late={"clean.flights": "no row of 2026-11-19"}
).model_dump(mode="json")
CHECKED = {"seen_on": ["flight_delay_features"]}


@pytest.fixture
def kept(monkeypatch):
    """The watchdog in a task, with Variables that outside one have no server to go to."""
    from airloop_airflow import incidents

    context = {
        "dag": SimpleNamespace(dag_id="watchdog", owner="ml-platform"),
        "task": SimpleNamespace(owner="ml-platform"),
        "dag_run": SimpleNamespace(run_id="scheduled__1"),
    }
    monkeypatch.setattr(watchdog, "get_current_context", lambda: context)
    monkeypatch.setattr(watchdog, "Variable", incidents.Variable)


@pytest.mark.usefixtures("kept")
def test_late_data_are_told_once_and_when_they_are_there(slack_api):
    assert watchdog.tell_late_data(LATE, CHECKED) == (
        "flight_delay: late: clean.flights; no row of 2026-11-19"
    )
    assert watchdog.tell_late_data(LATE, CHECKED) == "no row of 2026-11-19"
    (first,) = slack_api.received
    for part in ("page", "clean.flights: no row of 2026-11-19", "docs/runbooks/late_data.md"):
        assert part in first[1]["text"]
    more = {**LATE, "late": {**LATE["late"], "features.weather": "no row either"}}
    watchdog.tell_late_data(more, CHECKED)
    watchdog.tell_late_data({**LATE, "late": {"features.weather": "no row either"}}, CHECKED)
    assert watchdog.tell_late_data({**LATE, "late": {}}, CHECKED) == (
        "flight_delay: no longer late: features.weather"
    )
    posted = [message for method, message in slack_api.received if method == "chat.postMessage"]
    assert [message["text"].split("*")[1] for message in posted] == [
        "flight_delay: late: clean.flights",
        "flight_delay: late: features.weather",
        "flight_delay: no longer late: clean.flights",
        "flight_delay: no longer late: features.weather",
    ]
    assert {message.get("thread_ts") for message in posted[1:]} == {"1.000001"}
    assert posted[-1]["text"].startswith(":white_check_mark:")


@pytest.mark.usefixtures("kept")
def test_a_use_case_that_was_never_switched_on_promises_no_data(slack_api):
    assert "never switched on" in watchdog.tell_late_data(LATE, {"seen_on": []})
    assert slack_api.received == []


def test_the_watchdog_finds_in_a_real_airflow_what_is_wrong(slack, migrated, tmp_path):
    """Its questions go to Airflow's own API, as those of a task do."""
    shutil.copy(migrated, tmp_path / "airflow.db")
    folder = tmp_path / "dags"
    folder.mkdir()
    shutil.copy(REPOSITORY / "dags" / "watchdog.py", folder)
    (tmp_path / "state" / "scratch" / "results").mkdir(parents=True)
    now = datetime.now(UTC)
    every = {dag.dag_id: dag for dag in expected_dags(all_use_cases()) if dag.dag_id != "watchdog"}
    push, landing, monitoring = (
        every[n] for n in ("flight_delay_push", "predictions", "flight_delay_monitoring")
    )
    start = now - timedelta(hours=5)

    def runs_of(dag: ExpectedDag, ticks: Sequence[datetime], state: str = "success") -> list[dict[str, str]]:
        dates = [(tick - dag.interval).isoformat() for tick in ticks]
        return [{"dag_id": dag.dag_id, "logical_date": date, "state": state} for date in dates]

    due = {dag.dag_id: dag.ticks(start, now) for dag in (push, landing, monitoring)}
    saw = Seen({name: start if name in due else now for name in every})
    first = {
        "saw": saw.as_document(),
        "dags": {name: name == "maintenance" for name in every if name != "flight_delay_silence"},
        "runs": [
            *runs_of(push, due["flight_delay_push"][:-3]),
            *runs_of(landing, due["predictions"]),
            *runs_of(monitoring, due["flight_delay_monitoring"][1:]),
            *runs_of(monitoring, due["flight_delay_monitoring"][:1], "running"),
        ],
    }
    second = {
        "dags": {"maintenance": False, "flight_delay_silence": False},
        "runs": [
            *runs_of(push, due["flight_delay_push"]),
            *runs_of(monitoring, due["flight_delay_monitoring"]),
        ],
    }
    printed = run_in(
        tmp_path,
        *(sys.executable, "-m", "tests.dags.run_watchdog", str(folder), json.dumps([first, second])),
        dags=folder,
    )
    looks = json.loads(printed.strip().splitlines()[-1])
    assert [found["run"] for found in looks] == ["success"] * 2
    wrong = looks[0]["check_runs"]["wrong"]
    assert set(wrong) == {
        *("flight_delay_push", "flight_delay_monitoring", "flight_delay_silence", "maintenance")
    }
    assert wrong["flight_delay_push"].startswith("no run of ")
    assert "is still running" in wrong["flight_delay_monitoring"]
    assert wrong["flight_delay_silence"] == "Airflow does not know it"
    assert set(looks[1]["check_runs"]["wrong"]) == {"flight_delay_push"}
    assert looks[0]["tell_flight_delay"] == "nothing is late"
    titles = [message["text"].split("*")[1] for message in slack.received]
    assert titles == [
        "switched off: maintenance",
        "not running as due: flight_delay_monitoring, flight_delay_push, flight_delay_silence",
        "no longer switched off: maintenance",
        "no longer not running as due: flight_delay_monitoring, flight_delay_silence",
    ]
