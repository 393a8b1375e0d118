"""Asks the running backend for the condition of a car, as any application does."""

import httpx
from pydantic import ValidationError

from backend.backend_address import default_backend_url
from backend.rest.answers import ConditionAnswer
from backend.rest.problems import MEDIA_TYPE
from carcond.condition_form import Language
from carcond.errors import BackendError
from carcond.settings import Settings

# The first photo after a start waits until the encoder is loaded.
_TIMEOUT_S = 30.0


def ask_condition(settings: Settings, project: int, photo: bytes, language: Language) -> ConditionAnswer:
    """What the backend says of one photo, with the picture of where it was seen.

    Raises:
        BackendError: it could not be reached, or refused.
    """
    base = settings.backend_url or default_backend_url()
    token = settings.demo_token.get_secret_value()
    try:
        response = httpx.post(
            f"{base}/api/v1/condition",
            files={"image": ("photo", photo)},
            data={"project": str(project), "language": language, "overlay": "true"},
            headers={"Authorization": f"Bearer {token}"} if token else {},
            timeout=httpx.Timeout(_TIMEOUT_S, connect=3.0),
            trust_env=False,
        )
    except httpx.HTTPError as error:
        raise BackendError(
            f"The backend at {base} could not be reached ({type(error).__name__}): is it running, and is "
            "CARCOND_BACKEND_URL right?"
        ) from error
    if not response.is_success:
        raise BackendError(_refusal(base, response))
    try:
        return ConditionAnswer.model_validate_json(response.content)
    except ValidationError:
        raise BackendError(f"Expected the condition of a car from {base}, got something else: {_NOT_OURS}") from None


_NOT_OURS = "is CARCOND_BACKEND_URL right, and the backend of the same version?"


def _refusal(base: str, response: httpx.Response) -> str:
    if response.headers.get("content-type") != MEDIA_TYPE:
        return f"The backend at {base} answered HTTP {response.status_code}: {_NOT_OURS}"
    detail = str(response.json().get("detail"))
    if response.status_code == httpx.codes.UNAUTHORIZED:
        return (
            "The backend does not know the demo's token: set CARCOND_DEMO_TOKEN to one whose SHA-256 is in the "
            "backend's CARCOND_API_TOKENS."
        )
    return f"The backend did not judge the photo: {detail}"
