"""How late will flights leave an airport, on average, in the hour that begins now?"""

from datetime import timedelta

from airloop.use_cases import flight_delay
from airloop.use_cases.gates import FigureGate, Gates, Slicing
from airloop.use_cases.rollout_policy import Rollout
from airloop.use_cases.spec import FeatureTable, Label, ModelInput, RequestField, Schedules, define
from airloop.use_cases.target import Regression
from airloop.use_cases.training_policy import TrainingPolicy

FLIGHTS = flight_delay.USE_CASE.lends("flights", "movements", "origin_hourly", "origin_weather")
OWN = FeatureTable(
    name="origin_next_hour",
    entities=("origin",),
    features={
        "origin_departures_due_1h": "double",
        "origin_inbound_delay_1h": "double",
        "origin_same_hour_delay_1d": "double",
        "origin_same_hour_delay_7d": "double",
    },
    time_to_live=timedelta(minutes=30),  # of the hour before it is none of this one's
    pushed=True,
)
EXAMPLE = "2013-11-05T17:00:00-05:00"
SMALLER = {"width": 64, "hidden_layers": 2, "batch_size": 128, "max_epochs": 30, "patience_epochs": 5}

USE_CASE = define(
    name="airport_congestion",
    owner="ml-platform",
    description="Mean departure delay of a New York airport's flights over the next hour, in minutes.",
    intended_use="People who staff gates and stands look at it on the hour, to prepare for the next one.",
    not_for=("one flight: it is a mean", "hours other than the next", "anything about safety"),
    limits=(
        "Cancelled flights never leave: on a day of storms the mean understates the trouble.",
        "An hour in which no flight leaves has no label, and was left out of training.",
        "The data are flights of 2013 replayed over the present calendar.",
    ),
    schedules=Schedules(training="30 2 * * *"),
    transform="spark_jobs.transforms.airport_congestion",
    lookback=timedelta(days=8),
    clean_tables=FLIGHTS.clean,
    feature_tables=(*FLIGHTS.features, OWN),
    feature_definitions="feature_repo.airport_congestion",
    feature_service="airport_congestion_v1",
    prediction_lead=timedelta(0),
    event_field="hour",
    request=(
        RequestField(name="origin", type="string", description="IATA code of the airport", example="JFK"),
        RequestField(name="hour", type="datetime", description="full hour that begins", example=EXAMPLE),
    ),
    inputs=(
        ModelInput(name="origin", type="string", request_field="origin"),
        ModelInput(name="hour_local", type="local_time", request_field="hour"),
        *(ModelInput(name=n, type="double") for table in (*FLIGHTS.features, OWN) for n in table.features),
    ),
    label=Label(
        name="mean_departure_delay_minutes",
        description="mean delay of the flights that leave in the hour, negative when early",
        target=Regression(unit="minutes"),
        matures_after=timedelta(hours=24),
    ),
    training=TrainingPolicy(
        model_builder="airloop.training.tabm:build",
        parameters=flight_delay.USE_CASE.training.parameters | SMALLER | {"outcome_weight": 0},
        train_days=119,
        validation_days=21,
        test_days=28,
    ),
    gates=Gates(
        baseline=("origin", "hour_local_hour"),
        min_test_rows=500,
        figures={"root_mean_squared_error": FigureGate(beyond_chance=True, max_loss_to_champion=0.5)},
        slices=(Slicing(name="origin", input="origin"),),
        max_slice_loss_excess_over_baseline=20.0,
    ),
    rollout=Rollout(
        replayed_requests=64, max_absolute_difference=1e-3, load_timeout_seconds=120, when_quiet="go_on"
    ),
)
