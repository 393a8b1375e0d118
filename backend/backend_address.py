"""Where Label Studio finds the backend, and why it may refuse to call it there."""

import os
from base64 import b64encode
from dataclasses import dataclass, field
from typing import Self
from urllib.parse import urlsplit

from backend.ssrf_guard import opening_lines
from carcond.settings import Settings


@dataclass(frozen=True)
class BackendAddress:
    """Where Label Studio finds the backend, and what it has to say there.

    Attributes:
        url: as Label Studio sees it. Its host needs a dot: Label Studio makes no webhook for another.
        user: of basic authentication; empty when the backend asks for none.
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
        """Where events go."""
        return f"{self.url.rstrip('/')}/webhook"

    @property
    def webhook_headers(self) -> dict[str, str]:
        """What webhooks have to carry: Label Studio does not use the backend's user and password for them."""
        if not self.user:
            return {}
        token = b64encode(f"{self.user}:{self.password}".encode()).decode()
        return {"Authorization": f"Basic {token}"}


def default_backend_url() -> str:
    """Where the backend listens by its own setting, `CARCOND_BIND`."""
    return f"http://{os.environ.get('CARCOND_BIND') or '127.0.0.1:9090'}"


def is_guarded(refusal: str) -> bool:
    """Whether it is Label Studio's SSRF guard that refuses."""
    return "reserved network address" in refusal


def is_dotless(refusal: str) -> bool:
    """Whether Label Studio does not take the host for a name."""
    return "valid URL" in refusal


def refusal_advice(text: str, backend: BackendAddress) -> str:
    """What to do about Label Studio's refusal of a backend or a webhook, as its `text` tells; empty: nothing known."""
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
