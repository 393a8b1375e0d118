"""Address of the backend for Label Studio, and reasons why Label Studio refuses to call it."""

import hashlib
import hmac
import os
from base64 import b64encode
from dataclasses import dataclass, field
from typing import Self
from urllib.parse import urlsplit

from backend.label_studio.ssrf_guard import opening_lines
from carcond.settings import Settings

WEBHOOK_PATH = "/webhook"


@dataclass(frozen=True)
class BackendAddress:
    """Address and credentials with which Label Studio calls the backend.

    Attributes:
        url: as Label Studio sees it. Its host needs a dot: Label Studio makes no webhook for another.
        user: of basic authentication; empty when the backend requires none.
        password: of basic authentication.
    """

    url: str
    user: str = ""
    password: str = field(default="", repr=False)

    @classmethod
    def of(cls, url: str, settings: Settings) -> Self:
        """The backend at an address, with the user and password of the settings."""
        return cls(url, settings.basic_auth_user, settings.basic_auth_password.get_secret_value())

    @property
    def webhook_url(self) -> str:
        """Target of the webhook's events."""
        return f"{self.url.rstrip('/')}{WEBHOOK_PATH}"

    @property
    def webhook_headers(self) -> dict[str, str]:
        """Headers of the webhook: Label Studio does not send the backend's user and password with it.

        Every user of Label Studio can read them, so their password opens the webhook only.
        """
        if not self.user:
            return {}
        token = b64encode(f"{self.user}:{webhook_password(self.password)}".encode()).decode()
        return {"Authorization": f"Basic {token}"}


def webhook_password(password: str) -> str:
    """Password of the webhook, derived one way (HMAC-SHA256) from the backend's."""
    return hmac.new(password.encode(), b"carcond webhook", hashlib.sha256).hexdigest()


def default_backend_url() -> str:
    """Address at which the backend listens by `CARCOND_BIND`, which may name several: the first is for Label Studio."""
    return f"http://{first_address(os.environ.get('CARCOND_BIND') or '127.0.0.1:9090')}"


def first_address(bind: str) -> str:
    """The first of the addresses that `CARCOND_BIND` names, separated by commas."""
    return bind.partition(",")[0].strip()


def is_guarded(refusal: str) -> bool:
    """True if Label Studio's SSRF guard refused."""
    return "reserved network address" in refusal


def is_dotless(refusal: str) -> bool:
    """True if Label Studio rejects the host as no valid name."""
    return "valid URL" in refusal


def refusal_advice(text: str, backend: BackendAddress) -> str:
    """Advice on Label Studio's refusal of a backend or a webhook, by its `text`; empty without any."""
    if is_guarded(text):
        host = urlsplit(backend.url).hostname or ""
        lines = opening_lines(host)
        how = f"these lines in its environment: {' '.join(lines)}" if lines else "USER_ADDITIONAL_BANNED_SUBNETS"
        return (
            f"Label Studio's SSRF guard does not let it call {backend.url}. To open it for {host} alone, start Label "
            f"Studio with {how}"
        )
    if is_dotless(text):
        return (
            f"Label Studio makes webhooks only for hosts with a dot in their name, like backend.carcond.internal, and "
            f"{urlsplit(backend.url).hostname!r} has none"
        )
    if "resolve hostname" in text:
        return f"the name {urlsplit(backend.url).hostname!r} means nothing where Label Studio runs"
    if "authentication parameters" in text or "401 Client Error" in text:
        return (
            "it refused the user and password: CARCOND_BASIC_AUTH_USER and _PASSWORD must be those it was started with"
        )
    if "health check failed" in text:
        return f"Label Studio cannot reach it at {backend.url}. Is it running, and is that its name for Label Studio?"
    return ""
