"""Schemathesis against the gateway's own OpenAPI: no server error, no answer that is not documented."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from airloop.prediction_log.spool import Spool
from airloop.training.explain import background_document
from airloop.use_cases.flight_delay import USE_CASE
from serving.staged import explanation_file
from tests.serving.gateway.conftest import VERSION, Loop, gateway_app, listening
from tests.serving.rollout.stack import some_rows

CHECKS = (
    *("not_a_server_error", "status_code_conformance", "content_type_conformance"),
    *("response_schema_conformance", "response_headers_conformance"),
)
TYPES = {"string": object, "double": np.float32}


@pytest.fixture
def whole_gateway(loop: Loop, tmp_path: Path) -> Iterator[str]:
    """A gateway with everything: features, a champion and its explainer, spools."""
    types = {item.name: TYPES.get(item.type, np.int64) for item in USE_CASE.inputs}
    rows = {name: np.array(values, types[name]) for name, values in some_rows(USE_CASE).items()}
    file = explanation_file(loop.settings.models_dir, USE_CASE.model_name, VERSION)
    file.parent.mkdir(exist_ok=True)
    file.write_text(background_document(rows))
    with (
        closing(Spool(tmp_path / "predictions")) as spool,
        closing(Spool(tmp_path / "outcomes")) as outcomes,
        listening(gateway_app(loop.settings, spool=spool, outcomes=outcomes)) as url,
    ):
        yield url
    file.unlink()


@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("paths", "examples", "cases"),
    # An explanation asks the model about thousands of rows, so it is asked less often.
    [("(predict|predict_batch|feedback|flight_delay|z|metrics)$", 60, 300), ("explain$", 8, 20)],
)
def test_nothing_that_a_client_sends_gets_an_undocumented_answer(
    paths: str, examples: int, cases: int, whole_gateway: str, tmp_path: Path
) -> None:
    done = subprocess.run(
        [
            *(str(Path(sys.executable).with_name("schemathesis")), "run", f"{whole_gateway}/openapi.json"),
            *("--checks", ",".join(CHECKS), "--include-path-regex", paths),
            *("--max-examples", str(examples), "--seed", "1", "--generation-database", "none"),
            *("--phases", "examples,coverage,fuzzing", "--no-color", "--request-timeout", "60"),
        ],
        cwd=tmp_path,
        env={**os.environ, "NO_PROXY": "*"},
        capture_output=True,
        text=True,
        check=False,
    )
    report = done.stdout[-6000:] + done.stderr[-2000:]
    print(report)
    assert done.returncode == 0, report
    generated = re.search(r"(\d+) generated", report)
    assert generated is not None, report
    assert int(generated[1]) > cases, "an OpenAPI without operations would pass too"
