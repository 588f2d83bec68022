"""What nothing fails of: runs that never began, that do not end, DAGs that are off, data that did not come.

Belongs here: what the watchdog asks Airflow, what it makes of the answers, and whom it tells. Does not belong
here: what is expected (`expected_dags`), how late data are (`airloop.monitoring.late_data`), or the way to
Slack (`alerts`).

What was seen is kept in Airflow Variables that begin with `airloop_watchdog.`: something is told when it
begins and when it is over, and not every hour in between.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple, Protocol

import httpx
from airflow.sdk import Variable, get_current_context
from airflow.sdk.exceptions import AirflowRuntimeError

from airloop.use_cases.catalogue import all_use_cases
from airloop.wording import listed
from airloop_airflow.alert_kinds import DAG_PAUSED, LATE_DATA, MISSED_SCHEDULE, AlertKind
from airloop_airflow.alerts import Phase, alert_of_run, send
from airloop_airflow.expected_dags import ExpectedDag, expected_dags

PREFIX: Final = "airloop_watchdog."
GRACE: Final = timedelta(minutes=15)
"""The scheduler makes a run within seconds of its tick."""
PATIENCE: Final = timedelta(hours=12)
"""How long a run may keep the next one from being made: Airflow then makes the newest only."""
MOST_TICKS: Final = 50
"""Of one DAG and one look; after longer outages the newest."""
ACTIVE: Final = ("queued", "running")
NOT_FOUND: Final = 404


class Airflow(Protocol):
    """What the watchdog asks Airflow."""

    def is_on(self, dag_id: str) -> bool | None:
        """Whether the DAG is switched on; None where there is none of that name."""

    def runs(
        self, dag_id: str, logical_dates: Sequence[datetime] | None, states: Sequence[str] | None = None
    ) -> int:
        """How many runs the DAG has, at these logical dates and in these states; None is any."""


class TaskApi:
    """Airflow as a task reaches it: no token, no connection, no database."""

    def __init__(self, task_instance: Any) -> None:
        """`task_instance` is the `ti` of the task's context."""
        self._instance = task_instance

    def is_on(self, dag_id: str) -> bool | None:
        """See `Airflow`."""
        try:
            return not self._instance.get_dag(dag_id).is_paused
        except (AirflowRuntimeError, httpx.HTTPStatusError) as error:
            if _status_of(error) == NOT_FOUND:
                return None
            raise

    def runs(
        self, dag_id: str, logical_dates: Sequence[datetime] | None, states: Sequence[str] | None = None
    ) -> int:
        """See `Airflow`."""
        found: int = self._instance.get_dr_count(
            dag_id,
            logical_dates=None if logical_dates is None else list(logical_dates),
            states=None if states is None else list(states),
        )
        return found


def _status_of(error: AirflowRuntimeError | httpx.HTTPStatusError) -> int | None:
    """The API server's answer: a worker hands it on in words of its own, `airflow dags test` as it came."""
    if isinstance(error, httpx.HTTPStatusError):
        return error.response.status_code
    return (error.error.detail or {}).get("status_code")


class Seen(NamedTuple):
    """What one look leaves for the next."""

    judged_until: dict[str, datetime]
    """By DAG that was seen switched on, up to where its ticks were looked at."""
    off: frozenset[str] = frozenset()
    """DAGs that should be on and are not."""
    missing: dict[str, list[datetime]] = {}  # noqa: RUF012 - never changed
    """By DAG, the ticks without a run; the newest tick is among them."""
    stuck: frozenset[str] = frozenset()
    absent: frozenset[str] = frozenset()

    @property
    def wrong(self) -> set[str]:
        """DAGs that do not run as they should, though nobody switched them off."""
        return {*self.missing, *self.stuck, *self.absent}

    def as_document(self) -> dict[str, Any]:
        """As a Variable keeps it."""
        return {
            "judged_until": {name: moment.isoformat() for name, moment in self.judged_until.items()},
            "off": sorted(self.off),
            "missing": {name: [tick.isoformat() for tick in ticks] for name, ticks in self.missing.items()},
            "stuck": sorted(self.stuck),
            "absent": sorted(self.absent),
        }

    @classmethod
    def of(cls, document: Mapping[str, Any] | None) -> Seen:
        """What `as_document` made; without one, nothing was seen."""
        if not document:
            return cls({})
        return cls(
            {name: datetime.fromisoformat(text) for name, text in document["judged_until"].items()},
            frozenset(document["off"]),
            {name: [datetime.fromisoformat(t) for t in ticks] for name, ticks in document["missing"].items()},
            frozenset(document["stuck"]),
            frozenset(document["absent"]),
        )


