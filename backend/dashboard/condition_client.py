"""Client of the running backend's JSON API, as any application uses it."""

from collections.abc import Mapping
from enum import StrEnum

import httpx
from pydantic import ValidationError

from backend.label_studio.backend_address import default_backend_url
from backend.project.condition_schema import PROBLEM_TYPE, ConditionAnswer
from carcond.errors import BackendError
from carcond.reports.mobile_form import Language
from carcond.settings import Settings

# The first photo after a start waits until the encoder is loaded.
_TIMEOUT_S = 30.0


class Refusal(StrEnum):
    """Reason why there is no condition, as far as it matters to the person with the photo."""

    NO_PHOTO = "no_photo"
    TOO_LARGE = "too_large"
    TOO_MANY_PIXELS = "too_many_pixels"
    TOO_MANY_PHOTOS = "too_many_photos"
    NOT_READY = "not_ready"
    AWAY = "away"
    NOT_LET_IN = "not_let_in"
    OTHER = "other"


class ConditionRefusedError(BackendError):
    """There is no condition. The text is for whoever runs the backend, `refusal` for the person with the photo."""

    def __init__(self, refusal: Refusal, text: str) -> None:
        super().__init__(text)
        self.refusal = refusal


_BY_STATUS: Mapping[int, Refusal] = {
    httpx.codes.UNAUTHORIZED: Refusal.NOT_LET_IN,
    httpx.codes.REQUEST_ENTITY_TOO_LARGE: Refusal.TOO_LARGE,
    httpx.codes.UNPROCESSABLE_ENTITY: Refusal.NO_PHOTO,
    httpx.codes.TOO_MANY_REQUESTS: Refusal.TOO_MANY_PHOTOS,
    httpx.codes.SERVICE_UNAVAILABLE: Refusal.NOT_READY,
}


def ask_condition(settings: Settings, project: int, photo: bytes, language: Language) -> ConditionAnswer:
    """Request the condition of one photo, with the class activation map.

    Raises:
        ConditionRefusedError: the backend could not be reached, or refused.
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
        raise ConditionRefusedError(
            Refusal.AWAY,
            f"The backend at {base} could not be reached ({type(error).__name__}): is it running, and is "
            "CARCOND_BACKEND_URL right?",
        ) from error
    if not response.is_success:
        raise _refused(base, response)
    try:
        return ConditionAnswer.model_validate_json(response.content)
    except ValidationError:
        text = f"Expected the condition of a car from {base}, got something else: {_NOT_OURS}"
        raise ConditionRefusedError(Refusal.OTHER, text) from None


_NOT_OURS = "is CARCOND_BACKEND_URL right, and the backend of the same version?"


def _refused(base: str, response: httpx.Response) -> ConditionRefusedError:
    if response.headers.get("content-type") != PROBLEM_TYPE:
        text = f"The backend at {base} answered HTTP {response.status_code}: {_NOT_OURS}"
        return ConditionRefusedError(Refusal.OTHER, text)
    return ConditionRefusedError(_BY_STATUS.get(response.status_code, Refusal.OTHER), _problem_text(response))


def _problem_text(response: httpx.Response) -> str:
    detail = str(response.json().get("detail"))
    if response.status_code == httpx.codes.UNAUTHORIZED:
        return (
            "The backend does not know the demo's token: set CARCOND_DEMO_TOKEN to one whose SHA-256 is in the "
            "backend's CARCOND_API_TOKENS."
        )
    return f"The backend did not judge the photo: {detail}"
