"""The webhook by which Label Studio tells of new labels."""

from typing import Any

from backend.backend_address import BackendAddress, refusal_advice
from backend.labelstudio import LabelStudioApi
from carcond.errors import LabelStudioError

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


def read_webhooks(api: LabelStudioApi, project_id: int) -> list[dict[str, Any]]:
    """The webhooks of a project, as Label Studio has them."""
    return list(api.request("GET", "/api/webhooks/", params={"project": project_id}))


def wanted_webhook(backend: BackendAddress) -> dict[str, Any]:
    """What the backend's webhook has to be."""
    return {
        "url": backend.webhook_url,
        "send_payload": True,
        "send_for_all_actions": False,
        "actions": list(WEBHOOK_ACTIONS),
        "headers": backend.webhook_headers,
        "is_active": True,
    }


def webhook_faults(hook: dict[str, Any], backend: BackendAddress) -> list[str]:
    """Names of the fields in which a webhook is not as it has to be."""
    wanted = wanted_webhook(backend)
    return [name for name, value in wanted.items() if _comparable(hook.get(name)) != _comparable(value)]


def _comparable(value: Any) -> Any:
    return sorted(value) if isinstance(value, list) else value


def ensure_webhook(api: LabelStudioApi, backend: BackendAddress, project_id: int) -> bool:
    """See that the webhook is really there, as it should be, and tell whether it had to be made.

    Label Studio makes it when a backend is connected, and says nothing when that fails.

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
            f"the webhook to {backend.webhook_url}, which tells of new labels, cannot be made: "
            f"{refusal_advice(str(error), backend) or 'Label Studio refused'} ({error})",
            error.status,
        ) from error


def remove_webhook(api: LabelStudioApi, hook: dict[str, Any]) -> None:
    """Remove a webhook."""
    api.request("DELETE", f"/api/webhooks/{hook['id']}/")


def remove_stale_webhooks(api: LabelStudioApi, backend: BackendAddress, project_id: int, stale_url: str | None) -> int:
    """Remove doubles of the backend's webhook, and those to an address that it has left.

    Args:
        api: the way to Label Studio.
        backend: where the backend is.
        project_id: whose webhooks.
        stale_url: of the backend, before it moved; None when it did not.

    Returns:
        How many were removed.
    """
    hooks = read_webhooks(api, project_id)
    doubled = [hook for hook in hooks if hook["url"] == backend.webhook_url][1:]
    left = [hook for hook in hooks if stale_url and hook["url"] == BackendAddress(stale_url).webhook_url]
    for hook in doubled + left:
        remove_webhook(api, hook)
    return len(doubled) + len(left)
