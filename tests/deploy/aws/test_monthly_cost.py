"""What the guide says it costs: computed, from the templates' own numbers where they have them."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from airloop.settings import REPOSITORY

FOLDER = REPOSITORY / "deploy" / "aws"
LOAD = tomllib.loads((FOLDER / "load.toml").read_text("utf-8"))
PRICES = tomllib.loads((FOLDER / "prices.toml").read_text("utf-8"))


@pytest.fixture
def monthly_cost(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(FOLDER))
    import monthly_cost

    return monthly_cost


def _of(resources: dict[str, dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [item["Properties"] for item in resources.values() if item["Type"] == kind]


def test_the_guide_has_the_table_that_is_computed(monthly_cost: Any) -> None:
    table = monthly_cost.table(*monthly_cost.read(FOLDER / "load.toml", FOLDER / "prices.toml"))
    assert table in (REPOSITORY / "docs" / "how-to" / "run-on-aws.md").read_text("utf-8")


def test_every_price_is_used_and_says_where_it_is_published(monthly_cost: Any) -> None:
    used: set[str] = set()

    class Noting(dict[str, float]):
        def __missing__(self, name: str) -> float:
            raise KeyError(name)

        def __getitem__(self, name: str) -> float:
            used.add(name)
            return super().__getitem__(name)

    prices = Noting({name: item["usd"] for name, item in PRICES["prices"].items()})
    list(monthly_cost.lines(LOAD, prices))
    assert used == set(prices)
    assert all(re.fullmatch(r"[a-z0-9/-]+/", item["page"]) for item in PRICES["prices"].values())
    assert PRICES["looked_up_live"] is False


def test_a_line_is_what_it_says(monthly_cost: Any) -> None:
    _, prices = monthly_cost.read(FOLDER / "load.toml", FOLDER / "prices.toml")
    by_part = {line.part: line.usd for line in monthly_cost.lines(LOAD, prices)}
    assert by_part["services (Fargate)"] == pytest.approx(730 * (12 * 0.04048 + 33 * 0.004445))
    assert by_part["training (SageMaker)"] == pytest.approx(6 * 0.5 * 0.242)


def test_what_always_runs_is_what_the_templates_have(resources: dict[str, dict[str, Any]]) -> None:
    always = LOAD["always"]
    tasks = {
        item["Family"].removeprefix("airloop-production-"): item
        for item in _of(resources, "AWS::ECS::TaskDefinition")
    }
    counts = {
        item["ServiceName"]: item.get("DesiredCount", 1) for item in _of(resources, "AWS::ECS::Service")
    }
    assert (
        sum(int(tasks[name]["Cpu"]) / 1024 * count for name, count in counts.items())
        == always["fargate_vcpus"]
    )
    assert (
        sum(int(tasks[name]["Memory"]) / 1024 * count for name, count in counts.items())
        == always["fargate_gib"]
    )
    assert len(_of(resources, "AWS::ElasticLoadBalancingV2::LoadBalancer")) == always["balancers"]
    assert len(_of(resources, "AWS::EC2::NatGateway")) == always["nat_gateways"]
    assert len(_of(resources, "AWS::SecretsManager::Secret")) == always["secrets"]
    assert len(_of(resources, "AWS::CloudWatch::Alarm")) == always["alarms"]
    (database,) = _of(resources, "AWS::RDS::DBInstance")
    assert (database["AllocatedStorage"], database["DBInstanceClass"]) == (
        str(always["database_gib"]),
        "db.t4g.medium",
    )
    (cache,) = _of(resources, "AWS::ElastiCache::ReplicationGroup")
    assert (cache["ReplicasPerNodeGroup"] + 1, cache["CacheNodeType"]) == (
        always["cache_nodes"],
        "cache.t4g.small",
    )
    (stream,) = _of(resources, "AWS::Kinesis::Stream")
    assert (stream["ShardCount"], stream["RetentionPeriodHours"]) == (always["stream_shards"], 72)


def test_the_expensive_lines_name_the_place_they_are_changed() -> None:
    guide = (REPOSITORY / "docs" / "how-to" / "run-on-aws.md").read_text("utf-8")
    assert "deploy/aws/load.toml" in guide
    assert "not looked up live" in guide
    assert Path("deploy/aws/prices.toml").as_posix() in guide
