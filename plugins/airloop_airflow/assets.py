"""The Assets through which a use case's DAGs meet, each named once.

Belongs here: names. Does not belong here: who produces or consumes them; the DAGs say that.
"""

from __future__ import annotations

from airflow.sdk import Asset

from airloop.use_cases.spec import UseCase


def features(use_case: UseCase) -> Asset:
    """Audited features, offline and online."""
    return _asset(use_case, "features")


def data_changed(use_case: UseCase) -> Asset:
    """Data of past days changed (late records, a rollback); the event's extra says which."""
    return _asset(use_case, "data_changed")


def judged(use_case: UseCase) -> Asset:
    """What monitoring found of the newest windows."""
    return _asset(use_case, "judged")


def retrain_request(use_case: UseCase) -> Asset:
    """A request to train a candidate now; the event's extra may say why."""
    return _asset(use_case, "retrain_request")


def candidate(use_case: UseCase) -> Asset:
    """A candidate that passed its gate and is registered as the challenger."""
    return _asset(use_case, "candidate")


def live_model(use_case: UseCase) -> Asset:
    """The version that takes the traffic."""
    return _asset(use_case, "live_model")


def _asset(use_case: UseCase, name: str) -> Asset:
    return Asset(name=f"{use_case.name}_{name}", uri=f"airloop://{use_case.name}/{name}")
