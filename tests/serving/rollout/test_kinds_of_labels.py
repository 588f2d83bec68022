"""Models of every kind of label pass their infra check, serve, are logged, explained and compared."""

from __future__ import annotations

import functools
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from airloop.prediction_log.spool import Spool
from airloop.prediction_request import example_body
from airloop.settings import Settings
from airloop.training.explain import background_document
from airloop.use_cases.flight_delay import USE_CASE
from airloop.use_cases.gates import FigureGate
from airloop.use_cases.spec import Label, UseCase
from airloop.use_cases.target import Multiclass, Quantiles, Regression, Target
from serving.analysis import checks_of
from serving.experiment_result import result_of
from serving.gateway.access import Access
from serving.gateway.app import create_app
from serving.gateway.online_features import OnlineFeatures
from serving.infra_check import infra_check
from serving.model_server_client import ModelServer
from serving.observations import observe
from serving.promote import promote
from serving.staged import explanation_file
from tests.serving.gateway.conftest import listening
from tests.serving.gateway.small_store import apply_features, fill_features, open_small_store
from tests.serving.rollout.stack import register, save_model, some_rows

TYPES = {"string": object, "double": np.float32}
CASES: list[tuple[Target, Any, str]] = [
    (Regression(unit="minutes"), 12.5, "mean_squared_error_excess"),
    (Quantiles(unit="minutes", levels=(0.1, 0.5, 0.9)), 12.5, "pinball_loss_excess"),
    (Multiclass(classes=("early", "on_time", "late")), "late", "log_loss_excess"),
]


def use_case_of(target: Target) -> UseCase:
    label = Label(name="lateness", description="", target=target, matures_after=USE_CASE.label.matures_after)
    figures = {target.figures[0].name: FigureGate(beyond_chance=True)}
    return USE_CASE.model_copy(
        update={
            "name": f"delay_{target.kind}",
            "label": label,
            "gates": USE_CASE.gates.model_copy(update={"figures": figures}),
        }
    )


@pytest.mark.parametrize(("target", "label", "rule"), CASES, ids=[target.kind for target, _, _ in CASES])
def test_a_model_is_served_and_compared_whatever_its_label_is(
    settings: Settings, tmp_path: Path, target: Target, label: Any, rule: str
) -> None:
    spec = use_case_of(target)
    settings = settings.model_copy(update={"state_dir": tmp_path / "state"})
    versions = []
    for bias in (0.0, 1.0):
        model = save_model(spec, bias, tmp_path / f"saved {bias}")
        versions.append(register(settings, spec, model, tmp_path / "artifacts"))
    champion, candidate = versions
    checked = infra_check(settings, spec, champion)
    assert checked.largest_difference < 1e-4
    promote(settings, spec, champion)
    infra_check(settings, spec, candidate, apart=False)
    rows = some_rows(spec)
    types = {item.name: TYPES.get(item.type, np.int64) for item in spec.inputs}
    background = {name: np.array(values, types[name]) for name, values in rows.items()}
    file = explanation_file(settings.models_dir, spec.model_name, champion)
    file.parent.mkdir(exist_ok=True)
    file.write_text(background_document(background))
    store = open_small_store(settings)
    apply_features(store, spec, tmp_path)
    fill_features(store, spec)
    began = datetime.now(UTC)
    with (
        closing(Spool(settings.prediction_spool_dir)) as spool,
        closing(Spool(settings.outcome_spool_dir)) as outcomes,
        ModelServer.of(settings) as server,
        listening(
            create_app(
                [spec],
                OnlineFeatures(functools.partial(open_small_store, settings)),
                server,
                predict_timeout=5.0,
                access=Access(settings.gateway_keys),
                models_dir=settings.models_dir,
                spool=spool,
                outcomes=outcomes,
            )
        ) as url,
        httpx.Client(base_url=f"{url}/v1/{spec.name}", timeout=60, trust_env=False) as client,
    ):
        body = example_body(spec)
        answer = client.post("/predict", json=body, headers={"X-Request-ID": "one"}).raise_for_status().json()
        names = target.answers if target.is_wide else ("lateness",)
        assert tuple(answer["prediction"]) == names
        batch = client.post("/predict_batch", json={"instances": [body, body]}).raise_for_status().json()
        assert [one["prediction"] for one in batch["predictions"]] == [answer["prediction"]] * 2

        explained = client.post("/explain", json=body).raise_for_status().json()
        assert (explained["prediction"], explained["scale"]) == (answer["prediction"], target.scale)
        total = explained["base"] + sum(one["contribution"] for one in explained["contributions"])
        told = np.array(list(answer["prediction"].values()))
        if target.kind == "multiclass":
            assert sum(told) == pytest.approx(1, abs=1e-6)
            assert total == pytest.approx(np.log(told.max() / (1 - told.max())), abs=1e-3)
        else:
            assert total == pytest.approx(told.mean(), abs=1e-3)

        outcome = {"outcomes": [{"request_id": "one", "label": label}]}
        assert client.post("/feedback", json=outcome).status_code == 202
        wrong = {"outcomes": [{"request_id": "one", "label": "nonsense"}]}
        assert client.post("/feedback", json=wrong).status_code == 422
        schema = httpx.get(f"{url}/openapi.json", trust_env=False).json()
        kept = schema["paths"][f"/v1/{spec.name}/feedback"]["post"]["requestBody"]["content"]
        assert "label" in kept["application/json"]["schema"]["properties"]["outcomes"]["items"]["required"]

    observed = observe(settings, spec, began, datetime.now(UTC) + timedelta(minutes=1))
    assert observed.requests == 3
    pairs = observed.pairs(champion, champion)
    assert np.allclose(pairs.champion, [told if target.is_wide else told[0]] * len(pairs.champion))
    assert pairs.known.label.tolist() == [target.number_of(label)]
    found = {
        check.name for check in checks_of(spec, observed.arm(champion), observed.arm(candidate), pairs.known)
    }
    assert rule in found
    result = result_of(observed, name="ab", version=candidate, champion=champion, share=0.5)
    assert result.measures[0].name == target.loss.name
