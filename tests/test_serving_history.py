"""What served when, from the audit log alone: periods, who, why it stopped, and what is not known."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from airloop import audit_log, serving_history
from airloop.audit_log import append_record, audit_log_file
from airloop.errors import EXIT_PERMANENT
from airloop.serving_history import (
    ERASURE,
    ServedPeriod,
    lines_of,
    main,
    record_promotion,
    recorded_champion,
)
from airloop.settings import REPOSITORY, Settings, environment_of

DAY = timedelta(days=1)
FIRST = datetime(2026, 11, 2, 6, tzinfo=UTC)
USE_CASE = "flight_delay"

IMPORTED = """
import sys
import airloop.serving_history
heavy = {"mlflow", "tensorflow", "model_signing", "pandas", "numpy", "pyarrow", "airflow", "pyspark"}
print(*sorted(heavy & set(sys.modules)))
"""


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    for name in ("AIRFLOW_CTX_DAG_ID", "AIRFLOW_CTX_DAG_RUN_ID"):
        monkeypatch.delenv(name, raising=False)
    return Settings(state_dir=tmp_path)


@pytest.fixture
def on_day(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Sets the audit log's clock to so many days after the first."""

    def set_clock(days: float) -> datetime:
        moment = FIRST + days * DAY

        class At(datetime):
            @classmethod
            def now(cls, tz: Any = None) -> datetime:
                return moment

        monkeypatch.setattr(audit_log, "datetime", At)
        return moment

    return set_clock


def promoted(settings: Settings, version: int, replaces: int | None, **more: Any) -> None:
    record_promotion(
        settings,
        **{"use_case": USE_CASE, "version": version, "replaces": replaces, "facts": {}, **more},
    )


def revoke(settings: Settings, version: int | None, use_case: str = USE_CASE, action: str = "revoke") -> None:
    model = {"use_case": use_case, "version": version, "action": action}
    append_record(
        settings, kind=ERASURE, key=f"{use_case} {version} {action}", what={"models": {"models": [model]}}
    )


def periods(settings: Settings, at: datetime | None = None) -> tuple[ServedPeriod, ...]:
    return serving_history.serving_history(settings, USE_CASE, at).periods


def test_nothing_on_record_is_no_period(settings: Settings) -> None:
    assert periods(settings) == ()
    assert recorded_champion(settings, USE_CASE) is None
    history = serving_history.serving_history(settings, USE_CASE, FIRST)
    assert list(lines_of(history)) == ["flight_delay: no version on record at 2026-11-02T06:00:00Z"]


def test_each_period_ends_where_the_next_begins_and_says_why(settings: Settings, on_day: Any) -> None:
    on_day(0)
    promoted(settings, 1, None)
    on_day(7)
    promoted(settings, 2, 1)
    on_day(9)
    promoted(settings, 1, 2, reason="ticket 12", who="ada")
    on_day(14)
    promoted(settings, 3, 1)
    found = periods(settings)
    assert [period.version for period in found] == [1, 2, 1, 3]
    assert [period.start for period in found] == [FIRST + days * DAY for days in (0, 7, 9, 14)]
    assert [period.end for period in found] == [*(FIRST + days * DAY for days in (7, 9, 14)), None]
    assert [(period.stopped, period.replaced_by) for period in found] == [
        ("superseded", 2),
        ("rolled back", 1),
        ("superseded", 3),
        (None, None),
    ]
    assert found[1].why_stopped == "rolled back to version 1: ticket 12"
    assert found[0].why_stopped == "superseded by version 2"
    assert [period.promoted_by for period in found] == ["by-hand", "by-hand", "ada", "by-hand"]
    assert found[2].reason == "ticket 12"


@pytest.mark.parametrize(
    ("days", "version"),
    [(-0.001, None), (0, 1), (6.999, 1), (7, 2), (8.999, 2), (9, 1), (400, 1)],
)
def test_a_moment_has_the_version_that_served_then(
    settings: Settings, on_day: Any, days: float, version: int | None
) -> None:
    for day, (number, replaces) in {0: (1, None), 7: (2, 1), 9: (1, 2)}.items():
        on_day(day)
        promoted(settings, number, replaces)
    found = periods(settings, FIRST + days * DAY)
    assert [period.version for period in found] == ([] if version is None else [version])


def test_a_promotion_is_recorded_once_however_often_it_is_repeated(settings: Settings) -> None:
    for _ in range(3):
        promoted(settings, 1, None)
    for _ in range(3):
        promoted(settings, 2, 1)
        # Another use case's promotions are not this one's.
        promoted(settings, 1, None, use_case="another")
    promoted(settings, 1, 2)
    assert recorded_champion(settings, USE_CASE) == 1
    assert [period.version for period in periods(settings)] == [1, 2, 1]
    assert audit_log.verify(settings).sequence == 4


def test_a_rollback_without_a_reason_says_so(settings: Settings) -> None:
    promoted(settings, 2, None)
    promoted(settings, 1, 2)
    assert periods(settings)[0].why_stopped == "rolled back to version 1: no reason given"


