"""Writes serving/observability/rules as the PrometheusRule of deploy/kubernetes.

tests/deploy says when to run it.

Belongs here: one form of the rules made from the other. Does not belong here: a rule.
"""

from __future__ import annotations

from pathlib import Path

import yaml

REPOSITORY = Path(__file__).resolve().parents[1]
RULES = REPOSITORY / "serving" / "observability" / "rules"
RESOURCE = REPOSITORY / "deploy" / "kubernetes" / "components" / "monitoring" / "rules.yaml"
HEAD = "# Made from serving/observability/rules by scripts/prometheus_rules.py: change them there.\n"


def resource() -> str:
    """The text of the PrometheusRule with all groups of all files."""
    groups = [
        group
        for path in sorted(RULES.glob("*.yml"))
        for group in yaml.safe_load(path.read_text("utf-8"))["groups"]
    ]
    document = {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {"name": "airloop"},
        "spec": {"groups": groups},
    }
    return HEAD + yaml.safe_dump(document, sort_keys=False, width=120, allow_unicode=True)


if __name__ == "__main__":
    RESOURCE.write_text(resource(), encoding="utf-8")
