"""Headless Chromium on Label Studio's own page."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Page, sync_playwright

from scripts.demo_server import CHROMIUM_FLAGS, chromium_program, log_in, stay_here
from scripts.stack import Stack

ARTEFACTS = Path(__file__).resolve().parents[2] / "artefacts"


def find_chromium() -> str:
    """The program; without it tests are skipped, but not in CI."""
    chromium = chromium_program()
    if chromium is None:
        if os.environ.get("CI") == "true":
            pytest.fail("Chromium is missing, and in CI it has to be there")
        pytest.skip("Chromium is not installed: apt install chromium")
    return chromium


@contextmanager
def open_page(stack: Stack) -> Iterator[Page]:
    """A page of Chromium, logged in, that reaches nothing but this machine."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_chromium(), args=CHROMIUM_FLAGS)
        page = browser.new_page(viewport={"width": 1400, "height": 900})
        page.route("**/*", stay_here)
        log_in(page, stack)
        yield page
        browser.close()


def photograph(page: Page, name: str) -> None:
    """Keep what the page shows among the artefacts."""
    ARTEFACTS.mkdir(exist_ok=True)
    page.wait_for_timeout(1500)  # the picture fades in
    page.screenshot(path=ARTEFACTS / f"{name}.png")
