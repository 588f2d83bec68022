"""What the nycflights replay delivers: its four feeds, their keys and columns.

Belongs here: the contract alone, which a spec names and Airflow parses. Does not belong here: reading
anything (`nycflights`).
"""

from __future__ import annotations

from typing import Final

from airloop.use_cases.spec import Column, Feed

_FLIGHT_COLUMNS = (
    Column(name="flight_id", type="string"),
    Column(name="carrier", type="string"),
    Column(name="flight_number", type="long"),
    Column(name="tail_number", type="string", required=False),
    Column(name="origin", type="string"),
    Column(name="dest", type="string"),
)

FEEDS: Final = (
    Feed(
        name="flights",
        key=("flight_id",),
        event_time="published_at",
        columns=(
            *_FLIGHT_COLUMNS,
            Column(name="published_at", type="timestamp"),
            Column(name="scheduled_departure", type="timestamp"),
            Column(name="scheduled_departure_local", type="local_timestamp"),
            Column(name="scheduled_arrival", type="timestamp"),
            Column(name="scheduled_arrival_local", type="local_timestamp"),
            Column(name="distance_miles", type="double"),
        ),
    ),
    Feed(
        name="movements",
        key=("flight_id", "kind"),
        event_time="occurred_at",
        columns=(
            *_FLIGHT_COLUMNS,
            Column(name="kind", type="string"),
            Column(name="occurred_at", type="timestamp"),
            Column(name="delay_minutes", type="double"),
        ),
    ),
    Feed(
        name="weather",
        key=("origin", "reported_at"),
        event_time="reported_at",
        columns=(
            Column(name="origin", type="string"),
            Column(name="reported_at", type="timestamp"),
            Column(name="temperature_f", type="double", required=False),
            Column(name="dew_point_f", type="double", required=False),
            Column(name="relative_humidity_percent", type="double", required=False),
            Column(name="wind_speed_mph", type="double", required=False),
            Column(name="wind_gust_mph", type="double", required=False),
            Column(name="precipitation_inches", type="double", required=False),
            Column(name="pressure_millibars", type="double", required=False),
            Column(name="visibility_miles", type="double", required=False),
        ),
    ),
    Feed(
        name="planes",
        key=("tail_number",),
        event_time=None,
        columns=(
            Column(name="tail_number", type="string"),
            Column(name="year_built", type="long", required=False),
            Column(name="manufacturer", type="string", required=False),
            Column(name="model", type="string", required=False),
            Column(name="engines", type="long", required=False),
            Column(name="seats", type="long", required=False),
        ),
    ),
)
