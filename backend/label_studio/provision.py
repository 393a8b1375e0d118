"""Brings one Label Studio project into the state that the loop needs; idempotent.

Annotations, tasks and a label config that already asks for the right things are never touched.
"""

import logging
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from backend.label_studio.answers import Row, read_id, read_object, read_objects, read_text
from backend.label_studio.backend_address import BackendAddress
from backend.label_studio.client import LabelStudioApi
from backend.label_studio.data_manager import NEXT_TO_LABEL, put_first_tab
from backend.label_studio.label_config import LabelBinding, bind_label_config
from backend.label_studio.ml_backends import find_ours, is_connected, read_backends, save_backend
from backend.label_studio.webhooks import ensure_webhook, remove_stale_webhooks
from carcond.errors import LabelConfigError, LabelStudioError

logger = logging.getLogger(__name__)

PROJECT_TITLE = "Car condition"
SAMPLING = "Uncertainty sampling"
WANTED_SETTINGS = {"sampling": SAMPLING, "show_collab_predictions": True}
"""Settings of a project without which Label Studio neither follows the queue's order nor shows pre-labels."""
LABEL_CONFIGS = ("plain", "boxes", "russian")
"""Label configs for new projects. `boxes` adds suspected damage and the reason; `russian` is that in Russian alone."""
_EMPTY_CONFIG = "<View></View>"
# More projects than this are paged; a stack on one machine has few.
_ALL = 1000


@dataclass(frozen=True)
class ProvisionReport:
    """Result of provisioning.

    Attributes:
        project_id: the project.
        project_created: whether it is new.
        backend_connected: whether the backend was connected or moved just now.
        webhook_created: whether the webhook was created.
        webhooks_removed: number of duplicates, and of those to a former address of the backend.
        tab_created: whether the tab that leads to the queue was created.
    """

    project_id: int
    project_created: bool
    backend_connected: bool
    webhook_created: bool
    webhooks_removed: int
    tab_created: bool


def provision(
    api: LabelStudioApi, backend: BackendAddress, title: str = PROJECT_TITLE, project_id: int | None = None
) -> ProvisionReport:
    """Find or create the project, and connect the backend to it.

    Args:
        api: Label Studio's client.
        backend: the backend, which has to be up: Label Studio calls it when it is connected.
        title: of the project, to find or make it by.
        project_id: of the project when it is known; the title serves when it does not exist any more.

    Raises:
        LabelStudioError: Label Studio refused; the text says what to change.
        LabelConfigError: the project's label config asks for something else.
    """
    found, created = find_or_create_project(api, title, project_id)
    connected, stale_url = _connect(api, backend, found)
    removed = remove_stale_webhooks(api, backend, found, stale_url)
    made = ensure_webhook(api, backend, found)
    tab = put_first_tab(api, found, NEXT_TO_LABEL)
    return ProvisionReport(found, created, connected, made, removed, tab)


def follow_backend(api: LabelStudioApi, backend: BackendAddress, former_url: str) -> list[int]:
    """Connect the backend's present address in all projects that have its former one, and return their ids.

    A project that Label Studio refuses to change is told in the log.

    Raises:
        LabelStudioError: Label Studio does not list its projects.
    """
    moved = []
    for project_id in project_ids(api):
        try:
            ours = find_ours(read_backends(api, project_id))
            if ours and ours["url"].rstrip("/") == former_url:
                save_backend(api, backend, project_id, ours)
                remove_stale_webhooks(api, backend, project_id, former_url)
                ensure_webhook(api, backend, project_id)
                moved.append(project_id)
        except LabelStudioError as error:
            logger.warning("project %d does not find the backend at %s: %s", project_id, backend.url, error)
    return moved


def project_ids(api: LabelStudioApi) -> list[int]:
    """Ids of Label Studio's projects.

    Raises:
        LabelStudioError: Label Studio refused.
    """
    reply = read_object(api.request("GET", "/api/projects/", params={"page_size": _ALL, "include": "id"}), "projects")
    return [read_id(row) for row in read_objects(reply.get("results"), "projects")]


