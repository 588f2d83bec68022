"""What training writes for warm-up is what the model server runs before a version serves."""

from __future__ import annotations

from pathlib import Path

from airloop.registry import SAVED_MODEL, download_artifacts
from airloop.training import warm_up_requests
from serving.model_server import warm_up
from serving.model_server.metrics import Metrics
from serving.model_server.servable import load_servable
from tests.training.conftest import Trained


def test_the_model_server_warms_a_candidate_up(trained: Trained, tmp_path: Path) -> None:
    assert warm_up_requests.FILE == warm_up.FILE
    folder = download_artifacts(trained.settings, trained.candidate.run_id, SAVED_MODEL, tmp_path)
    metrics = Metrics()
    servable = load_servable("planted", 1, folder, metrics=metrics)
    assert warm_up.warm_up(servable, folder) == 2
    runs = ':tensorflow:serving:runtime_latency_count{model_name="planted",API="Predict",runtime="TF1"} 2'
    assert runs in metrics.page().decode()
