"""Who is told of a budget.

Belongs here: when an alert goes out, and its words. Does not belong here: the rule (`airloop.cost.budget`).
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from airflow.sdk import Variable, get_current_context

from airloop.errors import BudgetError
from airloop_airflow.alert_kinds import BUDGET
from airloop_airflow.alerts import Alert, Phase, alert_of_run, alert_on_failure, send

REFUSED = BudgetError.__name__
NEWS = timedelta(hours=3)
"""An older run that is cleared says how it was."""
EXCEEDED = "airloop_over_budget"
"""The Airflow Variable with the use cases whose budget was exceeded when somebody was told last."""


def tell(recorded: Mapping[str, Any]) -> str:
    """Send which budgets are exceeded, once each, and which no longer are; returns what was said."""
    context = get_current_context()
    run = context["dag_run"]
    if datetime.now(UTC) - run.run_after > NEWS:
        return "history, nobody is told"
    budgets = {state["use_case"]: state for state in recorded["budgets"]}
    told = set(Variable.get(EXCEEDED, default=[], deserialize_json=True))
    exceeded = {name for name, state in budgets.items() if state["exceeded"]}
    for name in sorted(exceeded ^ told):
        phase: Phase = "began" if name in exceeded else "over"
        title = "over its budget" if name in exceeded else "within its budget again"
        said = budgets[name]["said"] if name in budgets else "it has no budget any more"
        alert = alert_of_run(
            context,
            kind=BUDGET,
            subject=name,
            phase=phase,
            title=f"{name}: {title}",
            detail=said,
            about=name,
        )
        send(alert)
    if exceeded != told:
        Variable.set(EXCEEDED, sorted(exceeded), serialize_json=True)
    return "; ".join(f"{name}: {state['said']}" for name, state in sorted(budgets.items())) or "no budgets"


def tell_before(checked: Mapping[str, Any]) -> str:
    """Send that the training that begins spends more than the budget, where that is allowed; returns what was
    said of the budget."""
    context = get_current_context()
    use_case, said = checked["use_case"], str(checked["said"])
    if checked["exceeded"]:
        title = f"{use_case}: a training begins that is over the budget"
        send(alert_of_run(context, kind=BUDGET, title=title, detail=said))
    return said


def alert_on_refusal(context: Any) -> None:
    """Failure callback of the task that asks for room in the budget: a refusal, or a failure as any other."""
    instance, dag = context["ti"], context["dag"]
    if REFUSED not in str(context.get("exception")):
        alert_on_failure(context)
        return
    use_case = dag.dag_id.removesuffix("_training")
    send(
        Alert(
            kind=BUDGET,
            title=f"{use_case}: a training is refused",
            owner=dag.owner,
            dag_id=instance.dag_id,
            run_id=instance.run_id,
            detail=str(context.get("exception") or "no exception was recorded; see the task's log"),
        )
    )
