"""Who is told what of a judged window.

Belongs here: when an alert goes out, and its words. Does not belong here: judging (`airloop.monitoring`), or
the way to Slack (`alerts`).

An alarm is told when it begins and when it is over, and not every hour in between. A past span that is judged
again is history, and wakes nobody.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from airflow.sdk import get_current_context

from airloop.intervals import parse_instant
from airloop.wording import listed
from airloop_airflow.alert_kinds import DECAY, DRIFT, LOST_TRAFFIC, SKEW, AlertKind
from airloop_airflow.alerts import Phase, alert_of_run, is_going_on, send

SKEW_NEWS = timedelta(days=3)
"""A day is compared once its features are published, and that may take a try or two."""
QUALITY_NEWS = timedelta(days=7)
"""Labels come days later."""
NEWS = timedelta(hours=3)
"""A window that ended longer ago, before the run was due, is history."""


def tell(judged: Mapping[str, Any]) -> str:
    """Send what began and what is over in the last window of `judged`; returns what was said."""
    context = get_current_context()
    dag, run = context["dag"], context["dag_run"]
    use_case = dag.dag_id.removesuffix("_monitoring")
    if judged["last_end"] is None:
        return "no window was judged: hours are missing, or nothing was asked yet"
    if run.run_after - parse_instant(judged["last_end"]) > NEWS:
        return f"the last window ended at {judged['last_end']}: history, nobody is told"
    news: list[tuple[AlertKind, Phase, str]] = []
    if judged["lost_traffic_began"]:
        news.append((LOST_TRAFFIC, "began", "traffic is lost"))
    if judged["lost_traffic_cleared"]:
        news.append((LOST_TRAFFIC, "over", "traffic is back"))
    if judged["began"]:
        news.append((DRIFT, "began", f"drift of {listed(judged['began'])}"))
    if judged["cleared"]:
        still = f"; still {listed(judged['heard'])}" if judged["heard"] else ""
        phase: Phase = "goes_on" if still else "over"
        news.append((DRIFT, phase, f"drift is over: {listed(judged['cleared'])}{still}"))
    for kind, phase, title in news:
        send(
            alert_of_run(
                context,
                kind=kind,
                subject=use_case,
                phase=phase,
                title=f"{use_case}: {title}",
                detail="\n".join([f"version {judged['version']}", *judged["lines"]]),
            )
        )
    return "; ".join([*(title for _, _, title in news), *judged["silenced"]]) or "nothing new"


def tell_quality(judged: Mapping[str, Any]) -> str:
    """Send that the champion decays, once, when it begins and when it is over; returns what was said."""
    context = get_current_context()
    dag, run = context["dag"], context["dag_run"]
    if not judged["has_test_days"]:
        return f"version {judged['version']} cannot be judged: its figures by test day were not kept"
    if judged["last_day"] is None:
        return f"no day has enough labels yet; {judged['waiting']} wait for them"
    said = (
        f"{judged['last_day']}: {judged['labelled']:,} of {judged['answers']:,} answers have a label; "
        f"{judged['said']}" + (f"; decay is {judged['silenced']}" if judged["silenced"] else "")
    )
    is_news = run.run_after - parse_instant(judged["last_day"]) <= QUALITY_NEWS
    use_case = dag.dag_id.removesuffix("_monitoring")
    if is_news and not judged["alarmed"] and not judged["cleared"] and is_going_on(DECAY, use_case):
        # It was another version that decayed.
        title = f"{use_case}: version {judged['version']} took the place of the one that decayed"
        over = alert_of_run(context, kind=DECAY, subject=use_case, phase="over", title=title, detail=said)
        send(over)
    if (judged["began"] or judged["cleared"]) and is_news:
        decays = "decays" if judged["began"] else "is as good as on its test days again"
        send(
            alert_of_run(
                context,
                kind=DECAY,
                subject=use_case,
                phase="began" if judged["began"] else "over",
                title=f"{use_case}: version {judged['version']} {decays}",
                detail=said,
            )
        )
    return said


def tell_skew(judged: Mapping[str, Any]) -> str:
    """Send which features are served otherwise than they are trained on; returns what was said."""
    context = get_current_context()
    dag, run = context["dag"], context["dag_run"]
    use_case = dag.dag_id.removesuffix("_skew")
    news: list[tuple[Phase, str]] = []
    if judged["began"]:
        news.append(("began", f"served features are not those of training: {listed(judged['began'])}"))
    if judged["cleared"]:
        phase: Phase = "goes_on" if judged["skewed"] else "over"
        news.append((phase, f"skew is over: {listed(judged['cleared'])}"))
    if run.run_after - parse_instant(judged["day"]) > SKEW_NEWS:
        news = []
    for phase, title in news:
        send(
            alert_of_run(
                context,
                kind=SKEW,
                subject=use_case,
                phase=phase,
                title=f"{use_case}: {title}",
                detail="\n".join([f"{judged['day']}, {judged['rows']:,} answers", *judged["lines"]]),
            )
        )
    said = [*(title for _, title in news), *([f"skew is {judged['silenced']}"] if judged["silenced"] else [])]
    return "; ".join(said) or "nothing new"
