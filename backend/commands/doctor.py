"""`carcond doctor`: what is wrong with this installation, and what to do about it."""

import json
import sys
import time
from typing import Annotated

import typer

from backend.commands.backend_url import check_backend_url
from carcond.errors import SettingsError


def doctor(
    project: Annotated[
        list[int] | None,
        typer.Option(help="a project's number in Label Studio; again for more. All known ones if left out"),
    ] = None,
    backend: Annotated[
        str,
        typer.Option(
            metavar="URL",
            callback=check_backend_url,
            help="where Label Studio should find the backend, if it is not connected yet",
        ),
    ] = "",
    as_json: Annotated[bool, typer.Option("--json", help="print JSON only")] = False,
) -> None:
    """Look at the whole installation, explain what is wrong, and say what to do. Nothing is changed.

    Exit codes: 0 no fault was found; 1 there are faults; 2 it could not look, or not at everything.

    Example: carcond doctor --project 1
    """
    # They load what other commands have no use for.
    from backend.backend_address import default_backend_url  # noqa: PLC0415
    from backend.doctor.checks import examine  # noqa: PLC0415
    from backend.doctor.examination import Examination  # noqa: PLC0415
    from backend.doctor.finding import Level  # noqa: PLC0415
    from backend.doctor.view import findings_json, print_findings, worst  # noqa: PLC0415
    from carcond.settings import load_settings  # noqa: PLC0415

    began = time.monotonic()
    try:
        settings = load_settings()
    except SettingsError as error:
        print(f"carcond: {error}", file=sys.stderr)
        raise typer.Exit(2) from error
    with Examination(settings, backend or default_backend_url()) as whole:
        findings = examine(whole, project or [])
    seconds = time.monotonic() - began
    if as_json:
        print(json.dumps(findings_json(findings, seconds), indent=2))
    else:
        print_findings(findings, seconds)
    codes = {Level.FAULT: 1, Level.UNCHECKED: 2}
    raise typer.Exit(codes.get(worst(findings), 0))
