"""Takes the screenshots of the documentation: Label Studio, demo and dashboard, with drawn cars, on a real stack.

.venv/bin/python scripts/screenshots.py            # into docs/images; takes some minutes
.venv/bin/python scripts/screenshots.py --data DIR # keeps the stack's data, so that the next time is quicker
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont
from playwright.sync_api import Browser, Page, sync_playwright

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that it runs as a file too

from backend.label_studio.way_in import LABEL_ALL, project_url
from carcond.data.synthetic_photos import draw_samples
from carcond.registry.registry import Registry
from scripts.demo_server import (
    CHROMIUM_FLAGS,
    PAGES,
    chromium_program,
    demo_process,
    log_in,
    open_demo_page,
    settle,
    stay_here,
)
from scripts.oracle import Oracle, read_truth
from scripts.ports import free_ports
from scripts.stack import CHECKOUT, Stack, StackOptions

IMAGES = CHECKOUT / "docs" / "images"
PHOTOS, LABELS = 160, 110
WIDE, PHONE = (1280, 800), (390, 844)
TITLE = "Condition of cars"
_PATIENCE_S = 600.0
_LOOP_SIZE = (960, 600)
_STEP_MS = 2200
_BAND = 44


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, metavar="DIR", help="folder for the stack's data, which is kept")
    arguments = parser.parse_args()
    chromium = chromium_program()
    if chromium is None:
        sys.exit("screenshots: Chromium is not installed: apt install chromium")
    IMAGES.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        data = (arguments.data or Path(folder) / "data").absolute()
        ports = free_ports(4)
        options = StackOptions(
            data,
            label_studio_port=ports[0],
            backend_port=ports[1],
            redis_port=ports[2],
            # The pictures are to show chosen answers; of the few photos here the model is unsure of nearly all.
            extra_environment={"CARCOND_PRELABEL_MIN_CONFIDENCE": "0"},
        )
        with Stack(options, print) as stack:
            project = _prepare(stack, data.parent / "cars")
            demo = demo_process(stack, ports[3])
            demo.start()
            try:
                demo.wait_for_url(f"http://127.0.0.1:{ports[3]}/health", 120.0)
                with sync_playwright() as playwright:
                    browser = playwright.chromium.launch(executable_path=chromium, args=CHROMIUM_FLAGS)
                    _Camera(stack, browser, f"http://127.0.0.1:{ports[3]}", project).take_all()
                    browser.close()
            finally:
                demo.stop()


def _prepare(stack: Stack, folder: Path) -> int:
    """A project of drawn cars, most of them labelled, with a model fitted on all labels."""
    draw_samples(folder, PHOTOS, seed=7, labels=True)
    project = stack.provision(TITLE).project_id
    stack.import_photos(project, folder)
    oracle = Oracle(stack.api(), project, read_truth(folder / "labels.csv"))
    registry = _registry(stack, project)
    for number in range(_labelled(stack, project), LABELS):
        oracle.label_next()
        if number % 10 == 9:
            _wait(lambda: _labels_known(registry) >= _labelled(stack, project), "the labels to be learnt")
    _wait(lambda: _labels_known(registry) >= LABELS, "the last labels to be learnt")
    return project


def _registry(stack: Stack, project: int) -> Registry:
    return Registry(Path(stack.environment["CARCOND_MODELS_DIR"]), project)


def _labelled(stack: Stack, project: int) -> int:
    return sum(bool(task.annotations) for task in stack.api().tasks(project))


def _labels_known(registry: Registry) -> int:
    """Number of labels of the newest version; 0 before the first."""
    numbers = registry.numbers()
    return len(registry.labels(numbers[-1])) if numbers else 0


def _wait(is_done: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + _PATIENCE_S
    while not is_done():
        if time.monotonic() > deadline:
            sys.exit(f"screenshots: waited {_PATIENCE_S:.0f} s for {what}")
        time.sleep(1)


class _Camera:
    """Takes the screenshots."""

    def __init__(self, stack: Stack, browser: Browser, demo: str, project: int) -> None:
        self._stack, self._browser, self._demo, self._project = stack, browser, demo, project
        self._data_manager = project_url(stack.browser_url, project)

    def take_all(self) -> None:
        """Take all screenshots, the recording last: it labels a photo."""
        for name, size in (("", WIDE), ("-phone", PHONE)):
            page = self._page(size)
            for each in PAGES:
                open_demo_page(page, self._demo, each, self._project)
                if each == "photo":
                    page.get_by_role("button", name="Drawing 2", exact=True).click()
                    page.locator(".st-key-both-answers").wait_for()
                    settle(page)
                    page.locator(".st-key-answer").evaluate("answer => answer.scrollIntoView()")
                    page.wait_for_timeout(500)
                if each == "learning":
                    page.locator("[data-testid=stVegaLiteChart]").first.scroll_into_view_if_needed()
                    page.wait_for_timeout(500)
                self._keep(page, f"{'demo' if each == 'photo' else f'dashboard-{each}'}{name}")
            page.context.close()
        page = self._page(WIDE)
        log_in(page, self._stack)
        self._show_data_manager(page)
        self._keep(page, "label-studio-data-manager")
        self._show_next(page)
        self._keep(page, "label-studio")
        self._record(page)
        page.context.close()

    def _page(self, size: tuple[int, int]) -> Page:
        credentials = self._stack.credentials
        context = self._browser.new_context(
            viewport={"width": size[0], "height": size[1]},
            http_credentials={"username": credentials.backend_user, "password": credentials.backend_password},
        )
        page = context.new_page()
        page.route("**/*", stay_here)
        return page

    def _show_data_manager(self, page: Page) -> None:
        page.goto(self._data_manager)
        page.get_by_text(LABEL_ALL).first.wait_for()
        page.wait_for_timeout(4000)  # the thumbnails arrive one by one

    def _show_next(self, page: Page) -> None:
        page.goto(self._data_manager)
        page.get_by_text(LABEL_ALL).first.click()
        self._wait_for_pre_label(page)

    @staticmethod
    def _wait_for_pre_label(page: Page) -> None:
        """Wait for a photo with a chosen answer, labelling those that open without one."""
        while True:
            page.get_by_text("· carcond-").first.wait_for()
            page.wait_for_timeout(1500)  # the picture fades in
            if page.locator(".ant-checkbox-wrapper-checked, .ant-radio-wrapper-checked").count():
                return
            for key in ("1", "4"):
                page.keyboard.press(key)
            with page.expect_response(lambda response: "id=next_task" in response.url):
                page.keyboard.press("Control+Enter")

    def _keep(self, page: Page, name: str) -> None:
        picture = Image.open(BytesIO(page.screenshot())).convert("RGB")
        path = IMAGES / f"{name}.webp"
        picture.save(path, quality=80, method=6)
        print(f"{path.relative_to(CHECKOUT)}  {path.stat().st_size // 1000} kB")

    def _record(self, page: Page) -> None:
        """Record a photo with its pre-label, a submit, the version fitted on it, and the new order."""
        known = _labels_known(_registry(self._stack, self._project))
        page.set_viewport_size({"width": _LOOP_SIZE[0], "height": _LOOP_SIZE[1] - _BAND})
        page.wait_for_timeout(1500)
        frames = [self._frame(page, "1. A photo opens with both answers chosen by the model.")]
        with page.expect_response(lambda response: "id=next_task" in response.url):
            page.keyboard.press("Control+Enter")
        self._wait_for_pre_label(page)
        frames.append(self._frame(page, "2. Submitted: the next photo is there, pre-labelled too."))
        _wait(lambda: _labels_known(_registry(self._stack, self._project)) > known, "the recorded label to be learnt")
        dashboard = self._page((_LOOP_SIZE[0], _LOOP_SIZE[1] - _BAND))
        for name, words in (
            ("versions", "3. Seconds later a version that knows the label serves."),
            ("queue", "4. And the order has changed: what it is unsure of comes first."),
        ):
            open_demo_page(dashboard, self._demo, name, self._project)
            dashboard.mouse.wheel(0, 190)
            dashboard.wait_for_timeout(500)
            frames.append(self._frame(dashboard, words))
        dashboard.context.close()
        path = IMAGES / "loop.webp"
        frames[0].save(path, save_all=True, append_images=frames[1:], duration=_STEP_MS, loop=0, quality=75, method=6)
        print(f"{path.relative_to(CHECKOUT)}  {path.stat().st_size // 1000} kB")

    @staticmethod
    def _frame(page: Page, words: str) -> Image.Image:
        """Screenshot of the page, with a caption below."""
        frame = Image.new("RGB", _LOOP_SIZE, (27, 31, 36))
        frame.paste(Image.open(BytesIO(page.screenshot())).convert("RGB"), (0, 0))
        font = ImageFont.load_default(20)
        ImageDraw.Draw(frame).text((20, _LOOP_SIZE[1] - _BAND + 10), words, (255, 255, 255), font)
        return frame


if __name__ == "__main__":
    main()
