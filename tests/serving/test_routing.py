"""Routing: one document that gateways follow at once, and a draw that is sticky, even and salted."""

from __future__ import annotations

import threading
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import chi2_contingency, kstest

from airloop.errors import RolloutError
from airloop.prediction_log import variants
from airloop.prediction_request import example_body, parse_request
from airloop.routing_document import Routing, Split, Stage, routing_file
from airloop.settings import Settings
from airloop.use_cases.flight_delay import USE_CASE
from serving.gateway.versions import choose, unit_of
from serving.model_server_client import CHAMPION
from serving.routing import LiveRouting, changing_routing, draw, read_routing, write_routing

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
CANARY = Routing(shadow=4, split=Split(version=4, share=0.25, salt="rollout of 4"))


def request(**changes: object):
    import json

    return parse_request(USE_CASE, json.dumps(example_body(USE_CASE) | changes))


def flights(count: int):
    return [request(origin=f"A{number}") for number in range(count)]


def test_a_draw_is_the_same_every_time_and_even_over_units() -> None:
    drawn = [draw("salt", f"unit {number}") for number in range(20_000)]
    assert drawn == [draw("salt", f"unit {number}") for number in range(20_000)]
    assert kstest(drawn, "uniform").pvalue > 0.001


def test_salts_draw_independently_of_one_another() -> None:
    units = [f"unit {number}" for number in range(20_000)]
    first, second = ([draw(salt, unit) < 0.5 for unit in units] for salt in ("a", "b"))
    assert chi2_contingency(np.histogram2d(first, second, 2)[0]).pvalue > 0.001


def test_no_routing_is_the_champion_without_a_copy() -> None:
    choice = choose(Routing(), USE_CASE, [request()], "id")
    assert (choice.version, choice.variant, choice.shadow) == (CHAMPION, variants.CHAMPION, None)


def test_a_canary_gets_its_share_and_whoever_asks_again_the_same_version() -> None:
    found = [choose(CANARY, USE_CASE, [flight], "id") for flight in flights(2000)]
    again = [choose(CANARY, USE_CASE, [flight], "another id") for flight in flights(2000)]
    assert found == again
    share = sum(choice.variant == variants.CANARY for choice in found) / len(found)
    # Within four standard deviations of a binomial share.
    assert abs(share - 0.25) < 4 * (0.25 * 0.75 / 2000) ** 0.5
    assert {choice.version for choice in found if choice.variant == variants.CANARY} == {4}
    assert {choice.shadow for choice in found if choice.variant == variants.CHAMPION} == {4}


def test_a_larger_share_keeps_those_that_it_had() -> None:
    larger = Routing(split=CANARY.split.model_copy(update={"share": 0.5}))
    for flight in flights(300):
        if choose(CANARY, USE_CASE, [flight], "id").variant == variants.CANARY:
            assert choose(larger, USE_CASE, [flight], "id").variant == variants.CANARY


def test_stickiness_is_by_the_fields_that_the_spec_names() -> None:
    assert unit_of(USE_CASE, request()) == unit_of(USE_CASE, request(tail_number="N1"))
    assert unit_of(USE_CASE, request()) != unit_of(USE_CASE, request(carrier="UA"))
    # One moment, told with another offset.
    assert unit_of(USE_CASE, request(scheduled_departure="2013-11-05T17:30:00-05:00")) == unit_of(
        USE_CASE, request(scheduled_departure="2013-11-05T22:30:00+00:00")
    )


def test_a_batch_is_answered_by_one_version_and_takes_no_part_in_an_experiment() -> None:
    batch = flights(3)
    drawn = {choose(CANARY, USE_CASE, batch, f"id {number}").variant for number in range(100)}
    assert drawn == {variants.CANARY, variants.CHAMPION}
    experiment = Routing(split=Split(version=4, share=0.5, salt="s", experiment="ab"))
    assert {choose(experiment, USE_CASE, batch, f"id {number}").variant for number in range(20)} == {
        variants.CHAMPION
    }
    single = {choose(experiment, USE_CASE, [flight], "id").variant for flight in flights(50)}
    assert single == {variants.CONTROL, variants.TREATMENT}


def test_what_is_written_holds_from_the_next_look_on(tmp_path: Path) -> None:
    settings = Settings(state_dir=tmp_path)
    settings.models_dir.mkdir()
    live = LiveRouting(routing_file(settings.models_dir, "m"))
    assert live.current() == Routing()
    for share in (0.05, 0.25, 0.5):
        routing = Routing(split=Split(version=4, share=share, salt="s"))
        write_routing(settings, "m", routing)
        assert live.current() == routing
    routing_file(settings.models_dir, "m").unlink()
    assert live.current() == Routing()


def test_an_unreadable_routing_gives_the_champion_everything_and_stops_a_rollout(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = Settings(state_dir=tmp_path)
    settings.models_dir.mkdir()
    write_routing(settings, "m", CANARY)
    live = LiveRouting(routing_file(settings.models_dir, "m"))
    assert live.current() == CANARY
    routing_file(settings.models_dir, "m").write_text('{"split": {"version": 4, "share": 7}}')
    assert live.current() == Routing()
    assert "the champion has all traffic" in caplog.text
    with pytest.raises(RolloutError, match="to be a routing document"):
        read_routing(settings, "m")


def test_changes_wait_for_one_another(tmp_path: Path) -> None:
    settings = Settings(state_dir=tmp_path)

    def count() -> None:
        for _ in range(25):
            with changing_routing(settings, "m") as routing:
                write_routing(settings, "m", Routing(shadow=(routing.shadow or 0) + 1))

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert read_routing(settings, "m").shadow == 100


def test_a_routing_survives_its_file(tmp_path: Path) -> None:
    settings = Settings(state_dir=tmp_path)
    settings.models_dir.mkdir()
    stage = Stage(run="r", version=4, name="shadow", since=NOW, rollout_since=NOW, looked_at=NOW)
    routing = CANARY.model_copy(update={"rollout": stage, "changed_by": "r"})
    write_routing(settings, "m", routing)
    assert read_routing(settings, "m") == routing
