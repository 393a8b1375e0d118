"""Authentication to Label Studio with a legacy token, or with a personal access token."""

import threading
from collections.abc import Generator
from urllib.parse import urlsplit

import httpx

from carcond.errors import LabelStudioError


class TokenAuth(httpx.Auth):
    """Sends a legacy token as it is; trades a personal access token for short-lived access tokens.

    The credentials go to Label Studio's own host and port only, whatever address a request has.
    """

    def __init__(self, base_url: str, api_key: str) -> None:
        self._base_url = base_url
        self._origin = origin(base_url)
        self._api_key = api_key
        self._is_personal = is_personal_token(api_key)
        self._access: str | None = None
        self._lock = threading.Lock()

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        """Attach the token; on 401 refresh a personal token once and try again."""
        if not self._api_key or origin(str(request.url)) != self._origin:
            yield request
            return
        if not self._is_personal:
            request.headers["Authorization"] = f"Token {self._api_key}"
            yield request
            return
        if self._access is None:
            yield from self._refresh()
        request.headers["Authorization"] = f"Bearer {self._access}"
        response = yield request
        if response.status_code == httpx.codes.UNAUTHORIZED:
            yield from self._refresh()
            request.headers["Authorization"] = f"Bearer {self._access}"
            yield request

    def _refresh(self) -> Generator[httpx.Request, httpx.Response, None]:
        response = yield httpx.Request("POST", f"{self._base_url}/api/token/refresh/", json={"refresh": self._api_key})
        response.read()
        if response.status_code != httpx.codes.OK:
            raise LabelStudioError(
                f"Label Studio refused the personal access token (HTTP {response.status_code}): make a new one "
                "under Account & Settings and set LABEL_STUDIO_API_KEY",
                response.status_code,
            )
        try:
            access = response.json()["access"]
        except (ValueError, KeyError, TypeError, RecursionError):
            access = None
        if not isinstance(access, str) or not access.isascii() or not access.isprintable():
            raise LabelStudioError(
                f"expected an access token from {self._base_url}/api/token/refresh/, got something else: "
                "is LABEL_STUDIO_URL right?",
                response.status_code,
            )
        with self._lock:
            self._access = access


def is_personal_token(api_key: str) -> bool:
    """True if a key is a personal access token: a JSON web token, which has three parts. Legacy tokens have one."""
    return api_key.count(".") == 2


def origin(url: str) -> tuple[str, str, int]:
    """Scheme, host and port of an address: what credentials are bound to."""
    parts = urlsplit(url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    return parts.scheme, (parts.hostname or "").lower(), port
