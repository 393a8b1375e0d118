"""Basic authentication of the backend."""

import hmac

from flask import Request

from backend.label_studio.backend_address import WEBHOOK_PATH, webhook_password
from backend.web.authorization import read_authorization
from carcond.settings import Settings


def is_allowed(request: Request, settings: Settings) -> bool:
    """True if a request carries the configured user and password, or none is configured.

    The webhook has a password of its own, which opens nothing else. The backend's opens it too: it is in the webhooks
    of the last release.
    """
    password = settings.basic_auth_password.get_secret_value()
    if not password:
        return True
    given = read_authorization(request)
    if given is None or given.type != "basic":
        return False
    # Both are compared in constant time, against timing attacks.
    same_user = hmac.compare_digest((given.username or "").encode(), settings.basic_auth_user.encode())
    expected = [password, webhook_password(password)] if request.path == WEBHOOK_PATH else [password]
    same_password = [hmac.compare_digest((given.password or "").encode(), each.encode()) for each in expected]
    return same_user and any(same_password)
