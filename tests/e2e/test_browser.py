"""What an annotator sees: Label Studio's own page in headless Chromium."""

import re
from collections.abc import Mapping
from typing import Any

import pytest
from playwright.sync_api import Locator, Page, expect

from carcond.data.split import HOLDOUT
from scripts.stack import Stack
from tests.e2e.browser import photograph
from tests.e2e.scenario import Scenario

pytestmark = [pytest.mark.e2e, pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def scenario(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Scenario:
    """A project with a dozen labels, and so with pre-labels for both tasks."""
    scenario = Scenario(stack, "browser", tmp_path_factory.mktemp("browser"), 40)
    for _ in range(12):
        scenario.label_next()
    scenario.wait_until_quiet()
    return scenario


_BLANK = re.compile(r"^no answer suggested, judge by the photo · carcond-\d{4}$")
_CONFIDENCES = re.compile(rf"^[a-z ]+ \d+ %, (intact|damaged) \d+ % · carcond-\d{{4}}$|{_BLANK.pattern}")


def _line(prediction: Mapping[str, Any]) -> str:
    """The line with the confidences."""
    (text,) = [region["value"]["text"][0] for region in prediction["result"] if region["type"] == "textarea"]
    return str(text)


def _checked(page: Page) -> Locator:
    return page.locator(".ant-checkbox-wrapper-checked, .ant-radio-wrapper-checked")


def _expect_pre_label(page: Page, prediction: Mapping[str, Any]) -> None:
    words = [r["value"]["choices"][0] for r in prediction["result"] if r["from_name"] in ("cleanliness", "damage")]
    expect(_checked(page)).to_have_count(len(words), timeout=60_000)
    for word in words:
        expect(_checked(page).filter(has_text=word)).to_have_count(1)


def test_a_task_opens_from_the_list_with_both_answers_version_and_confidence(scenario: Scenario, page: Page) -> None:
    task = next(task for task in scenario.tasks() if not task.annotations and not scenario.opens_blank(task.id))
    prediction = scenario.prediction(task.id)
    data_manager = f"{scenario.stack.label_studio_url}/projects/{scenario.project_id}/data"
    # The first visit makes the list's tab, and may forget on the way which task was asked for.
    page.goto(data_manager)
    expect(page.get_by_text("Label All Tasks").first).to_be_visible(timeout=60_000)
    page.goto(f"{data_manager}?task={task.id}")
    _expect_pre_label(page, prediction)
    photograph(page, "label-studio-task")
    expect(page.get_by_text(prediction["model_version"]).first).to_be_visible()
    expect(page.get_by_text(f"{100 * prediction['score']:.2f}%").first).to_be_visible()


def test_an_annotator_sees_the_pre_label_submits_by_hotkey_and_gets_the_next_photo(
    scenario: Scenario, page: Page
) -> None:
    with page.expect_response(lambda response: "id=next_task" in response.url) as response:
        page.goto(f"{scenario.stack.label_studio_url}/projects/{scenario.project_id}/data?labeling=1")
    served = response.value.json()
    (prediction,) = served["predictions"]
    _expect_pre_label(page, prediction)
    expect(page.get_by_text(_line(prediction))).to_be_visible()
    photograph(page, "label-studio-pre-label")

    # The other answer: pressing the key of a chosen answer would take it back.
    chosen = scenario.oracle.binding.labels(prediction["result"]).get("damage")
    key, other = ("5", "damaged") if chosen == "intact" else ("4", "intact")
    page.keyboard.press(key)
    expect(_checked(page).filter(has_text=other)).to_have_count(1)
    with page.expect_response(lambda response: "id=next_task" in response.url) as response:
        page.keyboard.press("Control+Enter")
    following = response.value.json()
    assert following["id"] != served["id"]
    (prediction,) = following["predictions"]
    _expect_pre_label(page, prediction)
    photograph(page, "label-studio-next-photo")

    (annotation,) = scenario.task(served["id"]).annotations
    assert scenario.oracle.binding.labels(annotation.result)["damage"] == other
    scenario.wait_until_learned()


@pytest.mark.parametrize("keys", ["", "67890qwet", "321"])
def test_the_line_with_the_confidences_is_shown_while_labelling_and_never_submitted(
    scenario: Scenario, page: Page, keys: str
) -> None:
    page.goto(f"{scenario.stack.label_studio_url}/projects/{scenario.project_id}/data")
    page.get_by_text("Label All Tasks").first.click(timeout=60_000)
    expect(page.get_by_text(_CONFIDENCES)).to_be_visible(timeout=60_000)
    page.get_by_text(_CONFIDENCES).click()  # it takes no focus
    for key in keys:
        page.keyboard.press(key)
    if page.get_by_text(_BLANK).count():
        page.keyboard.press("4")
    with page.expect_response(lambda r: "/annotations" in r.url and r.request.method == "POST") as response:
        page.keyboard.press("Control+Enter")
    assert response.value.status == 201
    submitted = response.value.json()["result"]
    assert "damage" in {region["from_name"] for region in submitted}
    assert {region["from_name"] for region in submitted} <= {"cleanliness", "damage"}
    assert {region["type"] for region in submitted} == {"choices"}


def test_a_photo_of_the_holdout_opens_with_nothing_chosen_and_says_so(scenario: Scenario, page: Page) -> None:
    """An answer that is given and taken back leaves it as it was, and the label is the annotator's own."""
    task_id = next(t.id for t in scenario.tasks() if not t.annotations and scenario.sides()[t.id] == HOLDOUT)
    page.goto(f"{scenario.stack.label_studio_url}/projects/{scenario.project_id}/data?task={task_id}")
    expect(page.get_by_text(_BLANK)).to_be_visible(timeout=60_000)
    expect(_checked(page)).to_have_count(0)
    photograph(page, "label-studio-blank")
    for key, count in (("1", 1), ("1", 0), ("2", 1), ("5", 2)):
        page.keyboard.press(key)
        expect(_checked(page)).to_have_count(count)
    with page.expect_response(lambda r: "/annotations" in r.url and r.request.method == "POST") as response:
        page.keyboard.press("Control+Enter")
    assert response.value.status == 201
    submitted = {region["from_name"] for region in response.value.json()["result"]}
    assert submitted == {"cleanliness", "damage"}
    scenario.wait_until_learned()
    assert scenario.labels_in_version()[task_id]["side"] == HOLDOUT


@pytest.mark.parametrize("blank", [False, True])
def test_the_pre_labels_of_the_page_are_kept_with_its_label(scenario: Scenario, page: Page, blank: bool) -> None:
    scenario.wait_until_quiet()
    task = next(t for t in scenario.tasks() if not t.annotations and scenario.opens_blank(t.id) is blank)
    (prediction,) = [each for each in task.predictions if each.model_version == scenario.model_version()]
    answers = prediction.hidden if blank else _suggested(scenario, prediction.result)
    assert set(answers) == {"cleanliness", "damage"}
    page.goto(f"{scenario.stack.label_studio_url}/projects/{scenario.project_id}/data?task={task.id}")
    expect(_checked(page)).to_have_count(0 if blank else 2, timeout=60_000)
    expect(page.get_by_text(_CONFIDENCES)).to_be_visible(timeout=60_000)
    # The other answer to damage, and the suggested one to cleanliness.
    page.keyboard.press("5" if answers["damage"][0] == "intact" else "4")
    if blank:
        page.keyboard.press("1")
    with page.expect_response(lambda r: "/annotations" in r.url and r.request.method == "POST") as response:
        page.keyboard.press("Control+Enter")
    assert response.value.status == 201
    scenario.wait_until_learned()
    assert scenario.prelabels(task.id) == {key: [*answer, not blank] for key, answer in answers.items()}


def _suggested(scenario: Scenario, result: list[dict[str, Any]]) -> dict[str, tuple[str, float]]:
    """Task key -> suggested class and its confidence."""
    classes = scenario.oracle.binding.labels(result)
    return {key: (classes[key], r["score"]) for key in classes for r in result if r["from_name"] == key}
