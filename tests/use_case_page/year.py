"""A year of one use case as its page gets it: as much as there ever is, made up, in the jobs' own types."""

from __future__ import annotations

import random
from datetime import date, datetime, timedelta

from airloop.audit_log import append_record
from airloop.cost.advice import Fit
from airloop.cost.sums import DayCost, RunCost, Trend
from airloop.monitoring.monitored import PREDICTION, watched
from airloop.overview.document import (
    Audit,
    Candidate,
    Costs,
    Decision,
    Drift,
    FeatureDrift,
    FigureByDay,
    Overview,
    PublishedTable,
    Quality,
    Silenced,
    Traffic,
    write_overview,
)
from airloop.references import RolloutCheck, StageDecision
from airloop.rollout_decisions import report_folder
from airloop.routing_document import Routing, Split, Stage, routing_file
from airloop.serving_history import PROMOTION
from airloop.settings import Settings
from airloop.use_cases.flight_delay import USE_CASE as SPEC
from airloop.whole_files import write_whole

DAYS = 365
CHANGES = (0, 40, 120, 205, 290)
"""Days on which a version took over."""
WHY = "drift of wind_speed_mph in the window until then"
RUN = "flight_delay_rollout/asset_triggered__1"


def write_year(settings: Settings, now: datetime) -> None:
    """The year before `now`, with a canary of version 6 under way."""
    draw = random.Random(7)
    write_overview(settings, _overview(now, draw))
    _promotions(settings, now)
    _rollout(settings, now)


def _overview(now: datetime, draw: random.Random) -> Overview:
    today = now.date()
    days = tuple(today - timedelta(days=DAYS - number) for number in range(DAYS))
    features = tuple(_feature(name, draw, number) for number, name in enumerate((*watched(SPEC), PREDICTION)))
    requests = tuple(int(700 + 120 * draw.random() + 200 * (number % 7 < 5)) for number in range(DAYS))
    waiting = [None] * 3
    auc = [round(0.75 - 0.0003 * (n - _since(n)) + draw.gauss(0, 0.012), 4) for n in range(DAYS - 3)]
    return Overview(
        use_case=SPEC.name,
        written=now - timedelta(minutes=8),
        alarms=("drift of wind_speed_mph", "drift of visibility_miles"),
        drift=Drift(days=days, features=features, last_window=now),
        traffic=Traffic(
            days=days,
            requests=requests,
            failed=tuple(draw.choice((0, 0, 0, 1, 3)) for _ in days),
            lost=(200,),
        ),
        quality=Quality(
            days=days,
            version=tuple(1 + sum(number >= change for change in CHANGES[1:]) for number in range(DAYS)),
            figures=(
                FigureByDay(
                    name="roc_auc",
                    words="ROC AUC",
                    values=(*auc, *waiting),
                    usual=(*(0.751 for _ in auc), *waiting),
                ),
                FigureByDay(
                    name="gain",
                    words="gain over a base rate",
                    values=(*(round((one - 0.5) / 4, 4) for one in auc), *waiting),
                    usual=(*(0.0628 for _ in auc), *waiting),
                ),
                FigureByDay(
                    name="calibration_error",
                    words="calibration error",
                    values=(*(round(0.02 + 0.01 * draw.random(), 4) for _ in auc), *waiting),
                    usual=None,
                ),
            ),
            label_share=(*(0.97 for _ in auc), 0.71, 0.4, 0.0),
            alarmed=(110, 111, 112, 201, 202),
            worst_slices=("carrier=HA: ROC AUC 0.583 of 212", "origin=LGA: ROC AUC 0.702 of 5,130"),
        ),
        skewed=("dest_late_share_3h",),
        ranked_by="ROC AUC",
        candidates=tuple(_candidate(now, number) for number in range(12)),
        decisions=tuple(
            Decision(at=now - timedelta(days=9 * n), requested=n % 3 == 0, said=WHY) for n in range(14)
        ),
        silences=(
            Silenced(cause="new_events", until=now + timedelta(days=3), who="Ada", reason="a backfill runs"),
        ),
        tables=tuple(_table(name, now) for name in ("clean.flights", "features.origin_hourly")),
        audits=tuple(
            Audit(
                interval=f"{today - timedelta(days=number + 1)} to {today - timedelta(days=number)}",
                at=now - timedelta(days=number),
                passed=number != 4,
                failures=("flights: expect_volume_to_be_usual",) if number == 4 else (),
                not_judged=0,
                report_uri=None,
            )
            for number in range(30)
        ),
        costs=_costs(now, days, requests, draw),
    )


def _since(day: int) -> int:
    return max(change for change in CHANGES if change <= day)