class Found(NamedTuple):
    """What a look found."""

    seen: Seen
    made_up: dict[str, list[datetime]]
    """By DAG that has its newest run, older ticks without one: nothing makes up for them by itself."""
    lines: dict[str, str]
    """By DAG, what is wrong with it, in words."""


def look(airflow: Airflow, dags: Iterable[ExpectedDag], before: Seen, now: datetime) -> Found:
    """What is not as it should be at `now`, when it was as `before` a look ago."""
    judged_until: dict[str, datetime] = {}
    off, stuck, absent = set(), set(), set()
    missing: dict[str, list[datetime]] = {}
    made_up: dict[str, list[datetime]] = {}
    lines: dict[str, str] = {}
    for dag in dags:
        on = airflow.is_on(dag.dag_id)
        was_on = dag.dag_id in before.judged_until
        if not on:
            if was_on or dag.dag_id in before.off | before.absent or dag.on_from_the_start:
                (absent if on is None else off).add(dag.dag_id)
                lines[dag.dag_id] = "Airflow does not know it" if on is None else "is switched off"
            continue
        if not was_on:
            # Ticks of before it was switched on are nobody's.
            judged_until[dag.dag_id] = now
            continue
        ticks = dag.ticks(before.judged_until[dag.dag_id], now - GRACE)[-MOST_TICKS:]
        without = _without_a_run(airflow, dag, ticks)
        judged_until[dag.dag_id] = ticks[-1] if ticks else before.judged_until[dag.dag_id]
        if without and now - without[0] < PATIENCE and airflow.runs(dag.dag_id, None, ACTIVE):
            judged_until[dag.dag_id] = before.judged_until[dag.dag_id]
            without, ticks = [], []
        gone = [*before.missing.get(dag.dag_id, ()), *without]
        if gone and (not ticks or ticks[-1] in without):
            missing[dag.dag_id] = gone
            lines[dag.dag_id] = _no_run_of(dag, gone)
        elif gone:
            made_up[dag.dag_id] = gone
        if (late := _unfinished(airflow, dag, now)) is not None:
            stuck.add(dag.dag_id)
            lines[dag.dag_id] = late
    seen = Seen(judged_until, frozenset(off), missing, frozenset(stuck), frozenset(absent))
    return Found(seen, made_up, lines)


def check_runs() -> dict[str, Any]:
    """Look at every DAG, send what began and what is over; returns what was said, and which were ever on."""
    context = get_current_context()
    # The present is what a watchdog is about: a run of it that is late must not find what was.
    now = datetime.now(UTC)
    key = f"{PREFIX}runs"
    before = Seen.of(Variable.get(key, default=None, deserialize_json=True))
    found = look(TaskApi(context["ti"]), expected_dags(all_use_cases()), before, now)
    said = [
        *_tell(context, DAG_PAUSED, before.off, found.seen.off, "switched off", found.lines),
        *_tell(
            context, MISSED_SCHEDULE, before.wrong, found.seen.wrong, "not running as due", _all_lines(found)
        ),
    ]
    # Those that were told as missing are told as over; others ran again before anybody looked.
    if passed := sorted(set(found.made_up) - before.wrong):
        said.append(_send_passed(context, found, passed))
    _keep(key, found.seen.as_document())
    return {
        "said": said or ["nothing new"],
        "wrong": found.lines,
        "seen_on": sorted(found.seen.judged_until.keys() | before.judged_until.keys() | found.seen.off),
    }


