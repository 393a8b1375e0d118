"""The ML backends that a Label Studio project has connected, ours among them."""

from typing import Any

from backend.label_studio.answers import read_id, read_objects, read_text
from backend.label_studio.backend_address import BackendAddress, refusal_advice
from backend.label_studio.client import LabelStudioApi
from carcond.errors import LabelStudioError

BACKEND_TITLE = "carcond"
DISCONNECTED = "DI"
"""Label Studio's `state` of a backend that did not answer it in time."""
_TEXTS = ("title", "url", "state", "auth_method")


def read_backends(api: LabelStudioApi, project_id: int) -> list[dict[str, Any]]:
    """Backends of a project, in Label Studio's order. Label Studio calls each of them again to report its `state`."""
    rows = read_objects(api.request("GET", "/api/ml/", params={"project": project_id}), "ML backends")
    return [row | {"id": read_id(row)} | {name: read_text(row, name) for name in _TEXTS} for row in rows]


def find_ours(backends: list[dict[str, Any]]) -> dict[str, Any] | None:
    """The carcond backend among a project's, at any address."""
    return next((row for row in backends if row["title"] == BACKEND_TITLE), None)


def is_connected(row: dict[str, Any], backend: BackendAddress) -> bool:
    """True if Label Studio reaches the backend at this address, with this user and password: it has just tried."""
    return (row["url"], row["state"], row["auth_method"]) == (backend.url, "CO", auth_method(backend))


def save_backend(
    api: LabelStudioApi, backend: BackendAddress, project_id: int, ours: dict[str, Any] | None = None
) -> None:
    """Connect the backend, or move the one that is connected to this address.

    Raises:
        LabelStudioError: Label Studio refused, and nothing was changed; the text says what to do.
    """
    body: dict[str, Any] = {
        "project": project_id,
        "title": BACKEND_TITLE,
        "url": backend.url,
        "is_interactive": False,
        "auth_method": auth_method(backend),
    }
    if backend.user:
        body |= {"basic_auth_user": backend.user, "basic_auth_pass": backend.password}
    try:
        if ours is None:
            api.request("POST", "/api/ml/", json=body)
        else:
            api.request("PATCH", f"/api/ml/{ours['id']}", json=body)
    except LabelStudioError as error:
        advice = refusal_advice(str(error), backend) or "Label Studio refused"
        raise LabelStudioError(f"the backend could not be connected: {advice} ({error})", error.status) from error


def remove_backend(api: LabelStudioApi, row: dict[str, Any]) -> None:
    """Remove a backend from its project. Its webhook stays."""
    api.request("DELETE", f"/api/ml/{row['id']}")


def auth_method(backend: BackendAddress) -> str:
    """Label Studio's name of the authentication method for the backend."""
    return "BASIC_AUTH" if backend.user else "NONE"