def _feature(name: str, draw: random.Random, number: int) -> FeatureDrift:
    stormy = range(195, 206)
    distance = [
        round(min(1.0, abs(draw.gauss(0.04, 0.02)) + (0.2 * draw.random() if day in stormy else 0)), 4)
        for day in range(DAYS)
    ]
    return FeatureDrift(
        feature=name,
        distance=tuple(distance),
        alarmed=tuple(day for day in stormy if distance[day] > 0.15) if number % 4 == 0 else (),
        missing_share=0.01,
        usual_missing_share=0.012,
    )


def _candidate(now: datetime, number: int) -> Candidate:
    outcome = ("open", "won", "lost", "won", "failed")[number % 5]
    return Candidate(
        run_id=f"{number:032x}",
        started=now - timedelta(days=30 * number, hours=2),
        outcome=outcome,
        version=6 - number // 2 if outcome in ("open", "won") else None,
        verdict={"open": "accepted", "won": "accepted", "lost": "rejected"}.get(outcome),
        because=WHY if number % 2 == 0 else None,
        why_not="roc_auc: no better than the champion" if outcome == "lost" else None,
        as_of=now - timedelta(days=30 * number),
        measured=0.7563,
        champion_measured=0.7541,
        price=0.42,
        report_uri=None,
    )


def _table(name: str, now: datetime) -> PublishedTable:
    return PublishedTable(
        table=name,
        rows=164_085,
        until=now.replace(hour=0, minute=0),
        at=now - timedelta(hours=9),
        run="flight_delay_features/scheduled__1",
    )


def _costs(now: datetime, days: tuple[date, ...], requests: tuple[int, ...], draw: random.Random) -> Costs:
    tasks = [round(0.4 + 0.1 * draw.random() + (0.4 if number % 7 == 0 else 0), 4) for number in range(DAYS)]
    return Costs(
        currency="USD",
        week=sum(tasks[-7:]),
        budget_per_week=5.0,
        trend=Trend(per_week=3.6, per_week_before=3.9),
        change=3.6 / 3.9 - 1,
        days=tuple(
            DayCost(
                day=day,
                tasks=price,
                serving=2.4,
                predictions=asked,
                per_thousand=(price + 2.4) / asked * 1000,
            )
            for day, price, asked in zip(days, tasks, requests, strict=True)
        ),
        runs=tuple(
            RunCost(
                dag_id=f"{SPEC.name}_{('monitoring', 'features', 'training')[number % 3]}",
                run_id=f"scheduled__{number}",
                started=now - timedelta(hours=number),
                wall_seconds=61.0 * (1 + number % 3),
                cpu_seconds=75.0,
                accelerator_seconds=0.0,
                price=0.003 * (1 + number % 3),
            )
            for number in range(40)
        ),
        fits=(
            Fit(
                module="airloop.training.train",
                attempts=4,
                machine="gpu",
                wall_seconds=1300.0,
                price=1.4,
                cpu_share=0.2,
                peak_vcpus=1.9,
                peak_memory_gib=3.1,
                memory_share=0.1,
                accelerator_share=0.12,
                suggestion="its accelerators are busy for 12% of the time: see what they wait for",
            ),
        ),
    )


def _promotions(settings: Settings, now: datetime) -> None:
    """Versions 1 to 5, as the audit log has them; its own clock says when, so the last ones are of now."""
    for version in range(1, 6):
        append_record(
            settings,
            kind=PROMOTION,
            key=f"{SPEC.name} {version}",
            who="flight_delay_rollout/scheduled__1",
            what={
                "use_case": SPEC.name,
                "version": version,
                "replaces": version - 1 or None,
                "reason": "held through every stage",
                "run": "flight_delay_rollout/scheduled__1",
            },
        )


def _rollout(settings: Settings, now: datetime) -> None:
    since = now - timedelta(minutes=40)
    routing = Routing(
        split=Split(version=6, share=0.25, salt="canary"),
        rollout=Stage(
            run=RUN,
            version=6,
            name="canary_25",
            since=now - timedelta(minutes=6),
            rollout_since=since,
            looked_at=now,
        ),
        changed_by=RUN,
    )
    write_whole(routing_file(settings.models_dir, SPEC.model_name), routing.model_dump_json())
    folder = report_folder(settings, SPEC, RUN)
    check = RolloutCheck(
        name="error_rate",
        value=0.0,
        low=None,
        high=0.004,
        champion=0.0,
        threshold=0.01,
        requests=2400,
        outcome="passed",
        detail="",
    )
    for minutes, (stage, decision) in enumerate(
        (("shadow", "go_on"), ("canary_5", "go_on"), ("canary_25", "hold"))
    ):
        found = StageDecision(
            name=SPEC.model_name,
            version=6,
            stage=stage,
            decision=decision,
            reason="all checks hold" if decision == "go_on" else "its time is not over",
            champion=5,
            since=since,
            until=since + timedelta(minutes=10 * (minutes + 1)),
            requests=2400,
            checks=(check,) * 5,
        )
        write_whole(folder / f"{stage}.json", found.model_dump_json())
    write_whole(folder / "index.html", "<p>every number</p>")
