"""Undoing the connection of a project whose backend has moved."""

import pytest

from backend.project.connection.changes import Change
from backend.project.connection.disconnecting import _at_present_address

FORMER, PRESENT = "http://127.0.0.1:9090", "http://127.90.90.1:9090"


@pytest.mark.parametrize(
    ("change", "url", "name"),
    [
        (Change("backend", FORMER, None, {}), PRESENT, PRESENT),
        (Change("webhook", f"{FORMER}/webhook", None, {}), PRESENT, f"{PRESENT}/webhook"),
        # What is somebody else's, or was there before, stays what it is.
        (Change("backend", FORMER, {"title": "carcond"}, {}), PRESENT, FORMER),
        (Change("backend", FORMER, None, {}), "http://127.90.90.1:9191", FORMER),
        (Change("backend", FORMER, None, {}), "http://backend.example.com:9090", FORMER),
        (Change("backend", "http://10.0.0.1:9090", None, {}), PRESENT, "http://10.0.0.1:9090"),
        (Change("setting", "sampling", None, "x"), PRESENT, "sampling"),
    ],
)
def test_a_backend_that_scripts_up_has_moved_is_found_at_its_present_address(
    change: Change, url: str, name: str
) -> None:
    assert _at_present_address(change, url).name == name
