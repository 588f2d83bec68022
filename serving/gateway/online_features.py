"""Online features: the latest values that the feature store has for a request's entities.

Belongs here: the feature store's client. Does not belong here: which of the values still count at the
prediction time (`airloop.prediction_request`), or writing any.

The store is opened on first use, and the registry is read again when it lacks what is asked for, so that the
gateway can start before the first feature view exists.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import UTC, datetime
from typing import Final

from feast import FeatureService, FeatureStore
from feast.errors import FeastObjectNotFoundException
from feast.infra.online_stores.sqlite import SqliteOnlineStoreConfig
from feast.on_demand_feature_view import OnDemandFeatureView
from feast.type_map import feast_value_type_to_python_type
from google.protobuf.timestamp_pb2 import Timestamp

from airloop.prediction_request import FeatureScalar, PredictionRequest, StoredFeature, on_demand_values
from airloop.use_cases.spec import UseCase

log = logging.getLogger(__name__)

StoreFactory = Callable[[], FeatureStore]

_UNKNOWN_SECONDS: Final = 1.0
_KNOWN_SECONDS: Final = 60.0


class NoFeatureService(Exception):
    """The feature registry has no such feature service yet."""


class FeatureStoreDown(Exception):
    """The feature store does not answer; the same call may succeed later."""


class OnlineFeatures:
    """Reads of one feature store; calls may come from several threads at once.

    Every call raises `NoFeatureService` or `FeatureStoreDown`.
    """

    def __init__(self, open_store: StoreFactory) -> None:
        self._open_store = open_store
        self._store: FeatureStore | None = None
        self._opening = threading.Lock()
        self._reading = threading.Lock()
        self._refreshing = threading.Lock()
        self._services: dict[str, tuple[FeatureService | None, float]] = {}
        self._views: dict[str, tuple[OnDemandFeatureView, float]] = {}

    def read(
        self, use_case: UseCase, requests: Sequence[PredictionRequest]
    ) -> list[dict[str, StoredFeature]]:
        """For each request, the stored value of each feature of the use case, and from when on it was true.

        One read of the store, however many there are.
        """
        if use_case.feature_service is None or not use_case.feature_tables:
            return [{} for _ in requests]
        service = self.service(use_case.feature_service)
        # An absent key is asked for as "" or 0; whatever that finds, features that need the key are missing.
        absent = {item.name: "" if item.type == "string" else 0 for item in use_case.request}
        rows = [
            {key: request.entities.get(key, absent[key]) for key in use_case.entities} for request in requests
        ]
        try:
            store = self._opened()
            with self._reading_of(store):
                answer = store.get_online_features(
                    features=_stored_features(use_case, service), entity_rows=rows
                ).proto
        except Exception as error:
            log.exception("reading online features failed")
            raise FeatureStoreDown(f"{type(error).__name__} while reading online features") from error
        stored: list[dict[str, StoredFeature]] = [{} for _ in requests]
        wanted = frozenset(use_case.features)
        # The features of a view have one time in common.
        moments: dict[tuple[int, int], datetime | None] = {}
        for name, vector in zip(answer.metadata.feature_names.val, answer.results, strict=True):
            if name in wanted:
                for row, value, event_time in zip(
                    stored, vector.values, vector.event_timestamps, strict=True
                ):
                    key = (event_time.seconds, event_time.nanos)
                    if key not in moments:
                        moments[key] = _moment(event_time)
                    row[name] = StoredFeature(feast_value_type_to_python_type(value), moments[key])
        return stored

    def on_demand(
        self, use_case: UseCase, request: PredictionRequest, in_force: Mapping[str, FeatureScalar]
    ) -> dict[str, FeatureScalar]:
        """The features that Feast's on-demand views make of the stored values in force and of the request.

        Feast would do it as it reads, but of values that no longer count at the prediction time; offline it
        does it after the join, which knows that.
        """
        if not use_case.on_demand:
            return {}
        given = {
            name: [value.timestamp() if isinstance(value, datetime) else value]
            for name, value in {**on_demand_values(request), **in_force}.items()
        }
        found: dict[str, FeatureScalar] = {}
        for view in use_case.on_demand:
            made = self._on_demand_view(view.name).transform_dict(dict(given))
            for name in view.features:
                value = made[name][0]
                found[name] = None if isinstance(value, float) and math.isnan(value) else value
        return found

    def _on_demand_view(self, name: str) -> OnDemandFeatureView:
        found, read_at = self._views.get(name, (None, -_KNOWN_SECONDS))
        if found is None or time.monotonic() - read_at > _KNOWN_SECONDS:
            with self._refresh(known=found is not None) as mine:
                if mine:
                    try:
                        found = self._opened().get_on_demand_feature_view(name)
                    except Exception as error:
                        log.exception("reading the feature registry failed")
                        if found is None:
                            raise FeatureStoreDown(
                                f"{type(error).__name__} while reading the registry"
                            ) from error
                    self._views[name] = (found, time.monotonic())
        assert found is not None
        return found

    def service(self, name: str) -> FeatureService:
        """The feature service `name`; the registry is read again when it is unknown, or was read long ago."""
        found, read_at = self._services.get(name, (None, -_KNOWN_SECONDS))
        if time.monotonic() - read_at > (_KNOWN_SECONDS if found is not None else _UNKNOWN_SECONDS):
            with self._refresh(known=found is not None) as mine:
                if mine:
                    found = self._read_service(name, found)
        if found is None:
            raise NoFeatureService(name)
        return found

    def _read_service(self, name: str, known: FeatureService | None) -> FeatureService | None:
        try:
            store = self._opened()
            store.refresh_registry()
            found = store.get_feature_service(name)
        except FeastObjectNotFoundException:
            found = None
        except Exception as error:
            log.exception("reading the feature registry failed")
            # What was known a moment ago serves better than an error.
            if known is None:
                raise FeatureStoreDown(f"{type(error).__name__} while reading the registry") from error
            found = known
        self._services[name] = (found, time.monotonic())
        return found

    def _reading_of(self, store: FeatureStore) -> AbstractContextManager[object]:
        """Feast's SQLite store reads over one connection, which threads must not share at the same time.

        Redis' client is made for threads, and one answer that does not come must not hold up the others.
        """
        return (
            self._reading if isinstance(store.config.online_store, SqliteOnlineStoreConfig) else nullcontext()
        )

    @contextmanager
    def _refresh(self, *, known: bool) -> Iterator[bool]:
        """Whether this thread is to read the registry. While one does, others go on with what is known.

        Each for itself, all would stand still for as long.
        """
        mine = self._refreshing.acquire(blocking=not known)
        try:
            yield mine
        finally:
            if mine:
                self._refreshing.release()

    def _opened(self) -> FeatureStore:
        with self._opening:
            if self._store is None:
                self._store = self._open_store()
            return self._store


def _stored_features(use_case: UseCase, service: FeatureService) -> list[str]:
    """The features of `service` that are stored, as Feast names them."""
    on_demand = {view.name for view in use_case.on_demand}
    return [
        f"{projection.name_to_use()}:{feature.name}"
        for projection in service.feature_view_projections
        if projection.name not in on_demand
        for feature in projection.features
    ]


def _moment(event_time: Timestamp) -> datetime | None:
    # Feast gives an entity that it does not have the time zero; nothing is as old as that.
    return event_time.ToDatetime(UTC) if event_time.seconds or event_time.nanos else None
