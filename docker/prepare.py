"""`python -m docker.prepare`: one project with photos, connected to the backend. Safe to repeat."""

import json
import logging
import os
import sys
import time
from pathlib import Path

from backend.label_studio.backend_address import BackendAddress
from backend.label_studio.client import LabelStudioApi
from backend.label_studio.ml_backends import BACKEND_TITLE
from backend.label_studio.provision import PROJECT_TITLE, SAMPLING, find_or_create_project, provision
from backend.label_studio.way_in import project_url
from backend.label_studio.webhooks import read_webhooks
from carcond.data.synthetic_photos import draw_samples
from carcond.errors import CarcondError, LabelStudioError
from carcond.settings import get_settings
from scripts.photo_import import PHOTO_SUFFIXES, import_photos
from scripts.preflight import StackError

# The same paths in Label Studio's container, which serves them.
PHOTOS = Path("/label-studio/files/photos")
SAMPLES = Path("/label-studio/files/samples")
STATE = Path("/setup/projects.json")
BACKEND_URL = "http://backend.carcond.internal:9090"
SAMPLE_COUNT = 60
_TITLES = {"photos": PROJECT_TITLE, "samples": f"{PROJECT_TITLE} (drawn samples)"}
_PATIENCE_S = 60.0


def main() -> None:
    """Run the service."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    try:
        project_id = prepare(LabelStudioApi.from_settings(get_settings()))
    except CarcondError as error:
        sys.exit(f"setup: {error}")
    _say(f"label at {project_url(os.environ['LABEL_STUDIO_HOST'], project_id)}")
    _say("to see e-mail, password and what to click: docker compose run --rm secrets login")


def prepare(api: LabelStudioApi) -> int:
    """Make or find the project, import new photos, connect the backend, and verify the result."""
    known: dict[str, int] = json.loads(STATE.read_text(encoding="utf-8")) if STATE.exists() else {}
    _check_readable(PHOTOS)
    # Drawings are never mixed with real photos: they have a project of their own.
    kind = "photos" if "photos" in known or _has_photos(PHOTOS) else "samples"
    project_id, _ = find_or_create_project(api, _TITLES[kind], known.get(kind))
    STATE.write_text(json.dumps(known | {kind: project_id}) + "\n", encoding="utf-8")
    _import(api, project_id, kind)
    backend = BackendAddress.of(BACKEND_URL, get_settings())
    # After the import, so that the first turn of the loop finds all photos.
    provision(api, backend, _TITLES[kind], project_id)
    verify(api, backend, project_id)
    return project_id


def _say(message: str) -> None:
    print(f"setup: {message}", flush=True)


def _check_readable(folder: Path) -> None:
    """Raise if the containers' users lack permission to read the host user's photos."""
    closed = [path for path in (folder, *folder.rglob("*")) if not os.access(path, os.R_OK)]
    if closed:
        raise StackError(
            f"{len(closed)} files or folders in ./photos cannot be read inside the containers, like "
            f"{closed[0].name!r}. "
            "Let everybody read them: chmod -R a+rX photos"
        )


def _has_photos(folder: Path) -> bool:
    return any(path.suffix.lower() in PHOTO_SUFFIXES for path in folder.rglob("*"))


def _import(api: LabelStudioApi, project_id: int, kind: str) -> None:
    if kind == "samples" and not _has_photos(SAMPLES):
        _say(f"no photos in ./photos: drawing {SAMPLE_COUNT} sample pictures. They are drawings, not photos of cars")
        draw_samples(SAMPLES, SAMPLE_COUNT, seed=0)
    folder = SAMPLES if kind == "samples" else PHOTOS
    if kind == "photos" and not _has_photos(folder):
        _say("no photos in ./photos any more: tasks whose photo is gone show no picture")
        return
    count = import_photos(api, project_id, folder)
    _say(f"{count} new photos imported" if count else "all photos are imported already")


def verify(api: LabelStudioApi, backend: BackendAddress, project_id: int) -> None:
    """Verify the project in Label Studio, which does not report all failures.

    Raises:
        LabelStudioError: its state differs from the requested one.
    """
    hooks = read_webhooks(api, project_id)
    if [hook["is_active"] for hook in hooks if hook["url"] == backend.webhook_url] != [True]:
        # Not the webhooks themselves: their headers carry the backend's password.
        active = ", ".join(str(hook["is_active"]) for hook in hooks) or "none"
        raise LabelStudioError(
            f"expected one active webhook from Label Studio to {backend.webhook_url}, it has {len(hooks)} webhooks, "
            f"active: {active}"
        )
    project = api.project(project_id)
    if project.sampling != SAMPLING:
        raise LabelStudioError(f"expected the project's sampling to be {SAMPLING!r}, it is {project.sampling!r}")
    deadline = time.monotonic() + _PATIENCE_S
    # Label Studio itself begins with the name under which the backend is connected.
    while project.model_version in ("", BACKEND_TITLE) and time.monotonic() < deadline:
        time.sleep(1.0)
        project = api.project(project_id)
    if project.model_version not in ("", BACKEND_TITLE):
        _say(f"webhook, sampling and version are as they should be; {project.model_version} is serving")
    else:
        # Thousands of new photos are embedded before the first queue is published.
        _say("webhook and sampling are as they should be. No version yet: the worker is still embedding the photos")


if __name__ == "__main__":
    main()
