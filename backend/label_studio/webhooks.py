"""The webhook with which Label Studio reports new labels."""

from typing import Any

from backend.label_studio.answers import Row, read_id, read_objects, read_text
from backend.label_studio.backend_address import BackendAddress, refusal_advice
from backend.label_studio.client import LabelStudioApi
from carcond.errors import LabelStudioError

# Actions that change labels, photos or the label config. Label Studio has more, of no use here.
WEBHOOK_ACTIONS = (
    "ANNOTATIONS_CREATED",
    "ANNOTATIONS_DELETED",
    "ANNOTATION_CREATED",
    "ANNOTATION_UPDATED",
    "PROJECT_UPDATED",
    "TASKS_CREATED",
    "TASKS_DELETED",
)


def read_webhooks(api: LabelStudioApi, project_id: int) -> list[dict[str, Any]]:
    """Webhooks of a project, as Label Studio stores them."""
    hooks = api.request("GET", "/api/webhooks/", params={"project": project_id})
    return [_checked(hook) for hook in read_objects(hooks, "webhooks")]


def _checked(hook: Row) -> Row:
    """A webhook whose fields are of the types that Label Studio gives them."""
    actions, headers = hook.get("actions"), hook.get("headers")
    actions = [each for each in actions if isinstance(each, str)] if isinstance(actions, list) else []
    flags = {name: bool(hook.get(name)) for name in ("send_payload", "send_for_all_actions", "is_active")}
    known = {"id": read_id(hook), "url": read_text(hook, "url"), "actions": actions}
    return hook | flags | known | {"headers": headers if isinstance(headers, dict) else {}}


def wanted_webhook(backend: BackendAddress) -> dict[str, Any]:
    """Expected fields of the backend's webhook."""
    return {
        "url": backend.webhook_url,
        "send_payload": True,
        "send_for_all_actions": False,
        "actions": list(WEBHOOK_ACTIONS),
        "headers": backend.webhook_headers,
        "is_active": True,
    }


def webhook_faults(hook: dict[str, Any], backend: BackendAddress) -> list[str]:
    """Names of the fields in which a webhook differs from the expected one."""
    wanted = wanted_webhook(backend)
    return [name for name, value in wanted.items() if _comparable(hook.get(name)) != _comparable(value)]


def _comparable(value: Any) -> Any:
    return sorted(value) if isinstance(value, list) else value


def ensure_webhook(api: LabelStudioApi, backend: BackendAddress, project_id: int) -> bool:
    """Ensure that the webhook exists with the expected fields, and return whether it was created.

    Label Studio creates it when a backend is connected, and reports no failure.

    Raises:
        LabelStudioError: it cannot be made; the text says what to change.
    """
    hook = next((hook for hook in read_webhooks(api, project_id) if hook["url"] == backend.webhook_url), None)
    if hook is None:
        _create(api, backend, project_id)
    elif webhook_faults(hook, backend):
        api.request("PATCH", f"/api/webhooks/{hook['id']}/", json=wanted_webhook(backend))
    return hook is None


def _create(api: LabelStudioApi, backend: BackendAddress, project_id: int) -> None:
    try:
        api.request("POST", "/api/webhooks/", json={"project": project_id, **wanted_webhook(backend)})
    except LabelStudioError as error:
        raise LabelStudioError(
            f"the webhook to {backend.webhook_url}, which reports new labels, cannot be made: "
            f"{refusal_advice(str(error), backend) or 'Label Studio refused'} ({error})",
            error.status,
        ) from error


def remove_webhook(api: LabelStudioApi, hook: dict[str, Any]) -> None:
    """Remove a webhook."""
    api.request("DELETE", f"/api/webhooks/{hook['id']}/")


def remove_stale_webhooks(api: LabelStudioApi, backend: BackendAddress, project_id: int, stale_url: str | None) -> int:
    """Remove duplicates of the backend's webhook, and those to its former address.

    Args:
        api: Label Studio's client.
        backend: address of the backend.
        project_id: of the webhooks.
        stale_url: of the backend, before it moved; None when it did not.

    Returns:
        Number of removed webhooks.
    """
    hooks = read_webhooks(api, project_id)
    doubled = [hook for hook in hooks if hook["url"] == backend.webhook_url][1:]
    left = [hook for hook in hooks if stale_url and hook["url"] == BackendAddress(stale_url).webhook_url]
    for hook in doubled + left:
        remove_webhook(api, hook)
    return len(doubled) + len(left)
