"""Brings one Label Studio project into the state that the loop needs. Doing it twice changes nothing more.

Annotations, tasks and a label config that already asks for the right things are never touched.
"""

from base64 import b64encode
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from backend.label_config import bind_label_config
from backend.labelstudio import LabelStudioApi
from carcond.errors import LabelConfigError, LabelStudioError

PROJECT_TITLE = "Car condition"
BACKEND_TITLE = "carcond"
SAMPLING = "Uncertainty sampling"
# What changes labels, photos or the label config. Label Studio has more actions, of no use here.
WEBHOOK_ACTIONS = (
    "ANNOTATIONS_CREATED",
    "ANNOTATIONS_DELETED",
    "ANNOTATION_CREATED",
    "ANNOTATION_UPDATED",
    "PROJECT_UPDATED",
    "TASKS_CREATED",
    "TASKS_DELETED",
)
_EMPTY_CONFIG = "<View></View>"


@dataclass(frozen=True)
class BackendAddress:
    """Where Label Studio finds the backend, and what it has to say there.

    Attributes:
        url: as Label Studio sees it. Its host needs a dot: Label Studio makes no webhook for another.
        user: of basic authentication; empty when the backend asks for none.
        password: of basic authentication.
    """

    url: str
    user: str = ""
    password: str = ""

    @property
    def webhook_url(self) -> str:
        """Where events go."""
        return f"{self.url.rstrip('/')}/webhook"

    @property
    def webhook_headers(self) -> dict[str, str]:
        """What webhooks have to carry: Label Studio does not use the backend's user and password for them."""
        if not self.user:
            return {}
        token = b64encode(f"{self.user}:{self.password}".encode()).decode()
        return {"Authorization": f"Basic {token}"}


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
    removed = _remove_stale_webhooks(api, backend, found, stale_url)
    made = _ensure_webhook(api, backend, found)
    return ProvisionReport(found, created, connected, made, removed)


def find_or_create_project(
    api: LabelStudioApi, title: str = PROJECT_TITLE, project_id: int | None = None
) -> tuple[int, bool]:
    """The id of the project, with label config and sampling set, and whether it is new.

    Raises:
        LabelStudioError: Label Studio refused.
        LabelConfigError: the project's label config asks for something else.
    """
    project = _find_project(api, title, project_id)
    if project is None:
        project = api.request("POST", "/api/projects/", json={"title": title, **_wanted_settings({})})
        return int(project["id"]), True
    changes = _wanted_settings(project)
    if changes:
        api.update_project(int(project["id"]), **changes)
    return int(project["id"]), False


def default_label_config() -> str:
    """The label config of a new project: both questions, in English and Russian, with hotkeys."""
    return files("backend").joinpath("label_config.xml").read_text(encoding="utf-8")


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


def _wanted_settings(project: dict[str, Any]) -> dict[str, Any]:
    """The settings that differ from what the loop needs."""
    wanted: dict[str, Any] = {"sampling": SAMPLING, "show_collab_predictions": True}
    config = str(project.get("label_config") or _EMPTY_CONFIG)
    if "".join(config.split()) == _EMPTY_CONFIG:
        wanted["label_config"] = default_label_config()
    else:
        _check_config(config, project)
    return {name: value for name, value in wanted.items() if project.get(name) != value}


def _check_config(config: str, project: dict[str, Any]) -> None:
    try:
        bind_label_config(config)
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
    existing = api.request("GET", "/api/ml/", params={"project": project_id})
    ours = next((row for row in existing if row["title"] == BACKEND_TITLE), None)
    if existing and existing[0] is not ours:
        raise LabelStudioError(
            f"project {project_id} has the ML backend {existing[0]['title']!r} at {existing[0]['url']} connected, and "
            "Label Studio asks only the first one: remove it under Settings > Model, then try again"
        )
    body: dict[str, Any] = {
        "project": project_id,
        "title": BACKEND_TITLE,
        "url": backend.url,
        "is_interactive": False,
        "auth_method": "BASIC_AUTH" if backend.user else "NONE",
    }
    if backend.user:
        body |= {"basic_auth_user": backend.user, "basic_auth_pass": backend.password}
    if ours is None:
        _save_backend(api, backend, "POST", "/api/ml/", body)
        return True, None
    # Read anew at every start: the state tells whether address and password still work.
    if ours["url"] == backend.url and ours["state"] == "CO" and ours["auth_method"] == body["auth_method"]:
        return False, None
    _save_backend(api, backend, "PATCH", f"/api/ml/{ours['id']}", body)
    return True, ours["url"] if ours["url"] != backend.url else None


