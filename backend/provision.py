"""Brings one Label Studio project into the state that the loop needs. Doing it twice changes nothing more.

Annotations, tasks and a label config that already asks for the right things are never touched.
"""

from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from backend.backend_address import BackendAddress
from backend.label_config import LabelBinding, bind_label_config
from backend.labelstudio import LabelStudioApi
from backend.ml_backends import find_ours, is_connected, read_backends, save_backend
from backend.webhooks import ensure_webhook, remove_stale_webhooks
from carcond.errors import LabelConfigError, LabelStudioError

PROJECT_TITLE = "Car condition"
SAMPLING = "Uncertainty sampling"
WANTED_SETTINGS = {"sampling": SAMPLING, "show_collab_predictions": True}
"""Settings of a project without which Label Studio neither follows the queue's order nor shows pre-labels."""
LABEL_CONFIGS = ("plain", "boxes", "russian")
"""What new projects may ask with. `boxes` adds suspected damage and the reason; `russian` is that in Russian alone."""
_EMPTY_CONFIG = "<View></View>"


@dataclass(frozen=True)
class ProvisionReport:
    """What was found and done.

    Attributes:
        project_id: the project.
        project_created: whether it is new.
        backend_connected: whether the backend was connected or moved just now.
        webhook_created: whether the webhook had to be made by us.
        webhooks_removed: doubled ones, and those to an address that the backend has left.
    """

    project_id: int
    project_created: bool
    backend_connected: bool
    webhook_created: bool
    webhooks_removed: int


def provision(
    api: LabelStudioApi, backend: BackendAddress, title: str = PROJECT_TITLE, project_id: int | None = None
) -> ProvisionReport:
    """Find or make the project, and connect the backend to it.

    Args:
        api: the way to Label Studio.
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
    return ProvisionReport(found, created, connected, made, removed)


def find_or_create_project(
    api: LabelStudioApi, title: str = PROJECT_TITLE, project_id: int | None = None, label_config: str = "plain"
) -> tuple[int, bool]:
    """The id of the project, with label config and sampling set, and whether it is new.

    Args:
        api: the way to Label Studio.
        title: of the project, to find or make it by.
        project_id: of the project when it is known; the title serves when it does not exist any more.
        label_config: one of `LABEL_CONFIGS`, for a project that has none yet.

    Raises:
        LabelStudioError: Label Studio refused.
        LabelConfigError: the project's label config asks for something else.
    """
    project = _find_project(api, title, project_id)
    if project is None:
        project = api.request("POST", "/api/projects/", json={"title": title, **_wanted_settings({}, label_config)})
        return int(project["id"]), True
    changes = _wanted_settings(project, label_config)
    if changes:
        api.update_project(int(project["id"]), **changes)
    return int(project["id"]), False


def shipped_label_config(name: str = "plain") -> str:
    """A label config for a new project: both questions, with hotkeys.

    Args:
        name: one of `LABEL_CONFIGS`.
    """
    return files("backend").joinpath("label_configs", f"{name}.xml").read_text(encoding="utf-8")


def _find_project(api: LabelStudioApi, title: str, project_id: int | None) -> dict[str, Any] | None:
    if project_id is not None:
        try:
            return dict(api.request("GET", f"/api/projects/{project_id}/"))
        except LabelStudioError as error:
            if error.status != 404:
                raise
    reply = api.request("GET", "/api/projects/", params={"title": title, "page_size": 100})
    # Label Studio finds every title that contains the words.
    same = [project for project in reply["results"] if project["title"] == title]
    return min(same, key=lambda project: int(project["id"]), default=None)


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
    """What a project's label config asks for.

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
    # Read anew at every start: the state tells whether address and password still work.
    if ours and is_connected(ours, backend):
        return False, None
    save_backend(api, backend, project_id, ours)
    return True, ours["url"] if ours and ours["url"] != backend.url else None
