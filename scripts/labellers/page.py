"""Label Studio's own page in Chromium, as an annotator uses it."""

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from playwright.sync_api import Error, Page, TimeoutError

from scripts.labellers.traffic import Traffic

PATIENCE_S = 30.0
"""Timeout in seconds after which a page counts as stuck."""

# Pre-labels are chosen a moment after the photo and the choices are there.
_CHOOSING_S = 2.0
_LOOK_MS = 500
# Looking at every frame would make the browser draw sixty a second.
_POLL_MS = 25
_SUBMIT, _UPDATE, _SKIP = "bottombar-submit-button", "bottombar-update-button", "bottombar-skip-button"
# The store has the page's task, the document its visible state. `left` is the previous photo.
_SHOWN = """(left) => {
    const task = window.Htx && window.Htx.task && window.Htx.task.id;
    const image = document.querySelector("img[alt=image]");
    const inputs = [...document.querySelectorAll("input.ant-checkbox-input, input.ant-radio-input")]
        .filter((input) => input.name);
    const button = ["submit", "update", "unskip"]
        .map((name) => document.querySelector(`[data-testid=bottombar-${name}-button]`)).find((found) => found);
    if (!task || !image || !image.complete || !image.naturalWidth || !inputs.length || !button) return null;
    if (left && (Number(task) === left.task || image.src === left.image)) return null;
    return {
        task: Number(task),
        image: image.src,
        chosen: inputs.filter((input) => input.checked).map((input) => input.name),
        keys: Object.fromEntries(inputs.map((input) =>
            [input.name, input.closest("label").querySelector("sup")?.textContent.replace(/[[\\]]/g, "") || ""])),
        button: button.dataset.testid,
    };
}"""
_CHOSEN = """(words) => {
    const chosen = [...document.querySelectorAll("input.ant-checkbox-input:checked, input.ant-radio-input:checked")]
        .map((input) => input.name).filter((name) => name);
    return words.length === 0 ? chosen.length > 0 : words.every((word) => chosen.includes(word));
}"""


class StuckPageError(Exception):
    """The page does not reach the expected state."""


@dataclass(frozen=True)
class Shown:
    """A photo ready for labelling: it has loaded, and so have the choices.

    Attributes:
        task_id: the task.
        image: address of the picture, another one for each photo.
        chosen: words that are chosen.
        keys: word -> its hot key; empty for one without.
        is_labelled: the page offers Update, or to take a skip back, and not Submit.
    """

    task_id: int
    image: str
    chosen: tuple[str, ...]
    keys: dict[str, str] = field(repr=False)
    is_labelled: bool