def _save_backend(api: LabelStudioApi, backend: BackendAddress, method: str, path: str, body: dict[str, Any]) -> None:
    try:
        api.request(method, path, json=body)
    except LabelStudioError as error:
        advice = _refusal_advice(str(error), backend)
        raise LabelStudioError(f"the backend could not be connected: {advice} ({error})", error.status) from error


def _refusal_advice(text: str, backend: BackendAddress) -> str:
    if "reserved network address" in text:
        return (
            f"Label Studio's SSRF guard does not let it call {backend.url}. Start Label Studio with "
            "USE_DEFAULT_BANNED_SUBNETS=false and with the networks to keep closed in USER_ADDITIONAL_BANNED_SUBNETS"
        )
    if "authentication parameters" in text or "401 Client Error" in text:
        return (
            "it refused the user and password: CARCOND_BASIC_AUTH_USER and _PASSWORD must be those it was started with"
        )
    if "health check failed" in text:
        return f"Label Studio cannot reach it at {backend.url}. Is it running, and is that its name for Label Studio?"
    return "Label Studio refused"


def _webhooks(api: LabelStudioApi, project_id: int) -> list[dict[str, Any]]:
    return list(api.request("GET", "/api/webhooks/", params={"project": project_id}))


def _remove_stale_webhooks(api: LabelStudioApi, backend: BackendAddress, project_id: int, stale_url: str | None) -> int:
    hooks = _webhooks(api, project_id)
    doubled = [hook for hook in hooks if hook["url"] == backend.webhook_url][1:]
    left = [hook for hook in hooks if stale_url and hook["url"] == BackendAddress(stale_url).webhook_url]
    for hook in doubled + left:
        api.request("DELETE", f"/api/webhooks/{hook['id']}/")
    return len(doubled) + len(left)


def _ensure_webhook(api: LabelStudioApi, backend: BackendAddress, project_id: int) -> bool:
    """See that the webhook is really there, as it should be, and tell whether it had to be made.

    Label Studio makes it when a backend is connected, and says nothing when that fails.
    """
    wanted = {
        "url": backend.webhook_url,
        "send_payload": True,
        "send_for_all_actions": False,
        "actions": list(WEBHOOK_ACTIONS),
        "headers": backend.webhook_headers,
        "is_active": True,
    }
    hook = next((hook for hook in _webhooks(api, project_id) if hook["url"] == backend.webhook_url), None)
    if hook is None:
        _create_webhook(api, backend, {"project": project_id, **wanted})
    elif any(_comparable(hook.get(name)) != _comparable(value) for name, value in wanted.items()):
        api.request("PATCH", f"/api/webhooks/{hook['id']}/", json=wanted)
    return hook is None


def _comparable(value: Any) -> Any:
    return sorted(value) if isinstance(value, list) else value


def _create_webhook(api: LabelStudioApi, backend: BackendAddress, body: dict[str, Any]) -> None:
    try:
        api.request("POST", "/api/webhooks/", json=body)
    except LabelStudioError as error:
        advice = _refusal_advice(str(error), backend)
        if "valid URL" in str(error):
            advice = "Label Studio accepts only hosts with a dot in their name, like backend.carcond.internal"
        raise LabelStudioError(
            f"the webhook to {backend.webhook_url}, which tells of new labels, cannot be made: {advice} ({error})",
            error.status,
        ) from error
