"""Photos of a folder as Label Studio tasks. Nothing is copied: Label Studio serves the folder through a link."""

import hashlib
import logging
import os
import re
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

from backend.labelstudio import LabelStudioApi
from scripts.preflight import StackError

logger = logging.getLogger(__name__)

PHOTO_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif")
_CHUNK = 250
_PAGE = 1000
_LOCAL_FILES = "/data/local-files/"


def find_photos(folder: Path) -> list[Path]:
    """Photos in a folder and all folders in it, hidden ones left out.

    Returns:
        Paths relative to the folder, sorted.

    Raises:
        StackError: it is no folder, cannot be read, or holds no photo.
    """
    if not folder.is_dir():
        raise StackError(f"expected a folder with photos, but {folder} is {'a file' if folder.exists() else 'missing'}")
    if not os.access(folder, os.R_OK | os.X_OK):
        raise StackError(f"no permission to read the photo folder {folder}")
    photos = sorted(_walk(folder))
    readable = [photo for photo in photos if _is_unicode(photo)]
    if len(readable) < len(photos):
        logger.warning("%d photos are left out: their names are no valid UTF-8", len(photos) - len(readable))
    if not readable:
        raise StackError(
            f"no photos in {folder}: looked in it and its folders for files that end in {', '.join(PHOTO_SUFFIXES)}"
        )
    return readable


def _walk(folder: Path) -> Iterator[Path]:
    for directory, subdirectories, names in os.walk(folder):
        subdirectories[:] = [name for name in subdirectories if not name.startswith(".")]
        for name in names:
            if not name.startswith(".") and name.lower().endswith(PHOTO_SUFFIXES):
                yield (Path(directory) / name).relative_to(folder)


def _is_unicode(path: Path) -> bool:
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return False
    return True


def link_folder(photos_root: Path, folder: Path) -> Path:
    """Make a folder reachable below the root that Label Studio serves.

    Returns:
        The link: the one that leads there already, or a new one named after the folder's path.
    """
    target = folder.resolve()
    for known in linked_folders(photos_root):
        if known.resolve() == target:
            return known
    slug = re.sub(r"[^A-Za-z0-9_-]+", "-", target.name).strip("-") or "photos"
    link = photos_root / f"{slug}-{hashlib.sha256(os.fsencode(target)).hexdigest()[:8]}"
    if link.is_symlink():  # it leads elsewhere now
        link = photos_root / f"{link.name}-{secrets.token_hex(4)}"
    link.symlink_to(target, target_is_directory=True)
    return link


def linked_folders(photos_root: Path) -> list[Path]:
    """The links made so far, those whose folder is gone included."""
    return sorted(path for path in photos_root.iterdir() if path.is_symlink())


def photo_url(path: str) -> str:
    """The address under which Label Studio serves a path below its root, fit for a task's data."""
    return f"{_LOCAL_FILES}?d={quote(path, safe='/')}"


def served_path(url: str) -> str | None:
    """The path below the root that an address of a local file means; None for other addresses."""
    parts = urlsplit(url)
    if not parts.path.startswith(_LOCAL_FILES.rstrip("/")):
        return None
    return next(iter(parse_qs(parts.query).get("d", [])), None)


def import_photos(
    api: LabelStudioApi,
    project_id: int,
    link: Path,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> int:
    """Make a task of every photo of a linked folder that has none yet.

    Args:
        api: the way to Label Studio.
        project_id: the project that gets the tasks.
        link: from `link_folder`.
        on_progress: called with how many of how many new photos are imported.

    Returns:
        How many photos were new.

    Raises:
        StackError: there are no photos.
        LabelStudioError: Label Studio refused.
    """
    _permit_serving(api, project_id, link)
    known = set(_imported_paths(api, project_id))
    wanted = [f"{link.name}/{photo.as_posix()}" for photo in find_photos(link)]
    new = [path for path in wanted if path not in known]
    for start in range(0, len(new), _CHUNK):
        chunk = new[start : start + _CHUNK]
        tasks = [{"image": photo_url(path)} for path in chunk]
        api.request("POST", f"/api/projects/{project_id}/import", json=tasks)
        on_progress(start + len(chunk), len(new))
    return len(new)


def _permit_serving(api: LabelStudioApi, project_id: int, link: Path) -> None:
    """Label Studio serves a file only to people who may see a project with a storage over its folder."""
    storages = api.request("GET", "/api/storages/localfiles", params={"project": project_id})
    if any(storage["path"] == str(link) for storage in storages):
        return
    storage = {"project": project_id, "title": link.name, "path": str(link), "use_blob_urls": True}
    api.request("POST", "/api/storages/localfiles", json=storage)


def follow_links(api: LabelStudioApi, photos_root: Path) -> None:
    """Tell Label Studio the place of the links in a data folder that was moved, or restored elsewhere.

    Raises:
        LabelStudioError: Label Studio refused.
    """
    for project in api.request("GET", "/api/projects/", params={"page_size": _PAGE, "include": "id"})["results"]:
        for storage in api.request("GET", "/api/storages/localfiles", params={"project": project["id"]}):
            link = photos_root / Path(storage["path"]).name
            if link.is_symlink() and storage["path"] != str(link):
                api.request("PATCH", f"/api/storages/localfiles/{storage['id']}", json={"path": str(link)})


def _imported_paths(api: LabelStudioApi, project_id: int) -> Iterator[str]:
    page, seen, total = 1, 0, 1
    while seen < total:
        params: dict[str, Any] = {"project": project_id, "page": page, "page_size": _PAGE, "include": "id,data"}
        reply = api.request("GET", "/api/tasks/", params=params)
        if not reply["tasks"]:
            return
        for task in reply["tasks"]:
            path = served_path(str(task["data"].get("image", "")))
            if path:
                yield path
        page, seen, total = page + 1, seen + len(reply["tasks"]), int(reply["total"])
