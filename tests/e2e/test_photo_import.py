"""Photos of a folder in a real Label Studio."""

from pathlib import Path

import httpx
import pytest
from PIL import Image

from backend.provision import find_or_create_project
from scripts.stack import Stack

pytestmark = [pytest.mark.slow, pytest.mark.e2e]

NAMES = (
    "plain.jpg",
    "my car.jpg",
    "машина.JPG",
    "a#1.png",
    "50%.jpg",
    "50%20.jpg",
    "a&b=c.jpg",
    "a+b.jpg",
    "вид спереди #2/q?;r.jpeg",
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Small pictures with difficult names, in a folder with a difficult name."""
    folder = tmp_path / "мои машины & co"
    for name in NAMES:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8)).save(path)
    return folder


def _image_urls(stack: Stack, project_id: int) -> list[str]:
    reply = stack.api().request("GET", "/api/tasks/", params={"project": project_id, "fields": "all"})
    return [task["data"]["image"] for task in reply["tasks"]]


def test_photos_are_served_from_where_they_are_whatever_their_names(stack: Stack, folder: Path) -> None:
    project_id, _ = find_or_create_project(stack.api(), "photo names")
    assert stack.import_photos(project_id, folder) == len(NAMES)
    urls = _image_urls(stack, project_id)
    with httpx.Client(base_url=stack.label_studio_url, auth=stack.api().auth, trust_env=False) as client:
        replies = [client.get(url) for url in urls]
    assert [reply.status_code for reply in replies] == [200] * len(NAMES)
    assert sorted(reply.content for reply in replies) == sorted((folder / name).read_bytes() for name in NAMES)


def test_nobody_sees_the_photos_without_a_login(stack: Stack, folder: Path) -> None:
    project_id, _ = find_or_create_project(stack.api(), "photo login")
    stack.import_photos(project_id, folder)
    url = _image_urls(stack, project_id)[0]
    assert httpx.get(stack.label_studio_url + url, trust_env=False).status_code == 401


def test_a_second_import_adds_only_what_is_new(stack: Stack, folder: Path) -> None:
    project_id, _ = find_or_create_project(stack.api(), "photo twice")
    stack.import_photos(project_id, folder)
    Image.new("RGB", (8, 8)).save(folder / "new one.jpg")
    assert stack.import_photos(project_id, folder) == 1
    assert stack.import_photos(project_id, folder) == 0
    assert stack.api().project(project_id).task_count == len(NAMES) + 1


def test_progress_is_told_up_to_the_last_photo(stack: Stack, folder: Path) -> None:
    project_id, _ = find_or_create_project(stack.api(), "photo progress")
    told: list[tuple[int, int]] = []
    stack.import_photos(project_id, folder, lambda done, total: told.append((done, total)))
    assert told[-1] == (len(NAMES), len(NAMES))
