"""`carcond status`: what serves a project, how good it is, and whether more labels will help."""

import json
from typing import Annotated

import typer


def status(
    project: Annotated[int, typer.Argument(help="the project's number in Label Studio")],
    as_json: Annotated[bool, typer.Option("--json", help="print JSON only")] = False,
) -> None:
    """Show what serves a project, what it learnt from, what more labels would bring, and its jobs.

    Example: carcond status 1
    """
    # Opening the store is not needed by other commands.
    from backend.commands.project import check_project  # noqa: PLC0415
    from backend.jobs import get_job_queue  # noqa: PLC0415
    from backend.project_status import project_status  # noqa: PLC0415
    from backend.services import get_services  # noqa: PLC0415
    from backend.status_view import status_text  # noqa: PLC0415

    services = get_services()
    check_project(services, project)
    services.pull_models(project)
    facts = project_status(services, get_job_queue(), project)
    print(json.dumps(facts, indent=2) if as_json else status_text(facts))
