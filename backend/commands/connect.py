"""`carcond connect`: attaching the backend to a project that is there already, and taking it away again."""

import json
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from backend.commands.backend_url import check_backend_url
from backend.commands.person import this_person

if TYPE_CHECKING:
    from backend.services import Services


def connect(
    project: Annotated[int, typer.Argument(help="the project's number in Label Studio")],
    backend: Annotated[
        str,
        typer.Option(
            metavar="URL",
            callback=check_backend_url,
            help="where Label Studio finds the backend; where CARCOND_BIND says if left out",
        ),
    ] = "",
    undo: Annotated[bool, typer.Option("--undo", help="take the connection back")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="say what would be changed, and change nothing")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="do not ask")] = False,
    by: Annotated[str, typer.Option(help="who does it; the user of this machine when left out")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="print JSON only; with --dry-run or --yes")] = False,
) -> None:
    """Connect the backend to a project of an existing Label Studio, and learn from the labels that are there.

    It says what it will change, asks, changes only that, and keeps a record by which --undo puts all back that
    nobody has changed since. Other backends, webhooks and predictions stay.

    Exit codes: 0 done; 1 it cannot be, and nothing was changed, or the answer was no.

    Example: carcond connect 5 --dry-run
    Example: carcond connect 5 --backend http://backend.example.com:9090
    Example: carcond connect 5 --undo
    """
    from backend.services import get_services  # noqa: PLC0415 - `carcond --help` needs no services

    if as_json and not (dry_run or yes):
        raise typer.BadParameter("expected --dry-run or --yes beside it: nobody can be asked", param_hint="--json")
    take = _disconnect if undo else _connect
    take(get_services(), project, backend, dry_run, yes, by or this_person(), as_json)


def _connect(
    services: "Services", project: int, backend: str, dry_run: bool, yes: bool, by: str, as_json: bool
) -> None:
    from backend.backend_address import BackendAddress, default_backend_url  # noqa: PLC0415
    from backend.connection.connecting import connect as carry_out  # noqa: PLC0415
    from backend.connection.plan import plan_connection  # noqa: PLC0415
    from backend.connection.view import plan_text  # noqa: PLC0415
    from backend.jobs import get_job_queue  # noqa: PLC0415

    address = BackendAddress.of((backend or default_backend_url()).rstrip("/"), services.settings)
    plan = plan_connection(services, address, project)
    if not as_json:
        print(plan_text(plan))
    if dry_run:
        if as_json:
            print(json.dumps(plan.facts(), indent=2))
        raise typer.Exit(1 if plan.obstacles else 0)
    if plan.changes and not plan.obstacles:
        _ask(yes, "Connect it?")
    nudged = carry_out(services, get_job_queue(), address, plan, by)
    if as_json:
        print(json.dumps(plan.facts() | {"turn_asked_for": nudged}, indent=2))
        return
    learns = "the worker reads its labels now" if nudged else "its labels are read once Redis and a worker run"
    print(f"connected: {learns}. See carcond status {project}; to take it back: carcond connect {project} --undo")


def _disconnect(
    services: "Services", project: int, _backend: str, dry_run: bool, yes: bool, by: str, as_json: bool
) -> None:
    from backend.connection.disconnecting import disconnect, plan_undo  # noqa: PLC0415
    from backend.connection.view import refused_text, undo_text  # noqa: PLC0415
    from backend.jobs import get_job_queue  # noqa: PLC0415
    from backend.simulation_view import progress_bar  # noqa: PLC0415

    with progress_bar("reading tasks") as progress:
        plan = plan_undo(services, project, progress)
    if not as_json:
        print(undo_text(plan))
    if dry_run:
        if as_json:
            print(json.dumps(plan.facts(), indent=2))
        return
    _ask(yes, "Take it back?")
    with progress_bar("taking it back") as progress:
        plan, refused = disconnect(services, get_job_queue(), project, by, progress)
    if as_json:
        print(json.dumps(plan.facts() | {"refused": [step.facts() for step in refused]}, indent=2))
        return
    if refused:
        print(refused_text(refused), file=sys.stderr)
    print(f"project {project} is not connected any more; the versions stay, and connecting again goes on from them")


def _ask(yes: bool, question: str) -> None:
    if yes:
        return
    if not sys.stdin.isatty():
        raise typer.BadParameter("expected it where nobody can be asked", param_hint="--yes")
    typer.confirm(question, abort=True)