class LabellingPage:
    """A browser's page that is logged in to Label Studio."""

    def __init__(self, page: Page, url: str, project_id: int, traffic: Traffic) -> None:
        self._page = page
        self._url = url
        self._project_id = project_id
        self.traffic = traffic
        page.set_default_timeout(PATIENCE_S * 1000)

    def open_list(self) -> None:
        """Open the project's list by its address."""
        self._page.goto(f"{self._url}/projects/{self._project_id}/data")
        self._wait_for_list()

    def leave_to_list(self) -> None:
        """Go to the project's list by the link above the photo."""
        self._page.locator(f"a[href='/projects/{self._project_id}']").first.click()
        self._wait_for_list()

    def _wait_for_list(self) -> None:
        self._page.get_by_test_id("table-row").first.wait_for()
        self._page.get_by_text("Label All Tasks").first.wait_for()

    def label_all(self) -> Shown | None:
        """Click "Label All Tasks"; None when nothing is left to label."""
        reads = self.traffic.reads
        self.traffic.is_out_of_tasks = False
        self._page.get_by_text("Label All Tasks").first.click()
        self.until(lambda: self.traffic.reads > reads or self.traffic.is_out_of_tasks, "Label Studio to serve a photo")
        return self.shown()

    def open_row(self, number: int) -> Shown:
        """Click a row of the list; the photo opens beside it."""
        reads = self.traffic.reads
        # On its picture: the first cell would only select the row.
        self._page.get_by_test_id("table-row").nth(number).locator("img").first.click()
        self.until(lambda: self.traffic.reads > reads, "the row's photo to be read")
        return self._expect_shown()

    def reload(self) -> Shown | None:
        """Reload the page, which requests the next photo again; None when nothing is left to label."""
        reads = self.traffic.reads
        self.traffic.is_out_of_tasks = False
        self._page.reload()
        self.until(lambda: self.traffic.reads > reads or self.traffic.is_out_of_tasks, "Label Studio to serve a photo")
        return self.shown()

    def choose(self, word: str, keys: dict[str, str], *, by_key: bool) -> None:
        """Choose a word that is not chosen, by its hot key or by a click."""
        key = keys.get(word)
        if key and by_key:
            self._page.keyboard.press(key)
        else:
            self._page.locator("label", has=self._page.locator(f'input[name="{word}"]')).first.click()
        self._page.wait_for_function(_CHOSEN, arg=[word], timeout=_CHOOSING_S * 1000, polling=_POLL_MS)

    def submit(self, left: Shown, *, by_key: bool) -> Shown | None:
        """Submit, and wait until the next photo can be labelled; None when nothing is left, or it was refused."""
        self._press_submit(_SUBMIT, by_key=by_key)
        return self.shown(left)

    def skip(self, left: Shown) -> Shown | None:
        """Skip, and wait until the next photo can be labelled; None when nothing is left, or it was refused."""
        self._page.get_by_test_id(_SKIP).click()
        return self.shown(left)

    def submit_in_place(self, shown: Shown, *, by_key: bool) -> bool:
        """Submit or update a photo on which the page stays; False when it was refused."""
        accepted, refused, reads = self.traffic.accepted, len(self.traffic.refused), self.traffic.reads
        self._press_submit(_UPDATE if shown.is_labelled else _SUBMIT, by_key=by_key)
        self.until(
            lambda: (
                len(self.traffic.refused) > refused or (self.traffic.accepted > accepted and self.traffic.reads > reads)
            ),
            "a label to be saved",
        )
        if len(self.traffic.refused) > refused:
            return False
        self._page.get_by_test_id(_UPDATE).wait_for()
        return True

    def _press_submit(self, button: str, *, by_key: bool) -> None:
        if by_key:
            self._page.keyboard.press("Control+Enter")
        else:
            self._page.get_by_test_id(button).click()

    def back(self, left: Shown) -> Shown:
        """Go to the photo before, by the arrow."""
        self._page.get_by_test_id("prev-task").click()
        return self._expect_shown(left)

    def forward(self, left: Shown) -> Shown:
        """Go to the photo after, by the arrow."""
        self._page.get_by_test_id("next-task").click()
        return self._expect_shown(left)

    def _expect_shown(self, left: Shown | None = None) -> Shown:
        shown = self.shown(left)
        if shown is None:
            raise StuckPageError("expected a photo that was labelled before, and there is none")
        return shown

    def shown(self, left: Shown | None = None) -> Shown | None:
        """Wait until a photo can be labelled, its pre-label chosen if it has one.

        Args:
            left: the photo that was shown before, when it is to be another one.

        Returns:
            None when a submit was refused, or there is no photo left.

        Raises:
            StuckPageError: neither within `PATIENCE_S`.
        """
        refused = len(self.traffic.refused)
        argument = {"task": left.task_id, "image": left.image} if left else None
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            seen = self._look(argument)
            if seen is not None:
                return self._wait_for_answers(seen, argument)
            if len(self.traffic.refused) > refused or self.traffic.is_out_of_tasks:
                return None
        raise StuckPageError(f"no photo could be labelled within {PATIENCE_S:.0f} s")

    def _look(self, left: dict[str, Any] | None) -> dict[str, Any] | None:
        try:
            handle = self._page.wait_for_function(_SHOWN, arg=left, timeout=_LOOK_MS, polling=_POLL_MS)
            return dict(handle.json_value())
        except TimeoutError:
            return None

    def _wait_for_answers(self, seen: dict[str, Any], left: dict[str, Any] | None) -> Shown:
        opened = self.traffic.opened
        if opened and opened.task_id == seen["task"] and opened.has_answers and opened.is_fresh and not seen["chosen"]:
            with suppress(TimeoutError):  # whoever asked sees that it is blank
                self._page.wait_for_function(_CHOSEN, arg=[], timeout=_CHOOSING_S * 1000, polling=_POLL_MS)
            seen = self._look(left) or seen
        return Shown(seen["task"], seen["image"], tuple(seen["chosen"]), seen["keys"], seen["button"] != _SUBMIT)

    def until(self, is_done: Callable[[], bool], what: str) -> None:
        """Wait until something has arrived over the network.

        Raises:
            StuckPageError: it does not within `PATIENCE_S`.
        """
        deadline = time.monotonic() + PATIENCE_S
        while not is_done():
            if time.monotonic() > deadline:
                raise StuckPageError(f"waited {PATIENCE_S:.0f} s for {what}")
            self.rest(0.03)

    def rest(self, seconds: float) -> None:
        """Sleep while the page keeps running."""
        self._page.wait_for_timeout(max(0.0, seconds) * 1000)

    def photograph(self, path: Path) -> bool:
        """Save a screenshot; False when even that fails."""
        try:
            self._page.screenshot(path=path, timeout=10_000)
        except Error:
            return False
        return True
