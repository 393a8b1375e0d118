"""What docker/monitoring asks Prometheus for is what the backend tells it."""

import json
import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from backend.jobs.queue import get_job_queue
from backend.services import get_services
from backend.web.app import create_app
from backend.worker.jobs import run_turn
from docker.passwords import BACKEND_USER
from tests.backend.conftest import MakeSettings
from tests.backend.fake_label_studio import PROJECT
from tests.backend.garage import Garage
from tests.backend.http_server import HttpServer
from tests.promtool import assert_promtool_finds_no_fault

MONITORING = Path(__file__).resolve().parents[3] / "docker" / "monitoring"
DASHBOARD: dict[str, Any] = json.loads((MONITORING / "grafana/dashboards/carcond.json").read_text(encoding="utf-8"))
TARGETS = [target for panel in DASHBOARD["panels"] for target in panel["targets"]]
GROUPS = yaml.safe_load((MONITORING / "alerts.yml").read_text(encoding="utf-8"))["groups"]
RULES = [rule for group in GROUPS for rule in group["rules"]]
ALERTS = [rule for rule in RULES if "alert" in rule]
RECORDED = {rule["record"] for rule in RULES if "record" in rule}
SCRAPE = yaml.safe_load((MONITORING / "prometheus.yml").read_text(encoding="utf-8"))["scrape_configs"][0]
EXPRESSIONS = [target["expr"] for target in TARGETS] + [rule["expr"] for rule in RULES]
# Prometheus adds these itself.
OF_EVERY_TARGET = {"job", "instance"}


@pytest.fixture
def told(redis_url: str, server: HttpServer, make_settings: MakeSettings) -> Iterator[dict[str, set[str]]]:
    """Every series that a backend tells, with the names of its labels."""
    make_settings(REDIS_URL=redis_url, LABEL_STUDIO_URL=server.url)
    garage = Garage(get_services(), server)
    ids = garage.add_photos(40)
    garage.label(*ids[:30])
    run_turn(PROJECT)
    client = create_app(garage.services).test_client()
    client.get("/health")
    families = text_string_to_metric_families(client.get("/metrics").text)
    series: dict[str, set[str]] = {"up": set()}
    for sample in (sample for family in families for sample in family.samples):
        series.setdefault(sample.name, set()).update(sample.labels)
    yield series
    garage.services.store.close()
    garage.services.photos.close()
    get_job_queue().redis.close()


@cache
def parse(expression: str) -> promql_parser.Expr:
    return promql_parser.parse(expression)


def nodes(expression: str, kind: type) -> list[Any]:
    found: list[Any] = []
    promql_parser.walk(parse(expression), lambda node: found.append(node) if isinstance(node, kind) else None)
    return found


def groups_by(expression: str) -> set[str]:
    """The labels by which it is added up, at any depth."""
    aggregations = nodes(expression, promql_parser.AggregateExpr)
    return {label for one in aggregations if one.modifier for label in one.modifier.labels}


def test_every_series_that_is_asked_for_is_told_with_its_labels(told: Mapping[str, set[str]]) -> None:
    for expression in EXPRESSIONS:
        selectors = nodes(expression, promql_parser.VectorSelector)
        labels = OF_EVERY_TARGET.copy()
        for selector in selectors:
            if selector.name in RECORDED:
                continue
            assert selector.name in told, expression
            labels |= told[selector.name]
            named = {matcher.name for matcher in selector.matchers.matchers}
            assert named <= told[selector.name] | OF_EVERY_TARGET, expression
        assert groups_by(expression) <= labels, expression


def test_all_series_of_an_expression_are_found() -> None:
    expression = 'sum by (le) (rate(a_bucket{b="c"}[5m])) / on() (d > 0)'
    assert [selector.name for selector in nodes(expression, promql_parser.VectorSelector)] == ["a_bucket", "d"]
    assert groups_by(expression) == {"le"}


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target["expr"])
def test_a_legend_names_labels_that_are_left(target: Mapping[str, str]) -> None:
    named = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
    assert named <= groups_by(target["expr"]) | OF_EVERY_TARGET
    # All but the borders of a histogram's buckets: two lines of one name could not be told apart.
    assert groups_by(target["expr"]) - {"le"} <= named


def test_copies_of_the_backend_which_tell_the_same_are_not_added_up() -> None:
    for expression in EXPRESSIONS:
        for aggregation in nodes(expression, promql_parser.AggregateExpr):
            names = {selector.name for selector in nodes(str(aggregation), promql_parser.VectorSelector)}
            if str(aggregation.op) == "sum":
                assert all(name.startswith("carcond_http_") for name in names), expression


def test_prometheus_logs_in_where_the_backend_is() -> None:
    assert SCRAPE["job_name"] == "carcond"
    assert SCRAPE["basic_auth"] == {"username": BACKEND_USER, "password_file": "/secrets/prometheus/password"}
    assert SCRAPE["dns_sd_configs"][0]["port"] == 9090
    jobs = {job for expression in EXPRESSIONS for job in re.findall(r'job="(\w+)"', expression)}
    assert jobs == {"carcond"}


def test_the_dashboard_reads_the_data_source_that_is_provisioned() -> None:
    provisioned = yaml.safe_load((MONITORING / "grafana/datasources/prometheus.yml").read_text(encoding="utf-8"))
    (source,) = provisioned["datasources"]
    used = [panel["datasource"] for panel in DASHBOARD["panels"]] + [target["datasource"] for target in TARGETS]
    assert all(one == {"type": source["type"], "uid": source["uid"]} for one in used)


def test_panels_lie_side_by_side() -> None:
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(ids)) == len(ids)
    cells: set[tuple[int, int]] = set()
    for place in (panel["gridPos"] for panel in DASHBOARD["panels"]):
        assert place["x"] + place["w"] <= 24
        covered = {(x + place["x"], y + place["y"]) for x in range(place["w"]) for y in range(place["h"])}
        assert not cells & covered
        cells |= covered


def test_each_query_of_a_panel_has_a_name_of_its_own() -> None:
    for panel in DASHBOARD["panels"]:
        names = [target["refId"] for target in panel["targets"]]
        assert len(set(names)) == len(names) > 0
        assert panel["title"]
        assert panel["type"] in ("timeseries", "stat")


def test_every_alert_says_what_it_means() -> None:
    names = [alert["alert"] for alert in ALERTS]
    assert len(set(names)) == len(names)
    for alert in ALERTS:
        assert alert["annotations"]["summary"].endswith(".")
        named = set(re.findall(r"\$labels\.(\w+)", alert["annotations"]["summary"]))
        assert named <= groups_by(alert["expr"])


def test_prometheus_can_read_its_configuration_and_rules() -> None:
    assert_promtool_finds_no_fault("config", "--syntax-only", str(MONITORING / "prometheus.yml"))
    assert_promtool_finds_no_fault("rules", str(MONITORING / "alerts.yml"))
