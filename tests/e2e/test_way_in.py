"""The ways into the labelling stream, in a browser that has never been there."""

from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from backend.label_studio.data_manager import NEXT_TO_LABEL, read_tabs
from backend.label_studio.way_in import AS_DISPLAYED, LABEL_ALL, project_url
from scripts.demo_server import CHROMIUM_FLAGS, log_in, stay_here
from scripts.stack import Stack
from tests.e2e.browser import find_chromium, photograph
from tests.e2e.scenario import Scenario

pytestmark = [pytest.mark.e2e, pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def scenario(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Scenario:
    """A project with a dozen labels, and so with pre-labels."""
    scenario = Scenario(stack, "way in", tmp_path_factory.mktemp("way-in"), 40)
    for _ in range(12):
        scenario.label_next()
    scenario.wait_until_quiet()
    return scenario


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=find_chromium(), args=CHROMIUM_FLAGS)
        yield running
        running.close()


@pytest.fixture
def visitor(browser: Browser, stack: Stack) -> Iterator[Page]:
    """A page that remembers nothing, logged in."""
    context = browser.new_context(viewport={"width": 1400, "height": 900})
    page = context.new_page()
    page.route("**/*", stay_here)
    log_in(page, stack)
    yield page
    context.close()


def least_certain(scenario: Scenario) -> int:
    """The unlabelled task with the lowest score."""
    version = scenario.model_version()
    scores = {
        task.id: min(p.score or 0.0 for p in task.predictions if p.model_version == version)
        for task in scenario.tasks()
        if not task.annotations and any(p.model_version == version for p in task.predictions)
    }
    return min(scores, key=lambda task: scores[task])


def expect_answers(page: Page, served: dict[str, Any]) -> None:
    """The page shows the answers of the served task's prediction."""
    (prediction,) = served["predictions"]
    checked = page.locator(".ant-checkbox-wrapper-checked, .ant-radio-wrapper-checked")
    answers = [region for region in prediction["result"] if region["from_name"] in ("cleanliness", "damage")]
    assert len(answers) in (0, 2)  # one in twenty opens blank, and the hold-out
    for region in answers:
        expect(checked.filter(has_text=region["value"]["choices"][0])).to_have_count(1, timeout=60_000)


def is_next_task(response: Any) -> bool:
    return "id=next_task" in response.url


def test_the_list_opens_with_next_to_label_least_certain_first_and_its_page_has_no_fault(
    scenario: Scenario, visitor: Page
) -> None:
    faults: list[str] = []
    visitor.on("pageerror", lambda error: faults.append(str(error)))
    assert [tab.title for tab in read_tabs(scenario.api, scenario.project_id)] == [NEXT_TO_LABEL.title, "Default"]
    visitor.goto(project_url(scenario.stack.browser_url, scenario.project_id))
    rows = visitor.locator(".lsf-table__row-wrapper")
    expect(rows.first).to_be_visible(timeout=60_000)
    expect(visitor.get_by_text(LABEL_ALL).first).to_be_visible()
    photograph(visitor, "label-studio-next-to-label")
    scores = [float(row.inner_text().split()[0]) for row in rows.all()[:8]]
    assert scores == sorted(scores)
    visitor.get_by_text("Filters").first.click()
    expect(visitor.get_by_text("is empty").first).to_be_visible()
    assert not faults


def test_label_all_tasks_follows_the_queue(scenario: Scenario, visitor: Page) -> None:
    visitor.goto(project_url(scenario.stack.browser_url, scenario.project_id))
    with visitor.expect_response(is_next_task) as response:
        visitor.get_by_text(LABEL_ALL).first.click(timeout=60_000)
    served = response.value.json()
    assert "Active learning" in served["queue"] or "Task lock" in served["queue"]
    expect_answers(visitor, served)


@pytest.mark.parametrize("way", [AS_DISPLAYED, "labeling=1"])
def test_the_other_ways_in_serve_the_least_certain_photo_with_its_answers(
    scenario: Scenario, visitor: Page, way: str
) -> None:
    address = project_url(scenario.stack.browser_url, scenario.project_id)
    expected = least_certain(scenario)
    with visitor.expect_response(is_next_task, timeout=60_000) as response:
        if way == AS_DISPLAYED:
            visitor.goto(address)
            visitor.get_by_label("Toggle open").first.click(timeout=60_000)
            visitor.get_by_text(AS_DISPLAYED).click()
        else:
            visitor.goto(f"{address}?labeling=1")
    served = response.value.json()
    assert served["queue"] == "Data manager queue"
    assert served["id"] == expected
    expect_answers(visitor, served)


def test_a_photo_opened_from_its_row_is_submitted_and_stays(scenario: Scenario, visitor: Page) -> None:
    visitor.goto(project_url(scenario.stack.browser_url, scenario.project_id))
    visitor.locator(".lsf-table__row-wrapper").first.click(timeout=60_000)
    expect(visitor.get_by_text("· carcond-").first).to_be_visible(timeout=60_000)
    visitor.keyboard.press("4")
    address = visitor.url
    with visitor.expect_response(lambda r: r.request.method == "POST" and "/annotations" in r.url) as response:
        visitor.keyboard.press("Control+Enter")
    assert response.value.status == 201
    visitor.wait_for_timeout(2000)
    assert visitor.url == address
