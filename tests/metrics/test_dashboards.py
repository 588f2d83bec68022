"""Dashboards and rules ask for what there is: each query is asked of a Prometheus that reads the product."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import combinations
from typing import Any

import pytest
import yaml

from tests.metrics.conftest import OBSERVABILITY, Prometheus, dashboards, rules

SECONDS = 25
"""For what was sent last to be read twice and for rules over rules."""
DASHBOARDS = dashboards()
SUBSTITUTED = {"$__rate_interval": "5m", "$use_case": ".+"}
KNOWN_UNITS = {"bytes", "dateTimeAsIso", "none", "percentunit", "reqps", "s", "short", "µs"}
SELECTOR = re.compile(r"(?<![\w:.])([a-zA-Z_:][\w:]*+)(?!\s*\()(\{[^}]*\})?")
NOT_METRICS = re.compile(
    r"\b(?:by|on|without|ignoring|group_left|group_right)\s*\([^)]*\)|\b(?:and|or|unless|offset)\b|\[[^\]]*\]"
)


def panels(dashboard: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield from (panel for panel in dashboard["panels"] if panel["type"] != "row")


def substituted(expression: str) -> str:
    for name, value in SUBSTITUTED.items():
        expression = expression.replace(name, value)
    return expression


def selectors(expression: str) -> set[str]:
    """The series that an expression reads, each as it selects them."""
    strings: list[str] = []

    def put_aside(match: re.Match[str]) -> str:
        strings.append(match[0])
        return f'"{len(strings) - 1}"'

    bare = NOT_METRICS.sub(" ", re.sub(r'"[^"]*"', put_aside, expression))
    return {
        re.sub(r'"(\d+)"', lambda match: strings[int(match[1])], name + (labels or ""))
        for name, labels in SELECTOR.findall(bare)
    }


def test_selectors_are_found_in_an_expression() -> None:
    expression = (
        'sum by (a) (rate(b_total{c=~"d[)].+"}[5m] offset 1h)) / on (e) :f:g > 0.5 or vector(0) and h{i="j"}'
    )
    assert selectors(expression) == {'b_total{c=~"d[)].+"}', ":f:g", 'h{i="j"}'}


QUERIES = {
    f"{name}: {panel['title']}: {target['refId']}": substituted(target["expr"])
    for name, dashboard in DASHBOARDS.items()
    for panel in panels(dashboard)
    for target in panel["targets"]
}
# The labels of an alert that fires are those of a broken system, which this one is not.
RECORDED = {rule["record"]: rule["expr"] for rule in rules() if "record" in rule}
ALERTS = {rule["alert"]: rule["expr"] for rule in rules() if "alert" in rule}


def test_every_query_of_every_panel_returns_data(watched: Prometheus) -> None:
    left = set(watched.without_data(list(QUERIES.values()), SECONDS))
    empty = [f"{where}: {query}" for where, query in QUERIES.items() if query in left]
    assert not empty, "\n".join(empty)


def test_every_rule_reads_series_that_there_are(watched: Prometheus) -> None:
    assert watched.without_data(list(RECORDED), SECONDS) == []
    read = {
        selector
        for expression in (*RECORDED.values(), *ALERTS.values())
        for selector in selectors(expression)
    }
    assert len(read) > len(ALERTS)
    assert watched.without_data(sorted(read), SECONDS) == []


def test_a_query_of_a_metric_that_is_not_there_is_found(watched: Prometheus) -> None:
    misspelt = "sum(rate(airloop_gatway_requests_total[1m]))"
    assert watched.without_data([misspelt, "up"], 0) == [misspelt]


def test_a_figure_below_zero_arrives_as_it_is(watched: Prometheus) -> None:
    (gain,) = watched.query("airloop_quality_gain")
    assert float(gain["value"][1]) == pytest.approx(-0.02)
    assert gain["metric"]["use_case"] == "flight_delay"


def test_what_a_variable_offers_is_there(watched: Prometheus) -> None:
    for dashboard in DASHBOARDS.values():
        for variable in dashboard["templating"]["list"]:
            if variable["type"] == "query":
                asked = re.fullmatch(r"label_values\((\w+), (\w+)\)", variable["query"]["query"])
                assert asked
                found = watched.query(f"count by ({asked[2]}) ({asked[1]})")
                assert {sample["metric"].get(asked[2]) for sample in found} == {"flight_delay"}


@pytest.mark.parametrize("name", DASHBOARDS)
def test_a_dashboard_can_be_read_at_a_glance(name: str) -> None:
    """Titles, descriptions and units everywhere; nothing overlaps or leaves the grid."""
    dashboard = DASHBOARDS[name]
    identifiers = [panel["id"] for panel in dashboard["panels"]]
    assert len(identifiers) == len(set(identifiers))
    for panel in panels(dashboard):
        assert panel["title"]
        assert panel["description"], panel["title"]
        assert panel["datasource"]["uid"] == "${datasource}"
        assert panel["fieldConfig"]["defaults"]["unit"] in KNOWN_UNITS
        assert all(target["datasource"]["uid"] == "${datasource}" for target in panel["targets"])
        assert panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24
    for one, other in combinations([panel["gridPos"] for panel in dashboard["panels"]], 2):
        apart = (
            one["x"] + one["w"] <= other["x"]
            or other["x"] + other["w"] <= one["x"]
            or one["y"] + one["h"] <= other["y"]
            or other["y"] + other["h"] <= one["y"]
        )
        assert apart, (one, other)
    declared = {variable["name"] for variable in dashboard["templating"]["list"]}
    used = set(re.findall(r"\$\{?(?!__)(\w+)", str(dashboard["panels"])))
    assert used <= declared


def test_dashboards_have_identities_of_their_own_and_their_data_source() -> None:
    assert len({dashboard["uid"] for dashboard in DASHBOARDS.values()}) == len(DASHBOARDS) == 4
    provisioned = OBSERVABILITY / "grafana" / "provisioning"
    (source,) = yaml.safe_load((provisioned / "datasources" / "airloop.yml").read_text("utf-8"))[
        "datasources"
    ]
    assert source["type"] == "prometheus"
    compose = yaml.safe_load((OBSERVABILITY.parents[1] / "docker-compose.yaml").read_text("utf-8"))
    assert re.fullmatch(r"http://(\w+):9090", source["url"])[1] in compose["services"]  # type: ignore[index]
    (provider,) = yaml.safe_load((provisioned / "dashboards" / "airloop.yml").read_text("utf-8"))["providers"]
    mounts = [volume.split(":")[1] for volume in compose["services"]["grafana"]["volumes"]]
    assert provider["options"]["path"] in mounts
