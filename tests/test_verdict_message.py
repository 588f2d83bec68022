"""The Slack message of a verdict keeps Slack's limits, and says the outcome, the figures and what failed."""

from __future__ import annotations

import json
from typing import Any

import pytest

from airloop.verdict import Verdict, overridden
from airloop.verdict_message import LONGEST_TEXT, MOST_BLOCKS, MOST_RULES, message_of
from tests.test_verdict import OVERRIDE, candidate, champion, slice_of, verdict_on

TYPES = {"header", "section", "context", "actions"}


def check(blocks: list[dict[str, Any]]) -> str:
    """Hold `blocks` to Block Kit's reference; returns all text in them."""
    assert 0 < len(blocks) <= MOST_BLOCKS == 50
    texts = []
    for block in blocks:
        assert block["type"] in TYPES
        if block["type"] == "header":
            assert block["text"]["type"] == "plain_text"
            assert 0 < len(block["text"]["text"]) <= 150
            texts.append(block["text"]["text"])
        elif block["type"] == "actions":
            assert 1 <= len(block["elements"]) <= 25
            for button in block["elements"]:
                assert button["type"] == "button"
                assert len(button["text"]["text"]) <= 75
                assert len(button["url"]) <= 3000
        else:
            fields = block.get("fields") or block.get("elements") or [block["text"]]
            assert 1 <= len(fields) <= 10
            for field in fields:
                assert field["type"] == "mrkdwn"
                assert 0 < len(field["text"]) <= (2000 if "fields" in block else LONGEST_TEXT)
                texts.append(field["text"])
    json.dumps(blocks, allow_nan=False)
    return "\n".join(texts)


def many_failures() -> Verdict:
    return verdict_on(
        candidate=candidate(roc_auc=0.5, log_loss=0.9),
        slices=tuple(slice_of(f"colour=<{'x' * 900}{number}>", log_loss=9.0) for number in range(80)),
    )


def test_a_rejected_candidate_says_what_failed_and_beside_what() -> None:
    verdict = verdict_on(champion=champion(roc_auc=0.8))
    blocks = message_of(verdict, report_url="https://a.example/report", run_url="https://a.example/run")
    text = check(blocks)
    assert blocks[0]["text"]["text"] == "planted: candidate rejected"
    assert "*Candidate*\nROC AUC 0.7100\nlog loss 0.4000" in text
    assert "*Baseline*\nROC AUC 0.6400" in text
    assert "*Champion (version 3)*\nROC AUC 0.8000" in text
    assert ":x: *roc_auc_loss_to_champion* (0.09, must be &lt;= 0.002)" in text
    assert text.index(":x:") < text.index("rules passed")
    assert "paired bootstrap over days, 28 days" in text
    assert [button["url"] for button in blocks[-1]["elements"]] == [
        "https://a.example/report",
        "https://a.example/run",
    ]


def test_an_accepted_one_has_no_failures_and_no_links_that_lead_nowhere() -> None:
    blocks = message_of(verdict_on(champion=None))
    text = check(blocks)
    assert blocks[0]["text"]["text"] == "planted: candidate accepted"
    assert ":x:" not in text
    assert "none yet" in text
    assert all(block["type"] != "actions" for block in blocks)


def test_an_override_names_who_and_why() -> None:
    verdict = overridden(verdict_on(champion=champion(roc_auc=0.8)), OVERRIDE)
    text = check(message_of(verdict))
    assert "candidate accepted by Ada Lovelace" in text
    assert OVERRIDE.reason in text


def test_many_long_failures_keep_the_limits_and_say_how_many_there_are() -> None:
    verdict = many_failures()
    text = check(message_of(verdict, report_url="https://a.example"))
    assert text.count(":x:") == MOST_RULES
    assert f"and {len(verdict.failed) - MOST_RULES} more rules" in text


def test_what_was_not_measured_is_said() -> None:
    text = check(message_of(verdict_on(baseline=None, candidate=candidate(roc_auc=None), ranges={})))
    assert "*Baseline*\nROC AUC not measured" in text
    assert "(not measured, must be &gt;= 0.01)" in text
    assert "paired bootstrap" not in text


@pytest.mark.parametrize("name", ["<!channel>", "<https://a.example|click>", "a & b"])
def test_names_are_no_markup(name: str) -> None:
    text = check(message_of(verdict_on(slices=(slice_of(name, log_loss=9.0),))))
    assert name not in text
    assert "&lt;" in text or "&amp;" in text
