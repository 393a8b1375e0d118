"""Reading of the Authorization header."""

from flask import Request
from werkzeug.datastructures import Authorization


def read_authorization(request: Request) -> Authorization | None:
    """Credentials of a request; None without any, and for a header that cannot be read.

    Werkzeug raises for some of these, such as Base64 with a letter that is none.
    """
    try:
        return request.authorization
    except ValueError:
        return None
