"""The ML backends that a Label Studio project has connected, ours among them."""

from typing import Any

from backend.backend_address import BackendAddress, refusal_advice
from backend.labelstudio import LabelStudioApi
from carcond.errors import LabelStudioError

BACKEND_TITLE = "carcond"


def read_backends(api: LabelStudioApi, project_id: int) -> list[dict[str, Any]]:
    """The backends of a project, in Label Studio's order. Label Studio calls each anew to tell its `state`."""
    return list(api.request("GET", "/api/ml/", params={"project": project_id}))


def find_ours(backends: list[dict[str, Any]]) -> dict[str, Any] | None:
    """The carcond backend among a project's, wherever it is."""
    return next((row for row in backends if row["title"] == BACKEND_TITLE), None)


def is_connected(row: dict[str, Any], backend: BackendAddress) -> bool:
    """Whether Label Studio reaches a backend at this address, with this user and password: it has just tried."""
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
    """Take a backend away from its project. Its webhook stays."""
    api.request("DELETE", f"/api/ml/{row['id']}")


def auth_method(backend: BackendAddress) -> str:
    """Label Studio's word for how it introduces itself to the backend."""
    return "BASIC_AUTH" if backend.user else "NONE"
