"""The option that says where Label Studio finds the backend."""

import typer

from carcond.settings import is_web_address


def check_backend_url(value: str) -> str:
    """Let an address through that may be shown and recorded; empty where the option is left out.

    Raises:
        typer.BadParameter: it is none, or has a user or password in it.
    """
    if value and (not is_web_address(value) or "@" in value):
        raise typer.BadParameter(
            "expected an address like http://backend.example.com:9090; user and password belong into "
            "CARCOND_BASIC_AUTH_USER and CARCOND_BASIC_AUTH_PASSWORD"
        )
    return value
