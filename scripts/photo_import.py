"""Import of a folder's photos as Label Studio tasks, without copies: Label Studio serves the folder via a symlink."""

import hashlib
import logging
import os
import re
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

from backend.label_studio.client import LabelStudioApi
from backend.label_studio.provision import project_ids
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
        StackError: it is not a folder, cannot be read, or has no photos.
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
            f"no photos in {folder}: expected files that end in {', '.join(PHOTO_SUFFIXES)} in it or its folders"
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
    """Link a folder below the root that Label Studio serves.

    Returns:
        The link: an existing one to the folder, or a new one named after the folder's path.
    """
    target = folder.resolve()
    for known in linked_folders(photos_root):
        if known.resolve() == target:
            return known
    slug = re.sub(r"[^A-Za-z0-9_-]+", "-", target.name).strip("-") or "photos"
    link = photos_root / f"{slug}-{hashlib.sha256(os.fsencode(target)).hexdigest()[:8]}"
    if link.is_symlink():  # to another folder
        link = photos_root / f"{link.name}-{secrets.token_hex(4)}"
    link.symlink_to(target, target_is_directory=True)
    return link


def linked_folders(photos_root: Path) -> list[Path]:
    """The existing links, broken ones included."""
    return sorted(path for path in photos_root.iterdir() if path.is_symlink())


def photo_url(path: str) -> str:
    """The address under which Label Studio serves a path below its root, fit for a task's data."""
    return f"{_LOCAL_FILES}?d={quote(path, safe='/')}"


def served_path(url: str) -> str | None:
    """Path below the root of a local-files address; None for other addresses."""
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
    """Make a task of every photo of a linked folder without one, also under another folder or link.

    Args:
        api: client of Label Studio.
        project_id: the target project.
        link: from `link_folder`.
        on_progress: called with the number of imported photos and the number of new ones.

    Returns:
        Number of new photos.

    Raises:
        StackError: there are no photos.
        LabelStudioError: Label Studio refused.
    """
    _permit_serving(api, project_id, link)
    new = _without_task(link, set(_imported_paths(api, project_id)))
    for start in range(0, len(new), _CHUNK):
        chunk = new[start : start + _CHUNK]
        tasks = [{"image": photo_url(path)} for path in chunk]
        api.request("POST", f"/api/projects/{project_id}/import", json=tasks)
        on_progress(start + len(chunk), len(new))
    return len(new)


def _without_task(link: Path, imported: set[str]) -> list[str]:
    """Paths below the root of those photos of a linked folder that are not among the imported ones.

    A file with two paths, since a folder and one within it are linked, is one photo.
    """
    root = link.parent
    known = {os.path.realpath(root / path) for path in imported}
    new = []
    for photo in find_photos(link):
        path = f"{link.name}/{photo.as_posix()}"
        file = os.path.realpath(root / path)
        if path not in imported and file not in known:
            known.add(file)
            new.append(path)
    return new


def _permit_serving(api: LabelStudioApi, project_id: int, link: Path) -> None:
    """Label Studio serves a file only to people who may see a project with a storage over its folder."""
    storages = api.request("GET", "/api/storages/localfiles", params={"project": project_id})
    if any(storage["path"] == str(link) for storage in storages):
        return
    storage = {"project": project_id, "title": link.name, "path": str(link), "use_blob_urls": True}
    api.request("POST", "/api/storages/localfiles", json=storage)


def follow_links(api: LabelStudioApi, photos_root: Path) -> None:
    """Update the paths of local storages in Label Studio after the data folder was moved or restored elsewhere.

    Raises:
        LabelStudioError: Label Studio refused.
    """
    for project_id in project_ids(api):
        for storage in api.request("GET", "/api/storages/localfiles", params={"project": project_id}):
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
