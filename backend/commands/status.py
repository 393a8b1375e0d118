"""`carcond status`: what serves a project, how good it is, and whether more labels will help."""

import json
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Annotated

import typer

_EVERY_S = 5.0


def status(
    project: Annotated[int, typer.Argument(help="the project's number in Label Studio")],
    watch: Annotated[bool, typer.Option("--watch", help="show it anew every five seconds, until Ctrl-C")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON only")] = False,
) -> None:
    """Show what serves a project, what it learnt from, what more labels would bring, and its jobs.

    Example: carcond status 1 --watch
    """
    # Opening the store is not needed by other commands.
    from backend.commands.project import check_project  # noqa: PLC0415
    from backend.jobs import get_job_queue  # noqa: PLC0415
    from backend.project_status import project_status  # noqa: PLC0415
    from backend.services import get_services  # noqa: PLC0415
    from backend.status_view import status_text  # noqa: PLC0415

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
    """Show a text again and again on a screen of its own, until Ctrl-C. Returns the last one."""
    from rich.live import Live  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    shown = text()
    with suppress(KeyboardInterrupt), Live(Text(shown), screen=True, auto_refresh=False) as live:
        while True:
            live.update(Text(shown), refresh=True)
            time.sleep(_EVERY_S)
            shown = text()
    return shown
