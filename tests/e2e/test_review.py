"""Doubtful labels in the Data Manager of a real Label Studio."""

import json
import time
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from backend.label_studio.data_manager import NEXT_TO_LABEL, read_tabs
from backend.project.label_review import TAB, DoubtfulPhoto, clear_review, write_review
from carcond.analysis.label_errors import Suspect
from carcond.registry.registry import is_ours
from carcond.store.store import Store
from scripts.stack import Stack
from tests.e2e.browser import photograph
from tests.e2e.scenario import Scenario, wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def scenario(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Scenario:
    """A project with a dozen labels."""
    scenario = Scenario(stack, "review", tmp_path_factory.mktemp("review"), 30)
    for _ in range(12):
        scenario.label_next()
    scenario.wait_until_quiet()
    return scenario


@pytest.fixture
def shown(scenario: Scenario) -> list[int]:
    """Five photos in the tab, in an order of their own, one of them without a prediction."""
    labelled = sorted(scenario.labels_in_label_studio())
    chosen = [labelled[i] for i in (3, 0, 7, 1, 5)]
    for prediction in scenario.predictions(chosen[2]):
        scenario.api.delete_prediction(prediction["id"])
    photos = [
        DoubtfulPhoto(task_id, [Suspect(0, "damage", "intact", "damaged", 0.9 - i / 10)])
        for i, task_id in enumerate(chosen)
    ]
    clear_review(scenario.api, scenario.project_id)  # what was looked at by the tests before
    write_review(scenario.api, scenario.project_id, photos, 50)
    return chosen


DOUBT = "doubt: labelled intact but looks damaged"


def tab_id(scenario: Scenario) -> int:
    return next(tab.id for tab in read_tabs(scenario.api, scenario.project_id) if tab.title == TAB)


def listed(scenario: Scenario) -> list[int]:
    """The tasks of the tab, in its order, as Label Studio answers its page."""
    params = {"project": scenario.project_id, "view": tab_id(scenario), "page": 1, "page_size": 30}
    return [task["id"] for task in scenario.api.request("GET", "/api/tasks/", params=params)["tasks"]]


def queue(scenario: Scenario) -> dict[int, tuple[Any, ...]]:
    """All that a prediction of ours says to the queue."""
    found = [p for task in scenario.tasks() for p in task.predictions if is_ours(p.model_version)]
    return {p.id: (p.task_id, p.model_version, p.score, p.slot) for p in found}


def have_a_turn(scenario: Scenario) -> None:
    """Let the loop read the news, and wait until it is done with them."""
    store = Store(scenario.stack.environment["DATABASE_URL"])
    read = store.project(scenario.project_id).watermark
    (connected,) = scenario.api.request("GET", "/api/ml/", params={"project": scenario.project_id})
    scenario.api.request("POST", f"/api/ml/{connected['id']}/train", json={})
    wait_until(lambda: store.project(scenario.project_id).watermark != read, "the news to be read")
    time.sleep(3)  # the rest of the turn takes a fraction of a second
    store.close()


def test_the_tab_lists_photos_most_suspicious_first(scenario: Scenario, shown: list[int]) -> None:
    assert listed(scenario) == shown
    # A task that was opened while the loop wrote may have two predictions.
    found = [[p for p in scenario.predictions(task_id) if is_ours(p["model_version"])] for task_id in shown]
    assert [max((p["mislabeling"] for p in ours), default=None) for ours in found] == [0.9, 0.8, None, 0.6, 0.5]


def test_each_photo_says_its_doubt_in_the_slot_of_its_other_predictions(scenario: Scenario, shown: list[int]) -> None:
    for task_id in shown:
        predictions = scenario.predictions(task_id)
        (doubt,) = [p for p in predictions if p["model_version"] == DOUBT]
        # What Label Studio asked the backend for itself has no slot; of the others it counts the greatest.
        others = [p["cluster"] for p in predictions if p is not doubt and p["cluster"] is not None]
        assert doubt["cluster"] == max(others, default=None)


def test_a_review_leaves_the_queue_and_the_version_as_they_are(scenario: Scenario, shown: list[int]) -> None:
    before, version = queue(scenario), scenario.model_version()
    write_review(
        scenario.api,
        scenario.project_id,
        [DoubtfulPhoto(task_id, [Suspect(0, "damage", "intact", "damaged", 0.7)]) for task_id in reversed(shown)],
        50,
    )
    assert listed(scenario) == shown[::-1]
    assert queue(scenario) == before
    # The loop reads what changed, and finds nothing to learn from it and nothing to publish.
    versions = scenario.registry.numbers()
    newest = max(task.updated_at for task in scenario.tasks())
    have_a_turn(scenario)
    assert scenario.registry.numbers() == versions
    assert scenario.model_version() == version
    assert queue(scenario) == before
    assert max(task.updated_at for task in scenario.tasks()) == newest
    assert listed(scenario) == shown[::-1]


def test_a_photo_labelled_anew_leaves_the_tab(scenario: Scenario, shown: list[int]) -> None:
    (annotation,) = scenario.task(shown[1]).annotations
    time.sleep(1.5)  # the tab looks at seconds
    scenario.oracle.update(annotation.id, scenario.oracle.binding.labels(annotation.result))
    assert listed(scenario) == [shown[0], *shown[2:]]


def test_clearing_leaves_neither_marks_nor_tab(scenario: Scenario, shown: list[int]) -> None:
    assert tab_id(scenario)
    clear_review(scenario.api, scenario.project_id)
    assert [tab.title for tab in read_tabs(scenario.api, scenario.project_id)] == [NEXT_TO_LABEL.title, "Default"]
    assert {p.mislabeling for task in scenario.tasks() for p in task.predictions} == {0.0}
    assert shown[0] in scenario.labels_in_label_studio()


def test_the_commands_answer_in_json(scenario: Scenario) -> None:
    project = str(scenario.project_id)
    report = json.loads(scenario.carcond("quality", "--project", project, "--json"))
    assert (report["photos"], report["measured"]) == (30, 30)
    assert report["labelled"] == len(scenario.labels_in_label_studio())
    review = json.loads(scenario.carcond("review", "--project", project, "--json"))
    assert (review["tab"] is None) == (review["photos"] == [])
    assert json.loads(scenario.carcond("review", "--project", project, "--clear", "--json")) == {}


@pytest.mark.browser
def test_people_find_the_photos_in_the_tab(scenario: Scenario, shown: list[int], page: Page) -> None:
    faults: list[str] = []
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.goto(f"{scenario.stack.label_studio_url}/projects/{scenario.project_id}/data?tab={tab_id(scenario)}")
    expect(page.get_by_text(TAB).first).to_be_visible(timeout=60_000)
    rows = page.locator(".lsf-table__row-wrapper")
    expect(rows).to_have_count(len(shown), timeout=60_000)
    for row in rows.all():
        expect(row).to_contain_text(DOUBT)
    photograph(page, "label-studio-look-again")
    assert [int(row.inner_text().split()[0]) for row in rows.all()] == shown
    # Opening the filters makes the page write them back, in its own words: wait, or that undoes what comes next.
    with page.expect_response(lambda response: "/dm/views/" in response.url and response.request.method == "PATCH"):
        page.get_by_text("Filters").first.click()
    expect(page.get_by_text("is before").first).to_be_visible()
    assert listed(scenario) == shown
    assert not faults


@pytest.mark.browser
def test_an_opened_photo_shows_the_doubt_and_going_back_leads_to_the_tab(
    scenario: Scenario, shown: list[int], page: Page
) -> None:
    tab = f"{scenario.stack.label_studio_url}/projects/{scenario.project_id}/data?tab={tab_id(scenario)}"
    page.goto(tab)
    page.locator(".lsf-table__row-wrapper").first.click(timeout=60_000)
    page.get_by_text("90.00%").first.click(timeout=60_000)
    expect(page.get_by_text(DOUBT.removeprefix("doubt: "), exact=True).first).to_be_visible()
    photograph(page, "label-studio-look-again-photo")
    while "task=" in page.url:
        page.go_back()
        page.wait_for_timeout(1000)
    assert page.url == tab
    page.goto(f"{tab}&task={shown[2]}")  # as `carcond review` prints it
    expect(page.get_by_text("70.00%").first).to_be_visible(timeout=60_000)
    expect(page.locator(".lsf-table__row-wrapper")).to_have_count(len(shown))


@pytest.mark.browser
def test_a_label_confirmed_in_the_page_leaves_the_tab_and_stays_away(
    scenario: Scenario, shown: list[int], page: Page
) -> None:
    page.goto(f"{scenario.stack.label_studio_url}/projects/{scenario.project_id}/data?tab={tab_id(scenario)}")
    page.locator(".lsf-table__row-wrapper").first.click(timeout=60_000)
    chosen = page.locator(".ant-checkbox-wrapper-checked")
    expect(chosen).to_have_count(2, timeout=60_000)
    # The page takes an update only after a change: the other answer, and back.
    keys = ("4", "5") if "damaged" in " ".join(chosen.all_inner_texts()) else ("5", "4")
    time.sleep(1.5)  # the tab looks at seconds
    for key in keys:
        page.keyboard.press(key)
        page.wait_for_timeout(500)
    with page.expect_response(lambda response: response.request.method == "PATCH" and "/annotations/" in response.url):
        page.keyboard.press("Control+Enter")
    assert listed(scenario) == shown[1:]
    photos = [DoubtfulPhoto(task_id, [Suspect(0, "damage", "intact", "damaged", 0.7)]) for task_id in shown]
    write_review(scenario.api, scenario.project_id, photos, 50)
    assert listed(scenario) == shown[1:]
