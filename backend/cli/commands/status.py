"""`carcond status`: a project's serving version, its scores, and the forecast of more labels."""

import json
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Annotated

import typer
from rich.live import Live
from rich.text import Text

from backend.cli.commands.project import check_project
from backend.cli.status_view import status_text
from backend.jobs.queue import get_job_queue
from backend.project.status import project_status
from backend.services import get_services

_EVERY_S = 5.0


def status(
    project: Annotated[int, typer.Option(help="number in Label Studio")],
    watch: Annotated[bool, typer.Option("--watch", help="refresh every five seconds, until Ctrl-C")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON only")] = False,
) -> None:
    """Show a project's serving version, its labels and scores, the forecast of more labels, and its jobs.

    Example: carcond status --project 1 --watch
    """
    # Opening the store is not needed by other commands.

    if watch and as_json:
        raise typer.BadParameter("expected one of --watch and --json")
    services = get_services()
    check_project(services, project)

    def facts() -> dict[str, object]:
        services.pull_models(project)
        return project_status(services, get_job_queue(), project)

    if watch:
        print(_show_anew(lambda: status_text(facts())))
    else:
        print(json.dumps(facts(), indent=2) if as_json else status_text(facts()))


def _show_anew(text: Callable[[], str]) -> str:
    """Refresh a text on a screen of its own, until Ctrl-C. Returns the last one."""
    shown = text()
    with suppress(KeyboardInterrupt), Live(Text(shown), screen=True, auto_refresh=False) as live:
        while True:
            live.update(Text(shown), refresh=True)
            time.sleep(_EVERY_S)
            shown = text()
    return shown
