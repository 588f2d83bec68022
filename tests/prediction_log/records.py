"""Records of predictions that were never made."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from airloop.prediction_log.record import PredictionRecord

AT = datetime(2026, 11, 20, 12, tzinfo=UTC)


def record(number: int) -> PredictionRecord:
    """A record that is told from others by `number`."""
    return PredictionRecord(
        request_id=f"request {number}",
        trace_id="0" * 31 + "1",
        instance=0,
        caller="web",
        use_case="flight_delay",
        model="flight_delay",
        version=3,
        variant="champion",
        predicted_at=AT + timedelta(minutes=abs(number)),
        prediction_time=AT,
        answer=(0.25,),
        latency_seconds=0.01,
        entities={"origin": "JFK"},
        request={"origin": "JFK", "scheduled_departure": "2026-11-20T14:00:00-05:00"},
        features={"temperature_f": 31.5, "wind_gust_mph": None},
        missing_features=["wind_gust_mph"],
    )
