"""`carcond connect`: connecting the backend to an existing project, and undoing it."""

import json
import sys
from typing import Annotated

import typer

from backend.cli.commands.backend_url import BackendOption
from backend.cli.commands.person import this_person
from backend.cli.simulation_view import progress_bar
from backend.jobs.queue import get_job_queue
from backend.label_studio.backend_address import BackendAddress, default_backend_url
from backend.label_studio.way_in import browser_base, numbered_steps, project_url
from backend.project.connection.connecting import connect as carry_out
from backend.project.connection.disconnecting import disconnect, plan_undo
from backend.project.connection.plan import plan_connection
from backend.project.connection.view import plan_text, refused_text, undo_text
from backend.services import Services, get_services


def connect(
    project: Annotated[int, typer.Option(help="number in Label Studio")],
    backend: BackendOption = "",
    undo: Annotated[bool, typer.Option("--undo", help="undo the connection")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="show the changes, and make none")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="do not ask")] = False,
    by: Annotated[str, typer.Option(help="your name, for the record (default: the user of this machine)")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="print JSON only; with --dry-run or --yes")] = False,
) -> None:
    """Connect the backend to a project of an existing Label Studio, and learn from its labels.

    It shows what it will change, asks, changes only that, and keeps a record with which --undo reverts all that
    nobody has changed since. Other backends, webhooks and predictions stay.

    Exit codes: 0 done; 1 it is impossible, and nothing was changed, or the answer was no.

    Example: carcond connect --project 5 --dry-run
    Example: carcond connect --project 5 --backend http://backend.example.com:9090
    Example: carcond connect --project 5 --undo
    """
    if as_json and not (dry_run or yes):
        raise typer.BadParameter("expected --dry-run or --yes beside it: nobody can be asked", param_hint="--json")
    take = _disconnect if undo else _connect
    take(get_services(), project, backend, dry_run, yes, by or this_person(), as_json)


def _connect(
    services: "Services", project: int, backend: str, dry_run: bool, yes: bool, by: str, as_json: bool
) -> None:
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
    turn_requested = carry_out(services, get_job_queue(), address, plan, by)
    if as_json:
        print(json.dumps(plan.facts() | {"turn_asked_for": turn_requested}, indent=2))
        return
    learns = "the worker reads its labels now" if turn_requested else "its labels are read once Redis and a worker run"
    option = f"--project {project}"
    print(f"connected: {learns}. See carcond status {option}; to take it back: carcond connect {option} --undo")
    print(f"\nTo label, open {project_url(browser_base(services.settings), project)}\n{numbered_steps()}")


def _disconnect(
    services: "Services", project: int, _backend: str, dry_run: bool, yes: bool, by: str, as_json: bool
) -> None:
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
