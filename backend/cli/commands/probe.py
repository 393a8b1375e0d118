"""`carcond probe`: a made-up photo goes the whole way, in a project of its own."""

import json
from typing import Annotated

import typer

from backend.cli.commands.backend_url import BackendOption
from backend.label_studio.backend_address import BackendAddress, default_backend_url
from backend.project.probe import Probe, ProbeReport, remove_project
from backend.services import get_services
from carcond.errors import ProbeError


def probe(
    backend: BackendOption = "",
    remove: Annotated[bool, typer.Option("--remove", help="remove the project, and probe nothing")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON only")] = False,
) -> None:
    """Import a made-up photo, label it, wait until it is learnt and a new order is published, and remove it.

    It does so in a project of its own, "carcond probe", which the first probe makes; no other project is touched. The
    command runs where the models are, as in a worker's container. One at a time.

    Exit codes: 0 every step was done; 1 one was not, and one line on standard error says which.

    Example: carcond probe --json
    Example: carcond probe --backend http://backend.example.com:9090
    Example: carcond probe --remove
    """
    services = get_services()
    if remove:
        removed = remove_project(services.api, services.settings.models_dir)
        print(f"removed project {removed}" if removed else "there is no project to remove")
        return
    address = BackendAddress.of((backend or default_backend_url()).rstrip("/"), services.settings)
    report = Probe(services, address).run()
    print(json.dumps(report.facts(), indent=2) if as_json else _steps(report))
    if report.failed:
        raise ProbeError(f"probe failed at {report.failed!r}: {report.problem}")


def _steps(report: ProbeReport) -> str:
    lines = [f"{name:<10}{seconds:7.2f} s" for name, seconds in report.seconds.items()]
    return "\n".join([f"project {report.project_id}", *lines])
