"""Databases of both kinds for the tests of the store."""

from pathlib import Path

import pytest

from tests.conftest import DATABASES, new_database


@pytest.fixture(params=DATABASES)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The address of an empty database, of each kind in turn."""
    return new_database(request.param, request, tmp_path)
