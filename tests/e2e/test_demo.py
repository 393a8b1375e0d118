"""The demo and the dashboard in headless Chromium, against the real stack."""

import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, FloatRect, Locator, Page, TimeoutError, expect, sync_playwright

from carcond.data.synthetic_photos import draw_picture
from scripts.demo_server import CHROMIUM_FLAGS, PAGES, demo_process, open_demo_page, settle, stay_here
from scripts.ports import free_ports
from scripts.stack import Stack
from tests.e2e.browser import ARTEFACTS, find_chromium
from tests.e2e.scenario import Scenario, wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(600)]

# Each server process writes down whom it calls, from its very first import.
AUDIT = """
import os, sys
def write_down(event, arguments):
    if event == "socket.connect" and isinstance(arguments[1], tuple):
        line = str(arguments[1][0])
    elif event == "socket.getaddrinfo" and arguments[0]:
        line = str(arguments[0])
    else:
        return
    with open(os.environ["CALLS"], "a") as file:
        file.write(line + "\\n")
sys.addaudithook(write_down)
"""


@pytest.fixture(scope="module")
def scenario(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Scenario:
    """A project with some versions and a queue."""
    scenario = Scenario(stack, "demo", tmp_path_factory.mktemp("demo"), 30)
    for number in range(16):
        scenario.label_next()
        if number % 8 == 7:
            scenario.wait_until_learned()
    scenario.wait_until_quiet()
    return scenario


@pytest.fixture(scope="module")
def calls(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file in which the demo's server writes down whom it calls."""
    folder = tmp_path_factory.mktemp("audit")
    (folder / "sitecustomize.py").write_text(AUDIT)
    return folder / "calls"


@pytest.fixture(scope="module")
def demo(stack: Stack, calls: Path) -> Iterator[str]:
    """The address of the running demo."""
    (port,) = free_ports(1)
    process = demo_process(stack, port, {"PYTHONPATH": str(calls.parent), "CALLS": str(calls)})
    process.start()
    process.wait_for_url(f"http://127.0.0.1:{port}/health", 120.0)
    yield f"http://127.0.0.1:{port}"
    process.stop()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=find_chromium(), args=CHROMIUM_FLAGS)
        yield launched
        launched.close()


def visit(browser: Browser, stack: Stack, width: int, height: int = 900) -> Page:
    """A page of somebody who knows the password, on a screen of this size."""
    credentials = stack.credentials
    known = {"username": credentials.backend_user, "password": credentials.backend_password}
    context = browser.new_context(viewport={"width": width, "height": height}, http_credentials=known)  # type: ignore[arg-type]
    page = context.new_page()
    page.route("**/*", stay_here)
    return page


def photograph(page: Page, name: str) -> None:
    """Keep the whole page among the artefacts."""
    ARTEFACTS.mkdir(exist_ok=True)
    size = page.viewport_size
    assert size
    height = page.evaluate("document.querySelector('[data-testid=stMain]').scrollHeight")
    page.set_viewport_size({"width": size["width"], "height": min(height + 60, 4000)})
    page.wait_for_timeout(800)
    page.screenshot(path=ARTEFACTS / f"{name}.png")
    page.set_viewport_size(size)


def faults(page: Page) -> list[str]:
    """The serious and critical faults that axe-core finds."""
    return [
        f"{violation['id']} at {node['target']}: {node['failureSummary']}"
        for violation in Axe().run(page).response["violations"]
        if violation["impact"] in ("serious", "critical")
        for node in violation["nodes"]
    ]


@pytest.mark.parametrize("width", [1280, 390])
def test_every_page_stands_is_accessible_and_asks_nobody_else(
    browser: Browser, stack: Stack, scenario: Scenario, demo: str, width: int
) -> None:
    page = visit(browser, stack, width)
    asked: set[str] = set()
    told = bytearray()

    def hear(frame: str | bytes) -> None:
        told.extend(frame.encode() if isinstance(frame, str) else frame)

    page.on("request", lambda request: asked.add(request.url))
    page.on("websocket", lambda websocket: websocket.on("framereceived", hear))
    for name in PAGES:
        open_demo_page(page, demo, name, scenario.project_id)
        if name == PAGES[0]:
            page.get_by_role("button", name="Drawing 2", exact=True).click()
            expect(page.locator(".st-key-both-answers")).to_be_visible(timeout=60_000)
            page.get_by_text("As mobile applications get it").click()
            expect(page.get_by_text("car_condition")).to_be_visible()
            settle(page)
        photograph(page, f"demo-{name}-{width}")
        expect(page.locator("h1")).to_have_count(1)
        assert not page.locator("[data-testid=stAlertContentError], [data-testid=stException]").all_inner_texts()
        assert faults(page) == []
        wide = page.evaluate("document.querySelector('[data-testid=stMain]').scrollWidth")
        assert wide <= width, f"{name} is {wide} wide"
    page.context.close()
    places = {urlsplit(url).netloc for url in asked if not url.startswith(("data:", "blob:"))}
    assert places == {urlsplit(demo).netloc}
    assert len(told) > 10_000
    for secret in (stack.api_key, stack.credentials.backend_password, stack.settings["CARCOND_DEMO_TOKEN"]):
        assert secret.encode() not in told


def test_a_drawing_is_judged_by_the_backend_in_both_languages(
    browser: Browser, stack: Stack, scenario: Scenario, demo: str
) -> None:
    page = visit(browser, stack, 1280)
    open_demo_page(page, demo, "photo", scenario.project_id)
    page.get_by_role("button", name="Drawing 6", exact=True).click()
    expect(page.get_by_text("Where it was seen")).to_be_visible(timeout=60_000)
    expect(page.get_by_text(f"Judged by {scenario.version().name}.")).to_be_visible()
    expect(page.locator("[data-testid=stProgress]")).to_have_count(5)
    expect(page.get_by_role("img", name="Where it was seen")).to_be_visible()
    page.get_by_text("Русский").click()
    expect(page.get_by_role("heading", name="В каком состоянии машина?")).to_be_visible(timeout=60_000)
    expect(page.get_by_text(re.compile("[Мм]ашина")).first).to_be_visible()
    settle(page)
    photograph(page, "demo-photo-russian")
    page.context.close()


@pytest.mark.parametrize(("width", "height"), [(1440, 900), (390, 844)])
def test_the_answer_to_an_upload_is_seen_without_scrolling_right_under_the_uploader(
    browser: Browser, stack: Stack, scenario: Scenario, demo: str, tmp_path: Path, width: int, height: int
) -> None:
    photo = tmp_path / "car.jpg"
    draw_picture(np.random.default_rng(3), damage="damaged", cleanliness="clean").save(photo, "JPEG")
    page = visit(browser, stack, width, height)
    open_demo_page(page, demo, "photo", scenario.project_id)
    page.set_input_files("input[type=file]", photo)
    answers = page.locator(".st-key-answer [data-testid=stMetricValue]")
    expect(answers).to_have_count(2, timeout=60_000)
    settle(page)
    uploader = bounds(page.get_by_test_id("stFileUploader"))
    assert all(uploader["y"] < bounds(each)["y"] for each in answers.all())
    whole = bounds(page.locator(".st-key-both-answers"))
    assert whole["y"] + whole["height"] <= height
    assert whole["y"] - (uploader["y"] + uploader["height"]) < 80  # the switch of the camera is between them
    assert page.evaluate("document.querySelector('[data-testid=stMain]').scrollTop") == 0
    # Clicked further down, a drawing brings its answer to the screen.
    drawing = page.get_by_role("button", name="Drawing 2", exact=True)
    drawing.scroll_into_view_if_needed()
    drawing.click()
    expect(page.locator(".st-key-both-answers")).to_be_in_viewport(ratio=0.9, timeout=60_000)
    photograph(page, f"demo-photo-uploaded-{width}")
    page.context.close()


def bounds(element: Locator) -> FloatRect:
    box = element.bounding_box()
    assert box
    return box


def test_what_goes_wrong_with_a_photo_is_said_in_the_language_of_the_page(
    browser: Browser, stack: Stack, scenario: Scenario, demo: str
) -> None:
    page = visit(browser, stack, 390)
    open_demo_page(page, demo, "photo", scenario.project_id)
    alert = page.get_by_role("alert")
    page.set_input_files("input[type=file]", {"name": "a.jpg", "mimeType": "image/jpeg", "buffer": b"this is no photo"})
    expect(alert).to_have_text(re.compile("cannot be read as a photo"), timeout=60_000)
    page.get_by_text("Русский").click()
    expect(alert).to_have_text(re.compile("не удаётся прочитать"), timeout=60_000)
    page.context.close()


def test_the_first_page_is_found_by_its_name_too(browser: Browser, stack: Stack, scenario: Scenario, demo: str) -> None:
    page = visit(browser, stack, 1280)
    page.goto(f"{demo}/photo?project={scenario.project_id}")
    expect(page.get_by_role("heading", name="What condition is this car in?")).to_be_visible(timeout=60_000)
    settle(page)
    assert not page.get_by_text("Page not found").count()
    assert f"project={scenario.project_id}" in page.url
    page.context.close()


@pytest.mark.parametrize("name", ["photo", "learning", "queue", "quality", "jobs"])
def test_no_page_is_long_on_a_phone(browser: Browser, stack: Stack, scenario: Scenario, demo: str, name: str) -> None:
    page = visit(browser, stack, 390, 844)
    open_demo_page(page, demo, name, scenario.project_id)
    height = page.evaluate("document.querySelector('[data-testid=stMain]').scrollHeight")
    screens = height / 844
    assert screens <= 4, f"{name} is {screens:.1f} screens high"
    page.context.close()


def choose(page: Page, label: str, words: str) -> None:
    """Choose from a list; it is opened again when the page has been drawn anew meanwhile, which closes it."""
    for _ in range(10):
        page.get_by_label(label).click()
        with suppress(TimeoutError):
            page.get_by_role("option", name=re.compile(words)).click(timeout=3000)
            return
        page.keyboard.press("Escape")
    raise AssertionError(f"{words} could not be chosen")


def test_a_chosen_version_is_pinned_recorded_and_reaches_label_studio(
    browser: Browser, stack: Stack, scenario: Scenario, demo: str
) -> None:
    serving = scenario.version().number
    before = scenario.registry.previous().name
    page = visit(browser, stack, 1280)
    open_demo_page(page, demo, "versions", scenario.project_id)
    page.get_by_text("Choose what serves").click()
    confirm = page.get_by_role("button", name="Serve and pin it")
    expect(confirm).to_be_visible(timeout=30_000)
    choose(page, "Version to serve", before)
    assert faults(page) == []
    photograph(page, "demo-pin")
    assert scenario.version().number == serving
    page.get_by_label("Your name").fill("Anna")
    page.get_by_label("Reason, for the record").fill("calls wet cars dirty")
    confirm.click()
    expect(page.get_by_text(f"{before} serves and is pinned.").first).to_be_visible(timeout=30_000)
    last = scenario.registry.promotions()[-1]
    assert (last.before, last.pinned, last.who, last.why) == (serving, True, "Anna", "calls wet cars dirty")
    expect(page.get_by_text("calls wet cars dirty").first).to_be_visible()
    page.context.close()
    wait_until(lambda: scenario.model_version() == before, "Label Studio to serve the chosen version")
    scenario.registry.unpin("Anna", "the test is over")


def test_without_the_password_nothing_but_health_is_told(stack: Stack, demo: str) -> None:
    assert httpx.get(f"{demo}/health").json() == {"status": "UP"}
    for path in ("/", "/queue", "/_stcore/stream", "/_stcore/host-config", "/static/js/none.js", "/media/none.jpg"):
        refused = httpx.get(demo + path)
        assert (refused.status_code, refused.headers["www-authenticate"]) == (401, 'Basic realm="carcond"')


def test_the_server_has_called_nobody_but_its_neighbours(stack: Stack, demo: str, calls: Path) -> None:
    neighbours = {"127.0.0.1", "localhost", "::1", "0.0.0.0", stack.backend_host}  # noqa: S104 - a name, not bound
    assert set(calls.read_text().split()) <= neighbours
