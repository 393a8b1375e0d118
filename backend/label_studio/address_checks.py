"""Validation of an address by Label Studio, without saving anything.

Each request has a field that cannot be accepted, so nothing is ever saved; Label Studio still validates the address,
and says what is wrong with it.
"""

from typing import Any

from backend.label_studio.backend_address import BackendAddress
from backend.label_studio.client import LabelStudioApi
from backend.label_studio.ml_backends import BACKEND_TITLE
from carcond.errors import LabelStudioError

_IMPOSSIBLE = "nothing like this"


def backend_refusal(api: LabelStudioApi, backend: BackendAddress, project_id: int) -> str:
    """Label Studio's validation error for an ML backend at an address; never that it is unreachable."""
    body = {"project": project_id, "url": backend.url, "title": BACKEND_TITLE, "auth_method": _IMPOSSIBLE}
    return _refusal(api, "/api/ml/", body)


def webhook_refusal(api: LabelStudioApi, backend: BackendAddress, project_id: int) -> str:
    """Label Studio's validation error for the backend's webhook."""
    return _refusal(
        api, "/api/webhooks/", {"project": project_id, "url": backend.webhook_url, "is_active": _IMPOSSIBLE}
    )


def _refusal(api: LabelStudioApi, path: str, body: dict[str, Any]) -> str:
    try:
        api.request("POST", path, json=body)
    except LabelStudioError as error:
        if error.status is None:
            raise
        return str(error)
    return ""
