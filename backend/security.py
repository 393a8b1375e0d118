"""Who may call us."""

import hmac

from flask import Request

from carcond.settings import Settings


def is_allowed(request: Request, settings: Settings) -> bool:
    """Whether a request carries the configured user and password; all do when none is configured."""
    password = settings.basic_auth_password.get_secret_value()
    if not password:
        return True
    given = request.authorization
    if given is None or given.type != "basic":
        return False
    # Both are compared in full, so that the time taken tells nothing.
    same_user = hmac.compare_digest((given.username or "").encode(), settings.basic_auth_user.encode())
    same_password = hmac.compare_digest((given.password or "").encode(), password.encode())
    return same_user and same_password
