"""Adding photos to a stack that runs: what is refused. The rest needs a stack: `tests/e2e/test_photo_import.py`."""

from pathlib import Path

import pytest

from scripts.add_photos import add_photos
from scripts.ports import free_ports
from scripts.preflight import StackError
from tests.backend.http_server import HttpServer, Reply


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "more cars"
    folder.mkdir()
    (folder / "a.jpg").touch()
    return folder


def _stack_at(tmp_path: Path, url: str) -> Path:
    data = tmp_path / "data"
    data.mkdir()
    (data / "environment").write_text(f"LABEL_STUDIO_URL={url}\nLABEL_STUDIO_API_KEY='a b'\n")
    return data


def test_a_folder_without_photos_is_refused_before_a_stack_is_looked_for(tmp_path: Path) -> None:
    with pytest.raises(StackError, match="no photos in"):
        add_photos(tmp_path, tmp_path / "data")


def test_where_no_stack_ever_ran_the_command_that_starts_one_with_the_photos_is_told(
    tmp_path: Path, folder: Path
) -> None:
    with pytest.raises(StackError, match=r"no stack has ever run on .*scripts/up --photos '.*/more cars'"):
        add_photos(folder, tmp_path / "data")


def test_a_stack_that_was_stopped_is_not_added_to(tmp_path: Path, folder: Path) -> None:
    (port,) = free_ports(1)
    data = _stack_at(tmp_path, f"http://127.0.0.1:{port}")
    with pytest.raises(StackError, match=r"does not run: start it with its photos: scripts/up --photos"):
        add_photos(folder, data)


def test_a_stack_that_is_just_starting_is_said_to_be_not_ready(tmp_path: Path, folder: Path) -> None:
    with HttpServer() as server:
        server.answers["/health"] = Reply(status=503)
        with pytest.raises(StackError, match=r"not ready \(HTTP 503\)"):
            add_photos(folder, _stack_at(tmp_path, server.url))
