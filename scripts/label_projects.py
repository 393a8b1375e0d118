"""The Label Studio projects of one data folder, and the import of photos into them."""

import json
from pathlib import Path

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from backend.label_studio.client import LabelStudioApi
from backend.label_studio.provision import PROJECT_TITLE
from scripts.photo_import import import_photos, link_folder

PHOTOS = "photos"
SAMPLES = "samples"
# Drawings are never mixed with real photos: they have a project of their own.
TITLES = {PHOTOS: PROJECT_TITLE, SAMPLES: f"{PROJECT_TITLE} (drawn samples)"}
_STATE_NAME = "projects.json"


def known_projects(data_dir: Path) -> dict[str, int]:
    """Key of `TITLES` -> number in Label Studio, of the projects that were made."""
    path = data_dir / _STATE_NAME
    known: dict[str, int] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return known


def remember_project(data_dir: Path, kind: str, project_id: int) -> None:
    """Record a project's number, so that it is found under another title too."""
    known = known_projects(data_dir) | {kind: project_id}
    (data_dir / _STATE_NAME).write_text(json.dumps(known) + "\n", encoding="utf-8")


def import_with_progress(program: str, api: LabelStudioApi, project_id: int, photos_root: Path, folder: Path) -> int:
    """Import the new photos of a folder into a project, and show the progress.

    Args:
        program: prefix of the progress line.
        api: client of Label Studio.
        project_id: the target project.
        photos_root: the folder that Label Studio serves from.
        folder: with the photos.

    Returns:
        Number of new photos.

    Raises:
        StackError: there are no photos.
        LabelStudioError: Label Studio refused.
    """
    link = link_folder(photos_root, folder)
    columns = (TextColumn(f"{program}: importing photos"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns) as progress:
        bar = progress.add_task("", visible=False)
        return import_photos(
            api, project_id, link, lambda done, total: progress.update(bar, completed=done, total=total, visible=True)
        )
