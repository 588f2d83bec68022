"""Prometheus' and Alertmanager's own tools on their configurations; when alerts fire; what a person reads."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from airloop.settings import REPOSITORY
from tests.metrics.conftest import EXPORTER, OBSERVABILITY, rules

ALERTS: dict[str, dict[str, Any]] = {rule["alert"]: rule for rule in rules() if "alert" in rule}
CASES = sorted(Path(__file__).with_name("alerts").glob("*.yml"))


def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)


def test_the_configurations_are_valid() -> None:
    for command in (
        ("promtool", "check", "config", OBSERVABILITY / "prometheus.yml"),
        ("promtool", "check", "rules", "--lint-fatal", *(OBSERVABILITY / "rules").glob("*.yml")),
        ("amtool", "check-config", OBSERVABILITY / "alertmanager.yml"),
        (EXPORTER, "--check-config", f"--statsd.mapping-config={OBSERVABILITY / 'statsd_mapping.yml'}"),
    ):
        done = run(*command)
        assert done.returncode == 0, done.stdout + done.stderr


def test_an_expression_that_is_none_is_refused(tmp_path: Path) -> None:
    broken = tmp_path / "broken.yml"
    broken.write_text("groups: [{name: a, rules: [{alert: B, expr: 'sum(rate(c[5m])'}]}]", encoding="utf-8")
    assert run("promtool", "check", "rules", broken).returncode != 0


@pytest.mark.parametrize("case", CASES, ids=lambda path: path.stem)
def test_alerts_fire_when_they_should_and_else_do_not(case: Path, tmp_path: Path) -> None:
    # Rule files are looked for beside the tests.
    for path in (*(OBSERVABILITY / "rules").glob("*.yml"), case):
        shutil.copy(path, tmp_path)
    done = run("promtool", "test", "rules", tmp_path / case.name)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_is_tried_both_ways() -> None:
    tried = [
        (tried["alertname"], bool(tried["exp_alerts"]))
        for case in CASES
        for test in yaml.safe_load(case.read_text("utf-8"))["tests"]
        for tried in test.get("alert_rule_test", [])
    ]
    assert set(tried) == {(name, fires) for name in ALERTS for fires in (True, False)}


@pytest.mark.parametrize("name", ALERTS)
def test_an_alert_says_how_urgent_it_is_what_it_means_and_what_to_do(name: str) -> None:
    alert = ALERTS[name]
    assert alert["labels"]["severity"] in ("page", "notice")
    assert alert["annotations"].keys() == {"summary", "description", "runbook_url"}
    runbook = (REPOSITORY / alert["annotations"]["runbook_url"]).read_text("utf-8")
    assert runbook.startswith("# ")
    assert f"`{name}`" in runbook


def test_alertmanager_knows_each_alert_that_it_inhibits() -> None:
    document = yaml.safe_load((OBSERVABILITY / "alertmanager.yml").read_text("utf-8"))
    for rule in document["inhibit_rules"]:
        for matcher in (*rule["source_matchers"], *rule["target_matchers"]):
            name, pattern = re.fullmatch(r'(\w+)=~?"(.+)"', matcher).groups()  # type: ignore[union-attr]
            assert name == "alertname"
            for alternative in pattern.split("|"):
                assert any(re.fullmatch(alternative, alert) for alert in ALERTS), alternative
