"""What the tests against the real stack share, beside the stack itself (tests/conftest.py)."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Page

from scripts.stack import Stack
from tests.e2e.browser import open_page


@pytest.fixture(scope="module")
def page(stack: Stack) -> Iterator[Page]:
    """A page of Chromium, logged in, that reaches nothing but this machine."""
    with open_page(stack) as opened:
        yield opened
