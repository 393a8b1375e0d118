"""The option with the backend's address for Label Studio."""

from typing import Annotated

import typer

from carcond.settings import is_web_address


def check_backend_url(value: str) -> str:
    """Validate an address that will be shown and recorded; empty where the option is left out.

    Raises:
        typer.BadParameter: it is no address, or contains a user or password.
    """
    if value and (not is_web_address(value) or "@" in value):
        raise typer.BadParameter(
            "expected an address like http://backend.example.com:9090; user and password belong into "
            "CARCOND_BASIC_AUTH_USER and CARCOND_BASIC_AUTH_PASSWORD"
        )
    return value


BackendOption = Annotated[
    str,
    typer.Option(
        metavar="URL",
        callback=check_backend_url,
        help="the backend's address for Label Studio (default: CARCOND_BIND)",
    ),
]
"""Option of the commands that connect the backend."""
