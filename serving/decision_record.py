"""A decision put on record: in the job's log, in the audit log, and on the page that a person reads.

Belongs here: where decisions are kept. Does not belong here: making them, or how the page looks.
"""

from __future__ import annotations

import logging

from airloop.airflow_run import run_id
from airloop.audit_log import append_record
from airloop.references import StageDecision
from airloop.settings import Settings
from airloop.use_cases.spec import UseCase
from serving.decision import shown
from serving.rollout_page import write_report

log = logging.getLogger(__name__)


def put_on_record(settings: Settings, spec: UseCase, decision: StageDecision, kind: str) -> StageDecision:
    """Keep `decision` (in the audit log as `kind`, unless it is to wait), and say where its page is."""
    log.info("%s: %s, for %s", decision.stage, decision.decision, decision.reason)
    for check in decision.checks:
        log.info("  %s: %s", check.outcome, shown(check))
    run = run_id()
    if decision.decision != "hold":
        append_record(
            settings,
            kind=kind,
            key=f"{spec.name} {run} {decision.version} {decision.stage} {decision.decision}",
            who=run,
            what={"use_case": spec.name, **decision.model_dump(mode="json", exclude={"page_uri"})},
        )
    return decision.model_copy(update={"page_uri": write_report(settings, spec, run, decision)})
