"""The documented schema is that of the code, and holds for the documents that it writes."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest

from airloop import verdict_schema
from airloop.verdict import overridden
from airloop.verdict_schema import FILE, is_current, main, schema_text
from tests.test_verdict import OVERRIDE, champion, verdict_on


def test_the_documented_schema_is_current(capsys: pytest.CaptureFixture[str]) -> None:
    assert is_current(), "run python -m airloop.verdict_schema"
    assert main(["--check"]) == 0


def test_a_schema_that_is_behind_is_told_and_written_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "verdict.schema.json"
    monkeypatch.setattr(verdict_schema, "FILE", file)
    monkeypatch.setattr(is_current, "__defaults__", (file,))
    file.write_text(FILE.read_text().replace("audit_record", "record"))
    assert main(["--check"]) == 1
    assert "is behind" in capsys.readouterr().out
    assert main([]) == 0
    assert main(["--check"]) == 0


def test_verdicts_keep_the_schema_and_others_do_not() -> None:
    schema = json.loads(schema_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    check = jsonschema.Draft202012Validator(schema)
    for verdict in (
        verdict_on(),
        verdict_on(champion=None, baseline=None, ranges={}, reliability=(), serving_cost=None),
        overridden(verdict_on(champion=champion(roc_auc=0.8)), OVERRIDE),
    ):
        check.validate(json.loads(verdict.model_dump_json()))
    document = json.loads(verdict_on().model_dump_json())
    for wrong in ({**document, "accepted": "perhaps"}, {**document, "mood": "good"}):
        assert not check.is_valid(wrong)


def test_every_part_is_described() -> None:
    schema = json.loads(schema_text())
    assert all(part.get("description") for part in schema["$defs"].values())
