"""The shipped label configs with room for a box and a reason, in Label Studio's own page."""

from typing import Any

import pytest
from label_studio_sdk.label_interface.interface import LabelInterface
from playwright.sync_api import Page, expect

from backend.label_studio.label_config import REASON_TAG
from backend.label_studio.provision import LABEL_CONFIGS, shipped_label_config
from scripts.stack import Stack
from tests.e2e.browser import photograph
from tests.e2e.scenario import Scenario

pytestmark = [pytest.mark.e2e, pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(600)]

_CHOSEN = {"boxes": ("Drawn at random", "Chosen"), "russian": ("Выбрано",)}


@pytest.fixture(scope="module", params=LABEL_CONFIGS[1:])
def name(request: pytest.FixtureRequest) -> str:
    """Name of a shipped label config."""
    return str(request.param)


@pytest.fixture(scope="module")
def scenario(name: str, stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Scenario:
    """A project of a label config with a dozen labels, and so with pre-labels for both tasks."""
    config = shipped_label_config(name)
    scenario = Scenario(stack, f"label config {name}", tmp_path_factory.mktemp(name), 40, config)
    for _ in range(12):
        scenario.label_next()
    scenario.wait_until_quiet()
    return scenario


@pytest.fixture(scope="module")
def pre_labels(scenario: Scenario) -> dict[int, dict[str, Any]]:
    """Task id -> the prediction of each unlabelled task."""
    unlabelled = [task.id for task in scenario.tasks() if not task.annotations]
    return {task_id: scenario.prediction(task_id) for task_id in unlabelled}


def _line(prediction: dict[str, Any]) -> str:
    (line,) = [r["value"]["text"][0] for r in prediction["result"] if r["from_name"] == REASON_TAG]
    return str(line)


def _boxes(regions: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [region for region in regions if region["type"] == "rectanglelabels"]


def test_pre_labels_are_valid_and_tell_version_confidences_and_why(
    name: str, scenario: Scenario, pre_labels: dict[int, dict[str, Any]]
) -> None:
    interface = LabelInterface(scenario.api.project(scenario.project_id).label_config)
    for prediction in pre_labels.values():
        said = {key: prediction[key] for key in ("result", "score", "model_version")}
        assert interface.validate_prediction(said, return_errors=True) == []  # type: ignore[no-untyped-call]
        assert _line(prediction).startswith(f"{prediction['model_version']}: ")
        answers = scenario.oracle.binding.labels(prediction["result"])
        assert _line(prediction).count(" %") == len(answers)
        assert answers or scenario.opens_blank(prediction["task"])
    chosen = [line for line in map(_line, pre_labels.values()) if any(word in line for word in _CHOSEN[name])]
    assert len(chosen) >= 10  # the queue; the others wait behind it


def test_box_and_reason_are_shown_and_submitted_but_only_the_answer_is_learned(
    name: str, scenario: Scenario, pre_labels: dict[int, dict[str, Any]], page: Page
) -> None:
    task_id, prediction = next((task_id, p) for task_id, p in pre_labels.items() if _boxes(p["result"]))
    data_manager = f"{scenario.stack.label_studio_url}/projects/{scenario.project_id}/data"
    # The first visit makes the list's tab, and may forget on the way which task was asked for.
    page.goto(data_manager)
    expect(page.get_by_text("Label All Tasks").first).to_be_visible(timeout=60_000)
    page.goto(f"{data_manager}?task={task_id}")
    line = page.get_by_text(_line(prediction)).first
    expect(line).to_be_visible(timeout=60_000)
    expect(page.locator(".carcond-reason").locator("input, textarea, button").locator("visible=true")).to_have_count(0)
    photograph(page, f"label-config-{name}")

    page.keyboard.press("4")  # intact
    with page.expect_response(lambda response: f"/tasks/{task_id}/annotations" in response.url):
        page.keyboard.press("Control+Enter")
    (annotation,) = scenario.task(task_id).annotations
    (box,) = _boxes(annotation.result)
    assert box["origin"] == "prediction"
    assert _line({"result": annotation.result}) == _line(prediction)
    scenario.wait_until_learned()
    assert scenario.labels_in_version()[task_id]["classes"]["damage"] == "intact"
