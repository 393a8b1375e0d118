"""Photos of a folder in a real Label Studio."""

from pathlib import Path

import httpx
import pytest
from PIL import Image

from backend.label_studio.provision import find_or_create_project
from carcond.data.synthetic_photos import draw_samples
from carcond.store.store import Store
from scripts.add_photos import add_photos
from scripts.label_projects import known_projects
from scripts.stack import Stack
from tests.e2e.scenario import wait_until

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


@pytest.mark.timeout(600)
def test_photos_added_while_the_stack_runs_come_into_the_queue_without_a_restart(
    stack: Stack, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = stack.options.data_dir
    draw_samples(tmp_path / "first", 12, seed=21)
    draw_samples(tmp_path / "more", 8, seed=22)
    assert add_photos(tmp_path / "first", data) == 12
    project_id = known_projects(data)["photos"]
    wait_until(lambda: _queued(stack, project_id) == 12, "the first photos to be queued")

    assert add_photos(tmp_path / "more", data) == 8
    assert "8 new photos imported, 0 of 8 were there already" in capsys.readouterr().out
    wait_until(lambda: _queued(stack, project_id) == 20, "the new photos to be queued")
    store = Store(stack.environment["DATABASE_URL"])
    photos = store.photos(project_id)
    store.close()
    assert len(photos) == 20
    assert all(photo.width and not photo.problem for photo in photos)  # looked at

    assert add_photos(tmp_path / "more", data) == 0
    assert "0 new photos imported, 8 of 8 were there already" in capsys.readouterr().out
    assert stack.api().project(project_id).task_count == 20


def _queued(stack: Stack, project_id: int) -> int:
    """Number of tasks with a prediction of the project's version."""
    version = stack.api().project(project_id).model_version
    tasks = stack.api().tasks(project_id)
    return sum(any(p.model_version == version for p in task.predictions) for task in tasks)
