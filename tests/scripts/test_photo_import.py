"""Finding photos, and naming them so that Label Studio finds them too."""

import os
from pathlib import Path
from typing import Any, cast

import pytest

from backend.label_studio.client import LabelStudioApi
from scripts.photo_import import (
    find_photos,
    follow_links,
    import_photos,
    link_folder,
    linked_folders,
    photo_url,
    served_path,
)
from scripts.preflight import StackError


def _touch(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def test_photos_are_found_in_all_folders_sorted_whatever_the_case_of_their_suffix(tmp_path: Path) -> None:
    _touch(tmp_path, "b.jpg", "a/z.PNG", "a/b/c.JPeG", "c.webp", "notes.txt", "raw.cr2")
    assert find_photos(tmp_path) == [Path("a/b/c.JPeG"), Path("a/z.PNG"), Path("b.jpg"), Path("c.webp")]


def test_hidden_files_and_folders_are_left_out(tmp_path: Path) -> None:
    _touch(tmp_path, "a.jpg", ".b.jpg", "._c.jpg", ".thumbnails/d.jpg")
    assert find_photos(tmp_path) == [Path("a.jpg")]


def test_a_folder_without_photos_is_named_with_what_was_looked_for(tmp_path: Path) -> None:
    _touch(tmp_path, "notes.txt")
    with pytest.raises(StackError, match=rf"no photos in {tmp_path}.*\.jpg, \.jpeg, \.png"):
        find_photos(tmp_path)


def test_a_missing_folder_is_said_to_be_missing(tmp_path: Path) -> None:
    with pytest.raises(StackError, match=r"expected a folder with photos.*is missing"):
        find_photos(tmp_path / "nowhere")


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    _touch(tmp_path, "a.jpg")
    with pytest.raises(StackError, match="a file"):
        find_photos(tmp_path / "a.jpg")


def test_a_name_that_is_no_unicode_is_left_out_and_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    _touch(tmp_path, "a.jpg")
    (tmp_path / os.fsdecode(b"caf\xe9.jpg")).touch()
    assert find_photos(tmp_path) == [Path("a.jpg")]
    assert "1 photos are left out" in caplog.text


@pytest.mark.parametrize(
    ("path", "url"),
    [
        ("cars-1/a.jpg", "/data/local-files/?d=cars-1/a.jpg"),
        ("cars-1/my car.jpg", "/data/local-files/?d=cars-1/my%20car.jpg"),
        ("cars-1/a#1&b+c=d.jpg", "/data/local-files/?d=cars-1/a%231%26b%2Bc%3Dd.jpg"),
        ("cars-1/50%.jpg", "/data/local-files/?d=cars-1/50%25.jpg"),
        ("cars-1/ж.jpg", "/data/local-files/?d=cars-1/%D0%B6.jpg"),
    ],
)
def test_a_path_is_quoted_in_its_address_and_read_back(path: str, url: str) -> None:
    assert photo_url(path) == url
    assert served_path(url) == path


def test_the_absolute_address_that_label_studio_itself_makes_is_read_too() -> None:
    assert served_path("http://127.0.0.1:8080/data/local-files/?d=cars/local%200.jpg") == "cars/local 0.jpg"


@pytest.mark.parametrize("url", ["/data/upload/1/a.jpg", "https://example.com/a.jpg?d=b", "", "/data/local-files/"])
def test_other_addresses_are_no_local_files(url: str) -> None:
    assert served_path(url) is None


def test_the_same_folder_is_linked_once(tmp_path: Path) -> None:
    root, folder = tmp_path / "root", tmp_path / "my cars"
    root.mkdir()
    _touch(folder, "a.jpg")
    link = link_folder(root, folder)
    assert link_folder(root, folder / ".." / "my cars") == link
    assert linked_folders(root) == [link]
    assert (link / "a.jpg").exists()


def test_folders_of_one_name_get_links_of_their_own(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    _touch(tmp_path, "a/cars/1.jpg", "b/cars/1.jpg")
    assert link_folder(root, tmp_path / "a" / "cars") != link_folder(root, tmp_path / "b" / "cars")


def test_the_link_of_a_russian_folder_has_a_plain_name(tmp_path: Path) -> None:
    root, folder = tmp_path / "root", tmp_path / "машины"
    root.mkdir()
    folder.mkdir()
    assert link_folder(root, folder).name.isascii()


def test_a_folder_that_is_linked_under_another_name_keeps_it(tmp_path: Path) -> None:
    root, folder = tmp_path / "root", tmp_path / "data" / "sample-photos"
    root.mkdir()
    _touch(folder, "a.jpg")
    # As it was restored from a backup of another place.
    (root / "sample-photos-0badcafe").symlink_to(Path("..") / "data" / "sample-photos")
    assert link_folder(root, folder) == root / "sample-photos-0badcafe"


def test_a_link_that_was_given_another_folder_is_not_taken_for_the_first(tmp_path: Path) -> None:
    root, folder, other = tmp_path / "root", tmp_path / "cars", tmp_path / "other"
    root.mkdir()
    _touch(folder, "a.jpg")
    _touch(other, "b.jpg")
    first = link_folder(root, folder)
    first.unlink()
    first.symlink_to(other)
    second = link_folder(root, folder)
    assert (first.resolve(), second.resolve()) == (other, folder)


class Storages:
    """Label Studio's API, as far as storages of local files go."""

    def __init__(self, *paths: Path) -> None:
        self.paths = {number: str(path) for number, path in enumerate(paths, 1)}
        self.changes = 0

    def request(self, method: str, path: str, **options: Any) -> Any:
        if path == "/api/projects/":
            return {"results": [{"id": 3}]}
        if method == "GET":
            assert options["params"] == {"project": 3}
            return [{"id": number, "path": path} for number, path in self.paths.items()]
        self.paths[int(path.rpartition("/")[2])] = options["json"]["path"]
        self.changes += 1
        return None


def test_storages_of_a_moved_data_folder_follow_it_and_others_stay(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    for name in ("here-1", "here-2"):
        (root / name).symlink_to(tmp_path)
    api = Storages(root / "here-1", Path("/old/photos/here-2"), Path("/elsewhere/of-the-user"))
    follow_links(cast(LabelStudioApi, api), root)
    assert list(api.paths.values()) == [str(root / "here-1"), str(root / "here-2"), "/elsewhere/of-the-user"]
    assert api.changes == 1


class Project:
    """Label Studio's API, as far as the tasks of one project go."""

    def __init__(self) -> None:
        self.paths: list[str] = []

    def request(self, method: str, path: str, **options: Any) -> Any:
        match method, path:
            case "GET", "/api/storages/localfiles":
                return []
            case "GET", "/api/tasks/":
                tasks = [{"data": {"image": photo_url(path)}} for path in self.paths]
                return {"tasks": tasks, "total": len(tasks)}
            case "POST", "/api/projects/3/import":
                self.paths += [served_path(task["image"]) or "" for task in options["json"]]
        return None

    def add(self, root: Path, folder: Path) -> int:
        return import_photos(cast(LabelStudioApi, self), 3, link_folder(root, folder))


def test_a_photo_is_imported_once_whichever_folder_it_is_found_by(tmp_path: Path) -> None:
    root, project = tmp_path / "root", Project()
    root.mkdir()
    _touch(tmp_path, "cars/new/a.jpg", "cars/new/b.jpg", "cars/c.jpg")
    assert project.add(root, tmp_path / "cars" / "new") == 2
    assert project.add(root, tmp_path / "cars") == 1
    assert project.add(root, tmp_path / "cars" / "new") == 0
    assert sorted(path.rpartition("/")[2] for path in project.paths) == ["a.jpg", "b.jpg", "c.jpg"]


def test_a_file_with_a_second_name_in_its_folder_is_one_photo(tmp_path: Path) -> None:
    root, project = tmp_path / "root", Project()
    root.mkdir()
    _touch(tmp_path, "cars/a.jpg")
    (tmp_path / "cars" / "best.jpg").symlink_to("a.jpg")
    assert project.add(root, tmp_path / "cars") == 1
