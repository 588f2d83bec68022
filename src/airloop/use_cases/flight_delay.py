"""Will a flight arrive more than 15 minutes late? Asked two hours before its scheduled departure."""

from __future__ import annotations

from datetime import timedelta

from airloop.sources.nycflights_contract import FEEDS
from airloop.use_cases.flight_delay_expectations import CLEAN_TABLES
from airloop.use_cases.spec import (
    Behaviour,
    Elapsed,
    Erasure,
    FeatureTable,
    Gates,
    Label,
    ModelInput,
    RequestField,
    Rollout,
    Slicing,
    Source,
    Stream,
    TrainingPolicy,
    define,
)

TOPICS = {"flights": "flights", "movements": "movements", "weather": "weather"}


USE_CASE = define(
    name="flight_delay",
    owner="ml-platform",
    description="Probability that a flight from a New York airport arrives more than 15 minutes late.",
    sources=(Source(name="nycflights", adapter="nycflights", feeds=FEEDS),),
    streams=(
        Stream(name="airport_kafka", broker="kafka", connection="airloop_kafka", topics=TOPICS),
        Stream(name="airport_kinesis", broker="kinesis", connection="airloop_kinesis", topics=TOPICS),
    ),
    transform="spark_jobs.transforms.flight_delay",
    lookback=timedelta(days=8),
    clean_tables=CLEAN_TABLES,
    feature_tables=(
        FeatureTable(
            name="origin_hourly",
            entities=("origin",),
            features={
                "origin_departures_3h": "double",
                "origin_mean_departure_delay_1h": "double",
                "origin_mean_departure_delay_3h": "double",
                "origin_late_share_3h": "double",
                "origin_overdue_flights": "double",
            },
            time_to_live=timedelta(hours=6),
        ),
        FeatureTable(
            name="origin_carrier_hourly",
            entities=("origin", "carrier"),
            features={"origin_carrier_mean_departure_delay_3h": "double"},
            time_to_live=timedelta(hours=6),
        ),
        FeatureTable(
            name="origin_weather",
            entities=("origin",),
            features={
                "temperature_f": "double",
                "dew_point_f": "double",
                "relative_humidity_percent": "double",
                "wind_speed_mph": "double",
                "wind_gust_mph": "double",
                "precipitation_inches": "double",
                "pressure_millibars": "double",
                "visibility_miles": "double",
            },
            time_to_live=timedelta(hours=6),
        ),
        FeatureTable(
            name="carrier_hourly",
            entities=("carrier",),
            features={
                "carrier_delay_rate_7d": "double",
                "carrier_mean_arrival_delay_6h": "double",
            },
            time_to_live=timedelta(hours=24),
        ),
        FeatureTable(
            name="route_history",
            entities=("origin", "dest"),
            features={"route_delay_rate_7d": "double", "route_mean_arrival_delay_7d": "double"},
            time_to_live=timedelta(days=7),
        ),
        FeatureTable(
            name="tail_history",
            entities=("tail_number",),
            features={
                "tail_last_delay_minutes": "double",
                "tail_last_event_at": "long",
                "tail_seats": "double",
                "tail_year_built": "double",
            },
            time_to_live=timedelta(days=3),
        ),
    ),
    feature_definitions="feature_repo.flight_delay",
    feature_service="flight_delay_v1",
    prediction_lead=timedelta(hours=2),
    event_field="scheduled_departure",
    event_table="flights",
    request=(
        RequestField(name="origin", type="string", description="IATA code of the origin", example="JFK"),
        RequestField(name="dest", type="string", description="IATA code of the destination", example="LAX"),
        RequestField(name="carrier", type="string", description="IATA code of the carrier", example="DL"),
        RequestField(
            name="tail_number",
            type="string",
            description="registration of the plane, if assigned",
            example="N327NW",
            required=False,
        ),
        RequestField(
            name="scheduled_departure",
            type="datetime",
            description="scheduled departure, with the origin's offset",
            example="2013-11-05T17:30:00-05:00",
        ),
        RequestField(
            name="scheduled_arrival",
            type="datetime",
            description="scheduled arrival, with the destination's offset",
            example="2013-11-05T20:55:00-08:00",
        ),
    ),
    inputs=(
        *(ModelInput(name=name, type="string", request_field=name) for name in ("origin", "dest", "carrier")),
        ModelInput(name="scheduled_departure_local", type="local_time", request_field="scheduled_departure"),
        ModelInput(name="scheduled_departure", type="instant", request_field="scheduled_departure"),
        ModelInput(name="scheduled_arrival", type="instant", request_field="scheduled_arrival"),
        *(
            ModelInput(name=name, type="double")
            for name in (
                "origin_departures_3h",
                "origin_mean_departure_delay_1h",
                "origin_mean_departure_delay_3h",
                "origin_late_share_3h",
                "origin_overdue_flights",
                "origin_carrier_mean_departure_delay_3h",
                "temperature_f",
                "dew_point_f",
                "relative_humidity_percent",
                "wind_speed_mph",
                "wind_gust_mph",
                "precipitation_inches",
                "pressure_millibars",
                "visibility_miles",
                "carrier_delay_rate_7d",
                "carrier_mean_arrival_delay_6h",
                "route_delay_rate_7d",
                "route_mean_arrival_delay_7d",
                "tail_last_delay_minutes",
                "tail_seats",
                "tail_year_built",
            )
        ),
        ModelInput(name="tail_last_event_at", type="instant"),
    ),
    elapsed=(
        Elapsed(name="scheduled_hours", since="scheduled_departure", until="scheduled_arrival"),
        Elapsed(name="tail_idle_hours", since="tail_last_event_at", until="scheduled_departure"),
    ),
    label=Label(
        name="arrived_late",
        description="1 if the flight arrives more than 15 minutes late (the US DOT's definition), else 0; "
        "cancelled and diverted flights have none",
        matures_after=timedelta(hours=24),
    ),
    training=TrainingPolicy(
        model_builder="airloop.training.residual_mlp:build",
        parameters={
            "width": 96,
            "blocks": 2,
            "dropout": 0.3,
            "embedding_size": 12,
            "category_dropout": 0.2,
            "input_dropout": 0.1,
            "quantile_bins": 8,
            "learning_rate": 0.004,
            "weight_decay": 0.02,
            "weight_average": 0.995,
            "batch_size": 1024,
            "max_epochs": 6,
            "patience_epochs": 2,
        },
        train_days=119,
        validation_days=21,
        test_days=28,
        when_stale="retrain",
    ),
    gates=Gates(
        baseline=("carrier", "scheduled_departure_local_hour"),
        min_test_rows=1000,
        min_test_positives=100,
        min_roc_auc_gain_over_baseline=0.01,
        max_roc_auc_loss_to_champion=0.002,
        max_log_loss_excess_over_champion=0.002,
        slices=(
            Slicing(name="carrier", input="carrier"),
            Slicing(name="origin", input="origin"),
            Slicing(name="hour", input="scheduled_departure_local", edges=(6, 10, 14, 18)),
            Slicing(name="precipitation_inches", input="precipitation_inches", edges=(0.001,)),
            Slicing(name="visibility_miles", input="visibility_miles", edges=(3,)),
        ),
        # A storm that the weeks before had none of may cost this much in a slice before it is a reason.
        max_slice_log_loss_excess_over_baseline=0.02,
        behaviours=(
            Behaviour(
                name="later_in_the_day",
                changes={
                    "scheduled_departure_local": 3,
                    "scheduled_departure": 3,
                    "scheduled_arrival": 3,
                    "tail_last_event_at": 3,
                },
                only={"scheduled_departure_local": (6, 15)},
                effect="rises",
                why="delays add up over a day, so three hours later is not better",
            ),
            Behaviour(
                name="inbound_delay",
                changes={"tail_last_delay_minutes": 45},
                effect="rises",
                why="a plane that comes in later does not leave earlier",
            ),
            Behaviour(
                name="congestion",
                changes={"origin_mean_departure_delay_1h": 20, "origin_mean_departure_delay_3h": 20},
                effect="rises",
                why="when other flights leave later, this one does not leave earlier",
            ),
        ),
    ),
    rollout=Rollout(replayed_requests=64, max_absolute_difference=1e-5, load_timeout_seconds=120),
    erasure=Erasure(subject="tail_number", models="retrain"),
)
