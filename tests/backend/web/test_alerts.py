"""Each alert fires when it should and not else: Prometheus itself evaluates the rules over made-up series."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.backend.web.test_monitoring import ALERTS, GROUPS, MONITORING
from tests.promtool import assert_rules_do

Series = Mapping[str, str]
"""Series -> its values, one a step, in promtool's notation."""

UP = {'up{job="carcond"}': "1x30"}
LABELS = "carcond_label_to_order_seconds"
_HTTP = "carcond_http_request_duration_seconds"


def labels(late: Iterable[int]) -> Series:
    """A hundred labels a step, of which so many are late; two copies of the backend report the same."""
    return {
        f'{LABELS}_{name}instance="{copy}"}}': values
        for copy in "ab"
        for name, values in _counted('bucket{le="10.0", ', "count{", late).items()
    }


def requests(route: str, bound: str, late: Iterable[int]) -> Series:
    """A hundred requests a step to each of two copies of the backend, of which so many are late."""
    good, all_ = f'{_HTTP}_bucket{{route="{route}", le="{bound}", ', f'{_HTTP}_count{{route="{route}", '
    return {
        f'{name}instance="{copy}"}}': values for copy in "ab" for name, values in _counted(good, all_, late).items()
    }


def failing(route: str, percent: int) -> Series:
    """Requests that are answered in time, so many of a hundred with an error."""
    errors = {f'carcond_http_requests_total{{route="{route}", status="503", instance="a"}}': f"0+{2 * percent}x400"}
    return {**requests(route, "1.0" if route == "/webhook" else "2.5", [0] * 400), **errors}


def _counted(good: str, all_: str, late: Iterable[int]) -> Series:
    total, in_time, counts, goods = 0, 0, ["0"], ["0"]
    for each in late:
        total, in_time = total + 100, in_time + 100 - each
        counts.append(str(total))
        goods.append(str(in_time))
    return {good: " ".join(goods), all_: " ".join(counts)}


# Steps are minutes; for the alerts over days they are half hours.
DAYS = 150
# Alert -> step at which it is looked at, series with which it fires then, and series with which it does not.
CASES: Mapping[str, tuple[int, Series, Mapping[str, Series]]] = {
    "BackendDown": (10, {'up{job="carcond"}': "0x30"}, {"up": UP}),
    "PartUnreachable": (
        10,
        {'carcond_part_reachable{part="redis"}': "0x30", 'carcond_part_reachable{part="store"}': "1x30"},
        {"both": {'carcond_part_reachable{part="redis"}': "1x30"}},
    ),
    "NoWorker": (10, {'carcond_workers{queue="turns"}': "0x30"}, {"one": {'carcond_workers{queue="turns"}': "1x30"}}),
    "LabelsNotLearned": (
        10,
        {'carcond_oldest_waiting_job_seconds{queue="turns"}': "601x30"},
        {"nine minutes": {'carcond_oldest_waiting_job_seconds{queue="turns"}': "540x30"}},
    ),
    "TurnsFail": (
        20,
        {'carcond_failed_jobs{queue="turns"}': "11x30"},
        {"a few": {'carcond_failed_jobs{queue="turns"}': "10x30"}},
    ),
    "VersionsRefused": (
        5,
        {'carcond_refused_versions_in_a_row{project="1"}': "5x30"},
        {"four": {'carcond_refused_versions_in_a_row{project="1"}': "4x30"}},
    ),
    "LabelsUnlearned": (
        20,
        {'carcond_unlearned_labels{project="1"}': "1x30"},
        {
            "none": {'carcond_unlearned_labels{project="1"}': "0x30"},
            "for a turn": {'carcond_unlearned_labels{project="1"}': "0x10 2x3 0x15"},
        },
    ),
    "NewOrderBudgetBurnsFast": (
        90,
        labels([20] * 90),
        {
            "within the budget": labels([1] * 90),
            "over, and gone": labels([50] * 60 + [0] * 30),
            "no labels": {f'{LABELS}_bucket{{le="10.0"}}': "5x100", f"{LABELS}_count": "9x100"},
        },
    ),
    "NewOrderBudgetBurnsSlowly": (
        DAYS,
        labels([2] * DAYS),
        {"within the budget": labels([0, 1] * (DAYS // 2)), "over, and gone": labels([3] * 100 + [0] * 50)},
    ),
    "WebhookBudgetBurnsFast": (
        90,
        requests("/webhook", "1.0", [2] * 90),
        {
            "within the budget": requests("/webhook", "1.0", [1, 0, 0, 0] * 23),
            "of another route": requests("/health", "1.0", [50] * 90),
        },
    ),
    "WebhookBudgetBurnsSlowly": (
        DAYS,
        requests("/webhook", "1.0", [0, 1] * (DAYS // 2)),
        {"none late": requests("/webhook", "1.0", [0] * DAYS)},
    ),
    "PredictBudgetBurnsFast": (
        90,
        requests("/predict", "2.5", [20] * 90),
        {"within the budget": requests("/predict", "2.5", [5] * 90)},
    ),
    "PredictBudgetBurnsSlowly": (
        DAYS,
        requests("/predict", "2.5", [2] * DAYS),
        {"within the budget": requests("/predict", "2.5", [0, 1] * (DAYS // 2))},
    ),
}


def promtool_test(alert: str, step: int, series: Series, fires: bool) -> dict[str, Any]:
    """A test for promtool: the number of firing alerts of this name."""
    minutes = 30 if step == DAYS else 1
    expression = f'count(ALERTS{{alertname="{alert}", alertstate="firing"}})'
    expected = [{"labels": "{}", "value": 1}] if fires else []
    return {
        "interval": f"{minutes}m",
        "input_series": [{"series": name, "values": values} for name, values in series.items()],
        "promql_expr_test": [{"expr": expression, "eval_time": f"{step * minutes}m", "exp_samples": expected}],
    }


def run(folder: Path, tests: list[dict[str, Any]]) -> None:
    file = folder / "alerts_test.yml"
    rules = str(MONITORING / "alerts.yml")
    whole = {
        "rule_files": [rules],
        "evaluation_interval": tests[0]["interval"],  # all tests of a file have one
        "group_eval_order": [group["name"] for group in GROUPS],  # else it is random, and steps are long
        "tests": tests,
    }
    file.write_text(yaml.safe_dump(whole))
    assert_rules_do(file)


@pytest.mark.parametrize("alert", CASES)
def test_an_alert_fires_when_it_should_and_not_else(tmp_path: Path, alert: str) -> None:
    step, fires, silent = CASES[alert]
    tests = [promtool_test(alert, step, series, fires=False) for series in silent.values()]
    run(tmp_path, [promtool_test(alert, step, fires, fires=True), *tests])


@pytest.mark.parametrize("route", ["/webhook", "/predict"])
def test_errors_burn_the_budget_as_slow_answers_do(tmp_path: Path, route: str) -> None:
    alert = f"{route.removeprefix('/').title()}BudgetBurnsFast"
    run(tmp_path, [promtool_test(alert, 90, failing(route, 20), fires=True)])
    run(tmp_path, [promtool_test(alert, 90, failing(route, 0), fires=False)])


def test_a_wrong_expectation_is_noticed(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="FAILED"):
        run(tmp_path, [promtool_test("NoWorker", 10, {'carcond_workers{queue="turns"}': "1x30"}, fires=True)])


def test_every_alert_is_tested() -> None:
    assert {alert["alert"] for alert in ALERTS} == CASES.keys()
