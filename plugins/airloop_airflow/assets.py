"""The Assets through which a use case's DAGs meet, each named once.

Belongs here: names. Does not belong here: who produces or consumes them; the DAGs say that.
"""

from __future__ import annotations

from airflow.sdk import Asset

from airloop.use_cases.spec import UseCase


def features(use_case: UseCase) -> Asset:
    """Audited features, offline and online; the event's extra says of which days."""
    return features_of(use_case.name)


def features_of(name: str) -> Asset:
    """The same, of the use case called `name`."""
    return _asset(name, "features")


def pushed_of(name: str) -> Asset:
    """Records of the hour that just ended, landed, and in the online features of the use case `name`."""
    return _asset(name, "pushed")


def data_changed(use_case: UseCase) -> Asset:
    """Data of past days changed (late records, a rollback); the event's extra says which."""
    return _asset(use_case.name, "data_changed")


def judged(use_case: UseCase) -> Asset:
    """What monitoring found of the newest windows."""
    return _asset(use_case.name, "judged")


def retrain_request(use_case: UseCase) -> Asset:
    """A request to train a candidate now; the event's extra may say why."""
    return _asset(use_case.name, "retrain_request")


def candidate(use_case: UseCase) -> Asset:
    """A candidate that passed its gate and is registered as the challenger."""
    return _asset(use_case.name, "candidate")


def live_model(use_case: UseCase) -> Asset:
    """The version that takes the traffic."""
    return _asset(use_case.name, "live_model")


def _asset(use_case: str, name: str) -> Asset:
    return Asset(name=f"{use_case}_{name}", uri=f"airloop://{use_case}/{name}")