def find_or_create_project(
    api: LabelStudioApi, title: str = PROJECT_TITLE, project_id: int | None = None, label_config: str = "plain"
) -> tuple[int, bool]:
    """Id of the project, with label config and sampling set, and whether it is new.

    Args:
        api: Label Studio's client.
        title: of the project, to find or make it by.
        project_id: of the project when it is known; the title serves when it does not exist any more.
        label_config: one of `LABEL_CONFIGS`, for a project that has none yet.

    Raises:
        LabelStudioError: Label Studio refused.
        LabelConfigError: the project's label config asks for something else.
    """
    project = _find_project(api, title, project_id)
    if project is None:
        made = api.request("POST", "/api/projects/", json={"title": title, **_wanted_settings({}, label_config)})
        return read_id(read_object(made, "a project")), True
    changes = _wanted_settings(project, label_config)
    if changes:
        api.update_project(read_id(project), **changes)
    return read_id(project), False


def shipped_label_config(name: str = "plain") -> str:
    """A label config for a new project: both questions, with hotkeys.

    Args:
        name: one of `LABEL_CONFIGS`.
    """
    return files("backend.label_studio").joinpath("label_configs", f"{name}.xml").read_text(encoding="utf-8")


def _find_project(api: LabelStudioApi, title: str, project_id: int | None) -> dict[str, Any] | None:
    if project_id is not None:
        try:
            return _titled(api.request("GET", f"/api/projects/{project_id}/"))
        except LabelStudioError as error:
            if error.status != 404:
                raise
    reply = read_object(api.request("GET", "/api/projects/", params={"title": title, "page_size": 100}), "projects")
    # Label Studio finds every title that contains the words.
    found = map(_titled, read_objects(reply.get("results"), "projects"))
    return min((project for project in found if project["title"] == title), key=read_id, default=None)


def _titled(answer: object) -> Row:
    """A project with a number, a title and a label config."""
    project = read_object(answer, "a project")
    texts = {name: read_text(project, name) for name in ("title", "label_config")}
    return project | texts | {"id": read_id(project)}


def _wanted_settings(project: dict[str, Any], label_config: str) -> dict[str, Any]:
    """The settings that differ from what the loop needs."""
    wanted: dict[str, Any] = dict(WANTED_SETTINGS)
    config = str(project.get("label_config") or _EMPTY_CONFIG)
    if "".join(config.split()) == _EMPTY_CONFIG:
        wanted["label_config"] = shipped_label_config(label_config)
    else:
        check_config(config, project)
    return {name: value for name, value in wanted.items() if project.get(name) != value}


def check_config(config: str, project: dict[str, Any]) -> LabelBinding:
    """Bind a project's label config.

    Raises:
        LabelConfigError: for none of our tasks; the text names the project and what to do.
    """
    try:
        return bind_label_config(config)
    except LabelConfigError as error:
        raise LabelConfigError(
            f"project {project['id']} ({project['title']!r}) cannot be used: {error}. "
            "Change it under Settings > Labeling Interface, or choose another project"
        ) from error


def _connect(api: LabelStudioApi, backend: BackendAddress, project_id: int) -> tuple[bool, str | None]:
    """Connect the backend or bring its address up to date.

    Returns:
        Whether anything was done, and the address that the backend has left.
    """
    existing = read_backends(api, project_id)
    ours = find_ours(existing)
    if existing and existing[0] is not ours:
        raise LabelStudioError(
            f"project {project_id} has the ML backend {existing[0]['title']!r} at {existing[0]['url']} connected, and "
            "Label Studio asks only the first one: remove it under Settings > Model, then try again"
        )
    # Read again at every start: the state shows whether address and password still work.
    if ours and is_connected(ours, backend):
        return False, None
    save_backend(api, backend, project_id, ours)
    return True, ours["url"] if ours and ours["url"] != backend.url else None