def test_the_airflow_run_is_on_record_beside_the_person(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW_CTX_DAG_ID", "flight_delay_rollout")
    monkeypatch.setenv("AIRFLOW_CTX_DAG_RUN_ID", "manual__1")
    promoted(settings, 1, None, who="ada")
    promoted(settings, 2, 1)
    first, second = periods(settings)
    assert (first.promoted_by, first.run) == ("ada", "flight_delay_rollout/manual__1")
    assert second.promoted_by == second.run == "flight_delay_rollout/manual__1"
    table = list(lines_of(serving_history.serving_history(settings, USE_CASE)))
    assert "ada (flight_delay_rollout/manual__1)" in table[1]


def test_a_revoked_version_serves_until_the_next_promotion_and_ends_as_revoked(
    settings: Settings, on_day: Any
) -> None:
    on_day(0)
    promoted(settings, 1, None)
    on_day(1)
    promoted(settings, 2, 1)
    revoked = on_day(2)
    revoke(settings, 2)
    revoke(settings, 1, use_case="another")
    revoke(settings, 1, action="retrain")
    revoke(settings, None)
    (_, last) = periods(settings)
    assert (last.revoked, last.end, last.stopped) == (revoked, None, None)
    table = "\n".join(lines_of(serving_history.serving_history(settings, USE_CASE)))
    assert "revoked at 2026-11-04T06:00:00Z (erasure), still serves" in table
    on_day(3)
    promoted(settings, 1, 2, reason="erasure")
    first, second, third = periods(settings)
    assert (first.stopped, first.revoked) == ("superseded", None)
    assert (second.stopped, second.end) == ("revoked", FIRST + 3 * DAY)
    assert second.why_stopped == "revoked at 2026-11-04T06:00:00Z (erasure), replaced by version 1: erasure"
    assert third.version == 1


def test_a_version_that_is_revoked_after_it_stopped_did_not_stop_for_that(
    settings: Settings, on_day: Any
) -> None:
    on_day(0)
    promoted(settings, 1, None)
    on_day(1)
    promoted(settings, 2, 1)
    on_day(2)
    revoke(settings, 1)
    assert periods(settings)[0].stopped == "superseded"


def test_what_served_before_the_record_is_said_to_be_unknown(settings: Settings) -> None:
    promoted(settings, 7, 6)
    before, after = periods(settings)
    assert (before.version, before.start, before.promoted_by) == (6, None, None)
    assert before.end == after.start
    assert after.promoted_by == "by-hand"
    table = list(lines_of(serving_history.serving_history(settings, USE_CASE)))
    assert "before the record" in table[1]
    assert "no record" in table[1]


def test_a_champion_that_is_found_serving_has_no_known_start(settings: Settings, on_day: Any) -> None:
    on_day(0)
    promoted(settings, 7, 7)
    on_day(1)
    promoted(settings, 8, 7)
    first, second = periods(settings)
    assert (first.version, first.start, first.promoted_by, first.end) == (7, None, None, FIRST + DAY)
    assert second.version == 8
    assert [period.version for period in periods(settings, FIRST - 100 * DAY)] == [7]


def test_a_log_that_was_tampered_with_gives_no_answer(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    promoted(settings, 1, None)
    promoted(settings, 2, 1)
    path = audit_log_file(settings)
    path.write_text(path.read_text().replace('"version": 1', '"version": 3'))
    for name, value in environment_of(settings).items():
        monkeypatch.setenv(name, value)
    assert main(["--use-case", USE_CASE]) == EXIT_PERMANENT
    assert "in line 1" in capsys.readouterr().err


def test_the_command_prints_a_table_or_json(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], on_day: Any
) -> None:
    on_day(0)
    promoted(settings, 1, None, reason="first")
    on_day(1)
    promoted(settings, 2, 1)
    for name, value in environment_of(settings).items():
        monkeypatch.setenv(name, value)
    assert main(["--use-case", USE_CASE]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "version  from                  until                 promoted by  why it stopped",
        "1        2026-11-02T06:00:00Z  2026-11-03T06:00:00Z  by-hand      superseded by version 2",
        "2        2026-11-03T06:00:00Z  serves                by-hand",
    ]
    assert main(["--use-case", USE_CASE, "--at", "2026-11-02T12:00Z", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["at"] == "2026-11-02T12:00:00Z"
    assert [(period["version"], period["reason"]) for period in document["periods"]] == [(1, "first")]
    assert main(["--use-case", USE_CASE, "--at", "yesterday"]) == EXIT_PERMANENT
    assert main(["--use-case", "nobody"]) == EXIT_PERMANENT


def test_it_needs_neither_the_registry_nor_the_model_server(settings: Settings) -> None:
    environment = {**os.environ, **environment_of(settings), "PYTHONPATH": str(REPOSITORY / "src")}
    done = subprocess.run(
        [sys.executable, "-c", IMPORTED], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == ""
