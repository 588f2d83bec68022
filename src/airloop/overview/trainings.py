"""Candidates, and what became of them.

Belongs here: from MLflow's runs and the registry to a list that people read. Does not belong here: deciding
from them (`airloop.retraining`). Importing this module imports MLflow.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Final

from pyiceberg.catalog import Catalog
from pyiceberg.expressions import AlwaysTrue

from airloop.monitoring.silences import silences_of
from airloop.monitoring.tables import rows_where
from airloop.overview.document import Candidate, Decision, Silenced
from airloop.registry import ROLLED_BACK, open_registry
from airloop.retraining.past import trainings_of
from airloop.retraining.requests import table_name as decisions_table
from airloop.settings import Settings
from airloop.training.tracking import AIRFLOW_RUN, REQUESTED_BECAUSE, TRAINING_SET, VERDICT, VERDICT_PAGE
from airloop.use_cases.spec import UseCase

MOST: Final = 25
"""Candidates, and decisions, that are shown."""
REJECTED_FOR: Final = "airloop.rejected_for"


def candidates_of(
    settings: Settings, spec: UseCase, at: datetime, price_of_run: Mapping[str, float]
) -> tuple[Candidate, ...]:
    """The newest trainings, the newest first; `price_of_run` has what Airflow runs cost, as `<dag>/<run>`."""
    client = open_registry(settings)
    registered = client.search_model_versions(f"name='{spec.model_name}'")
    versions = {version.run_id: version for version in sorted(registered, key=lambda one: int(one.version))}
    ranks = spec.label.target.figures[0]
    found = []
    for training in reversed(trainings_of(settings, spec, at)[-MOST:]):
        run = client.get_run(training.run_id)
        tags, metrics = run.data.tags, run.data.metrics
        version = versions.get(training.run_id)
        page = settings.reports_dir / spec.name / tags.get(TRAINING_SET, "-") / VERDICT_PAGE
        given_up = dict(version.tags).get(ROLLED_BACK) if version is not None else None
        price = price_of_run.get(tags.get(AIRFLOW_RUN, ""))
        found.append(
            Candidate(
                run_id=training.run_id,
                started=training.started,
                outcome=training.outcome,
                version=int(version.version) if version is not None else None,
                verdict=tags.get(VERDICT),
                because=tags.get(REQUESTED_BECAUSE),
                why_not=given_up or tags.get(REJECTED_FOR) or None,
                as_of=training.as_of,
                measured=metrics.get(f"test_{ranks.name}"),
                champion_measured=metrics.get(f"champion_{ranks.name}"),
                price=price if price is not None else training.price,
                report_uri=page.as_uri() if page.exists() else None,
            )
        )
    return tuple(found)


def decisions_of(catalog: Catalog, spec: UseCase) -> tuple[Decision, ...]:
    """The newest decisions that had a cause, the newest first; of equal ones in a row the first."""
    rows = sorted(rows_where(catalog, decisions_table(spec), AlwaysTrue()), key=lambda row: row["at"])
    found: list[Decision] = []
    last = None
    for row in rows:
        # A cause that lasts is decided about every hour.
        what = row["requested"], row["refusal"], tuple(row["causes"] or ())
        if what != last and row["causes"]:
            found.append(Decision(at=row["at"], requested=row["requested"], said=row["said"]))
        last = what
    return tuple(reversed(found[-MOST:]))


def silenced_of(catalog: Catalog, spec: UseCase, at: datetime) -> tuple[Silenced, ...]:
    """What is silenced at `at`."""
    found = silences_of(catalog, spec).at(at).values()
    return tuple(Silenced(cause=o.cause, until=o.until, who=o.who, reason=o.reason) for o in found)
