"""`carcond status`: what serves a project, and how good it is."""

import json
from typing import Annotated

import typer

from carcond.errors import StoreError


def status(
    project: Annotated[int, typer.Argument(help="the project's number in Label Studio")],
    as_json: Annotated[bool, typer.Option("--json", help="print JSON only")] = False,
) -> None:
    """Show the serving version of a project and what it was fitted and measured on.

    Example: carcond status 1 --json
    """
    from backend.services import get_services  # noqa: PLC0415 - opening the store is not needed by other commands

    services = get_services()
    if project not in services.store.project_ids():
        raise StoreError(
            f"project {project} is not known here. For a stack that scripts/up started, load its settings first: "
            "set -a; . .carcond/environment; set +a"
        )
    version = services.registry(project).current()
    facts: dict[str, object] = dict(version.card) if version else {"version": None}
    facts["photos"] = services.store.photo_count(project)
    if as_json:
        print(json.dumps(facts, indent=2))
        return
    for name, value in facts.items():
        print(f"{name}: {json.dumps(value)}")