def tell_late_data(late: Mapping[str, Any], checked: Mapping[str, Any]) -> str:
    """Send which data became late and which are there again; returns what was said.

    A use case whose features DAG was never switched on promises no data.
    """
    context = get_current_context()
    use_case = late["use_case"]
    if f"{use_case}_features" not in checked["seen_on"]:
        return f"{use_case}_features was never switched on, so nothing is due"
    key = f"{PREFIX}late.{use_case}"
    before = frozenset(Variable.get(key, default=None, deserialize_json=True) or ())
    now = frozenset(late["late"])
    said = _tell(context, LATE_DATA, before, now, "late", late["late"], use_case)
    _keep(key, sorted(now))
    return "; ".join([*said, *late["late"].values()]) or "nothing is late"


def _without_a_run(airflow: Airflow, dag: ExpectedDag, ticks: Sequence[datetime]) -> list[datetime]:
    """Those of `ticks` that the DAG has no run of."""
    if not ticks or airflow.runs(dag.dag_id, [tick - dag.interval for tick in ticks]) >= len(ticks):
        return []
    return [tick for tick in ticks if not airflow.runs(dag.dag_id, [tick - dag.interval])]


def _unfinished(airflow: Airflow, dag: ExpectedDag, now: datetime) -> str | None:
    """That a run by the clock has not ended in time, in words; None if each has."""
    if dag.ends_within is None:
        return None
    ticks = dag.last_ticks(now - dag.ends_within, MOST_TICKS)
    dates = {tick - dag.interval: tick for tick in ticks}
    for state in ACTIVE if airflow.runs(dag.dag_id, list(dates), ACTIVE) else ():
        for date, tick in dates.items():
            if airflow.runs(dag.dag_id, [date], [state]):
                within = f"it is to end within {dag.ends_within}"
                return f"its run of {tick:%Y-%m-%d %H:%M} UTC is still {state}; {within}"
    return None


def _no_run_of(dag: ExpectedDag, ticks: Sequence[datetime]) -> str:
    return f"no run of {listed([f'{tick:%Y-%m-%d %H:%M}' for tick in ticks])} ({dag.cron}, UTC)"


def _all_lines(found: Found) -> dict[str, str]:
    """What is wrong, and of those that run again what nothing makes up for."""
    again = {name: f"runs again; {_left_out(ticks)}" for name, ticks in found.made_up.items()}
    return again | found.lines


def _left_out(ticks: Sequence[datetime]) -> str:
    return f"had no run of {listed([f'{tick:%Y-%m-%d %H:%M}' for tick in ticks])}"


def _send_passed(context: Any, found: Found, passed: Sequence[str]) -> str:
    title = f"runs were left out: {listed(passed)}"
    detail = "\n".join(f"{name} runs, but {_left_out(found.made_up[name])}" for name in passed)
    send(alert_of_run(context, kind=MISSED_SCHEDULE, title=title, detail=detail))
    return title


def _tell(
    context: Any,
    kind: AlertKind,
    before: Iterable[str],
    now: Iterable[str],
    what: str,
    lines: Mapping[str, str],
    about: str = "",
) -> list[str]:
    """Send what of `now` was not there `before`, and what no longer is; returns the titles."""
    began, over = sorted(set(now) - set(before)), sorted(set(before) - set(now))
    prefix = f"{about}: " if about else ""
    news: list[tuple[Phase, str]] = []
    if began:
        news.append(("began", f"{prefix}{what}: {listed(began)}"))
    if over:
        news.append(("goes_on" if now else "over", f"{prefix}no longer {what}: {listed(over)}"))
    for phase, title in news:
        shown = [f"{name}: {lines[name]}" for name in sorted({*now, *over}) if name in lines]
        detail = "\n".join(shown) or "all is as it should be"
        send(
            alert_of_run(
                context,
                kind=kind,
                subject=about or "all",
                phase=phase,
                title=title,
                detail=detail,
                about=about,
            )
        )
    return [title for _, title in news]


def _keep(key: str, document: Any) -> None:
    Variable.set(key, document, description="What the watchdog saw; Airloop writes it.", serialize_json=True)
