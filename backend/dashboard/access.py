"""Access control of the demo and the dashboard: the backend's user and password.

Every page, picture and websocket requires them. Browsers send a password with pages, but not all of them with
websockets, so a cookie stands for it afterwards. Without a password in the settings, only this machine is answered.
"""

import hashlib
import hmac
from base64 import b64decode
from http.cookies import CookieError, SimpleCookie
from ipaddress import ip_address
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from carcond.settings import Settings

OPEN_PATHS = ("/health", "/_stcore/health")
"""Paths answered without credentials: health checks."""

_COOKIE = "carcond_demo"


class AskWho:
    """ASGI middleware: admits authorized requests."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app = app
        password = settings.basic_auth_password.get_secret_value()
        self._credentials = f"{settings.basic_auth_user}:{password}" if password else ""
        # The cookie grants access, but does not reveal the password.
        self._cookie = hmac.new(self._credentials.encode(), b"carcond demo", hashlib.sha256).hexdigest()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or refuse it."""
        if scope["type"] not in ("http", "websocket") or scope["path"] in OPEN_PATHS:
            await self._app(scope, receive, send)
        elif not self._credentials:
            if _is_local(scope):
                await self._app(scope, receive, send)
            else:
                await _refuse(scope, receive, send, 403, _LOCAL_ONLY)
        elif self._has_cookie(scope):
            await self._app(scope, receive, send)
        elif self._has_password(scope):
            await self._app(scope, receive, self._with_cookie(send))
        else:
            await _refuse(scope, receive, send, 401, "expected the backend's user and password")

    def _has_password(self, scope: Scope) -> bool:
        kind, _, given = Headers(scope=scope).get("authorization", "").partition(" ")
        if kind.lower() != "basic":
            return False
        try:
            decoded = b64decode(given, validate=True)
        except ValueError:
            return False
        return hmac.compare_digest(decoded, self._credentials.encode())

    def _has_cookie(self, scope: Scope) -> bool:
        try:
            cookie = SimpleCookie(Headers(scope=scope).get("cookie", "")).get(_COOKIE)
        except CookieError:
            return False
        return cookie is not None and hmac.compare_digest(cookie.value.encode(), self._cookie.encode())

    def _with_cookie(self, send: Send) -> Send:
        async def send_with_cookie(message: Message) -> None:
            if message["type"] == "http.response.start":
                # Not for scripts, and not for pages of other sites.
                cookie = f"{_COOKIE}={self._cookie}; Path=/; HttpOnly; SameSite=Strict"
                message["headers"] = [*message.get("headers", ()), (b"set-cookie", cookie.encode())]
            await send(message)

        return send_with_cookie


def _is_local(scope: Scope) -> bool:
    """True if the request comes from this machine, and names it by a loopback host.

    Against DNS rebinding: a page of another site could have its name resolve here; its requests carry that name.
    """
    try:
        host = urlsplit("//" + Headers(scope=scope).get("host", "")).hostname or ""
    except ValueError:  # brackets that do not match
        return False
    return _is_loopback((scope.get("client") or ("",))[0]) and _is_loopback(host)


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


_LOCAL_ONLY = (
    "this page is shown on its own machine only: to see it from elsewhere, "
    "set CARCOND_BASIC_AUTH_USER and CARCOND_BASIC_AUTH_PASSWORD"
)


async def _refuse(scope: Scope, receive: Receive, send: Send, status: int, words: str) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1008, "reason": "refused"})
        return
    headers = {"WWW-Authenticate": 'Basic realm="carcond"'} if status == 401 else {}
    await PlainTextResponse(f"{words}\n", status, headers)(scope, receive, send)
