"""The page says whether it is about a rollout or an experiment."""

from __future__ import annotations

from typing import Literal

import pytest

from airloop.references import ExperimentResult, StageDecision
from serving.rollout_page import EXPERIMENT, page_of


def decision(
    stage: str, decided: Literal["go_on", "roll_back"], result: ExperimentResult | None
) -> StageDecision:
    return StageDecision(
        name="flight_delay",
        version=4,
        stage=stage,
        decision=decided,
        reason="version 4 is better",
        champion=1,
        since="2026-11-27T13:50:53+00:00",
        until="2026-11-27T13:54:53+00:00",
        requests=100,
        checks=(),
        experiment=result,
    )


RESULT = ExperimentResult(
    name="wider",
    champion=1,
    version=4,
    share=0.5,
    control_units=50,
    treatment_units=50,
    sample_ratio_p_value=1.0,
    sample_ratio_mismatch=False,
    measures=(),
)


@pytest.mark.parametrize(
    ("stage", "decided", "result", "title", "badge"),
    [
        ("shadow", "go_on", None, "flight_delay: rollout of version 4", "goes on"),
        (EXPERIMENT, "go_on", RESULT, "flight_delay: experiment wider with version 4", "ended"),
        (EXPERIMENT, "roll_back", None, "flight_delay: experiment with version 4", "rolled back"),
    ],
)
def test_the_page_says_what_it_is_about(stage, decided, result, title, badge):
    page = page_of("flight_delay", "a run", [decision(stage, decided, result)])
    assert f"<h1>{title}</h1>" in page
    assert f">{badge}</span>" in page
