"""Errors of the JSON API as problem details (RFC 9457): one object, one sentence, no traceback."""

import logging

from flask import Response, jsonify, request
from werkzeug.exceptions import HTTPException
from werkzeug.http import HTTP_STATUS_CODES

from backend.project.condition_schema import PROBLEM_TYPE
from carcond.errors import CarcondError

logger = logging.getLogger(__name__)


class ProblemError(CarcondError):
    """A request that the API refuses.

    Attributes:
        status: of HTTP.
        headers: that go with the answer.
    """

    def __init__(self, status: int, detail: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(detail)
        self.status = status
        self.headers = headers or {}


def problem_response(error: Exception) -> Response:
    """Answer to a failed request; details of internal errors stay in the log."""
    if isinstance(error, ProblemError):
        return _response(error.status, str(error), error.headers)
    if isinstance(error, HTTPException):
        headers = {name: value for name, value in error.get_headers() if name in ("Allow", "Retry-After")}
        return _response(error.code or 500, error.description or "", headers)
    logger.error("%s failed", request.path, exc_info=error)
    return _response(500, "an unexpected error; see the backend's log", {})


def _response(status: int, detail: str, headers: dict[str, str]) -> Response:
    # Without a `type`, a problem has the meaning of its status (about:blank), and so has its title.
    response = jsonify(title=HTTP_STATUS_CODES.get(status, "Error"), status=status, detail=detail)
    response.status_code = status
    response.content_type = PROBLEM_TYPE
    response.headers.update(headers)
    return response
