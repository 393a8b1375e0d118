"""`carcond doctor`: faults of this installation, and their fixes."""

import json
import sys
import time
from typing import Annotated

import typer

from backend.cli.commands.backend_url import check_backend_url
from backend.doctor.checks import examine
from backend.doctor.examination import Examination
from backend.doctor.finding import Level
from backend.doctor.view import findings_json, print_findings, worst
from backend.label_studio.backend_address import default_backend_url
from carcond.errors import SettingsError
from carcond.settings import load_settings


def doctor(
    project: Annotated[
        list[int] | None,
        typer.Option(help="a project's number in Label Studio; repeat for more (default: all known ones)"),
    ] = None,
    backend: Annotated[
        str,
        typer.Option(
            metavar="URL",
            callback=check_backend_url,
            help="the backend's address for Label Studio, if it is not connected yet",
        ),
    ] = "",
    as_json: Annotated[bool, typer.Option("--json", help="print JSON only")] = False,
) -> None:
    """Check the whole installation, explain what is wrong, and say what to do. Nothing is changed.

    Exit codes: 0 no fault was found; 1 there are faults; 2 some or all checks could not run.

    Example: carcond doctor --project 1
    """
    # They load modules that other commands do not need.

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
