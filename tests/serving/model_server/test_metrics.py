"""What is counted and timed, under TensorFlow Serving's names and at its path."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import grpc
import pytest
from prometheus_client.parser import text_string_to_metric_families

from serving.model_server.metrics import Counter, Histogram, exponential
from serving.model_server.option_files import PROMETHEUS_PATH
from tests.serving.model_server.clients import Client, config
from tests.serving.model_server.models import publish, publish_corrupt

NAME = ":tensorflow:serving:"


@pytest.fixture
def client(saved: dict[str, Path], tmp_path: Path, start_server: Callable[..., Client]) -> Client:
    publish(saved["bias1"], tmp_path / "delay", 1)
    started = start_server(prometheus_path=PROMETHEUS_PATH)
    started.reload(config(("delay", tmp_path / "delay", {})))
    return started


def samples(client: Client) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """Every sample of the page, as Prometheus' own parser reads it: it adds `_total` to a counter's name."""
    page = client.text(PROMETHEUS_PATH)
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
    }


def test_requests_are_counted_by_their_status_and_good_ones_are_timed(client: Client) -> None:
    for _ in range(3):
        client.score("delay")
    client.post("/v1/models/delay:predict", {"instances": [[1, 2, 3, 4]]})
    client.post("/v1/models/delay:predict", {"instances": [["no number"]]})
    with pytest.raises(grpc.RpcError):
        client.score("delay", version=9)
    found = samples(client)

    def of(name: str, **labels: str) -> float:
        return found[NAME + name, frozenset(labels.items())]

    assert of("request_count_total", model_name="delay", status="OK") == 4
    assert of("request_count_total", model_name="delay", status="INVALID_ARGUMENT") == 1
    assert of("request_count_total", model_name="delay", status="NOT_FOUND") == 1
    by_grpc = {"model_name": "delay", "API": "Predict", "entrypoint": "GRPC"}
    by_rest = {"model_name": "delay", "API": "predict", "entrypoint": "REST"}
    assert of("request_latency_count", **by_grpc) == 3
    assert of("request_latency_count", **by_rest) == 1
    assert of("request_latency_bucket", le="+Inf", **by_grpc) == 3
    assert of("request_latency_bucket", le="10", **by_grpc) == 0
    assert 0 < of("request_latency_sum", **by_grpc) < 60e6
    assert ':tensorflow:serving:request_count{model_name="delay",status="OK"} 4' in client.text(
        PROMETHEUS_PATH
    )
    assert of("runtime_latency_count", model_name="delay", API="Predict", runtime="TF1") == 4


def test_loads_are_counted_by_their_outcome(client: Client, tmp_path: Path) -> None:
    name = ":tensorflow:cc:saved_model:load_attempt_count"
    publish_corrupt(tmp_path / "delay", 2)
    client.reload(config(("delay", tmp_path / "delay", {"specific": [1, 2]})))
    page = client.text(PROMETHEUS_PATH)
    assert f'{name}{{model_path="{tmp_path}/delay/1",status="success"}} 1' in page
    assert f'{name}{{model_path="{tmp_path}/delay/2",status="fail"}} 1' in page


def test_the_page_is_there_only_when_it_is_asked_for(start_server: Callable[..., Client]) -> None:
    assert start_server().get(PROMETHEUS_PATH)[0] == 404


def test_the_text_is_that_of_tensorflow_serving() -> None:
    counter = Counter(":a:b", ("model_name",))
    counter.add('say "hi" \\', by=2)
    assert counter.lines() == [':a:b{model_name="say \\"hi\\" \\\\"} 2']
    histogram = Histogram(":a:c", ("x",), exponential(10, 1.8, 3))
    for value in (1, 10, 20, 1000):
        histogram.add(value, "y")
    assert histogram.lines() == [
        ':a:c_bucket{x="y",le="10"} 1',
        ':a:c_bucket{x="y",le="18"} 2',
        ':a:c_bucket{x="y",le="32.4"} 3',
        ':a:c_bucket{x="y",le="+Inf"} 4',
        ':a:c_sum{x="y"} 1031',
        ':a:c_count{x="y"} 4',
    ]
