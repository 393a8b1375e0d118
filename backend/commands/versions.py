"""`carcond versions`: what was fitted, what serves and why, and going back."""

import json
import sys
from typing import Annotated

import typer

from backend.commands.person import this_person
from backend.versions_view import version_facts, versions_table
from carcond.card_values import plain
from carcond.errors import RegistryError
from carcond.promotions import Action, Promotion
from carcond.registry import COLD_START_VERSION, Registry, Version, version_name, version_number

versions = typer.Typer(no_args_is_help=True, help="List, show, promote and roll back the versions of a project.")

_Project = Annotated[int, typer.Argument(help="the project's number in Label Studio")]
_VersionName = Annotated[str, typer.Argument(metavar="VERSION", help="like 7, 0007 or carcond-0007")]
_Why = Annotated[str, typer.Option(help="the reason, for the record")]
_By = Annotated[str, typer.Option(help="who does it; the user of this machine when left out")]
_Json = Annotated[bool, typer.Option("--json", help="print JSON only")]


@versions.command("list")
def list_versions(project: _Project, as_json: _Json = False) -> None:
    """List all versions, the newest first, with their labels, scores and verdicts.

    Example: carcond versions list 1
    """
    rows = version_facts(_registry(project))
    print(json.dumps(rows, indent=2) if as_json else versions_table(rows))


@versions.command()
def show(
    project: _Project,
    version: _VersionName,
    as_json: _Json = False,
    as_html: Annotated[bool, typer.Option("--html", help="print the report as an HTML page")] = False,
) -> None:
    """Show the report card of a version: what it learnt from, how good it is, and what the gate said.

    Example: carcond versions show 1 7
    Example: carcond versions show 1 7 --html > card.html
    """
    from carcond.report_page import card_page  # noqa: PLC0415 - other commands draw no page
    from carcond.report_text import card_text  # noqa: PLC0415

    if as_json and as_html:
        raise typer.BadParameter("expected --json or --html, got both")
    registry, number = _registry(project), version_number(version)
    card = registry.card(number)
    if as_html:
        print(card_page(card))
        return
    serving = registry.current()
    serves = serving is not None and serving.number == number
    history = [each for each in registry.promotions() if number in (each.before, each.version)]
    if as_json:
        print(json.dumps({**card, "serving": serves, "promotions": [each.facts() for each in history]}, indent=2))
        return
    print(card_text(card), end="")
    print("It serves." if serves else "It does not serve.")
    for each in history:
        print(f"{each.when}  {_in_words(each)}")


@versions.command()
def promote(project: _Project, version: _VersionName, why: _Why, by: _By = "", as_json: _Json = False) -> None:
    """Make a version serve, whatever the gate said of it; newer versions are then compared with it.

    Example: carcond versions promote 1 7 --why "finds scratches that 8 misses"
    """
    registry = _registry(project)
    _change(project, registry.load(version_number(version)), "promote", why, by, as_json)


@versions.command()
def rollback(project: _Project, why: _Why, by: _By = "", as_json: _Json = False) -> None:
    """Make the version serve that served before; once more goes further back.

    Example: carcond versions rollback 1 --why "calls wet cars dirty"
    """
    registry = _registry(project)
    _change(project, registry.previous(), "rollback", why, by, as_json)


def _registry(project: int) -> Registry:
    from backend.commands.project import check_project  # noqa: PLC0415 - `carcond --help` needs no services
    from backend.services import get_services  # noqa: PLC0415

    services = get_services()
    services.pull_models(project)
    registry = services.registry(project)
    if not registry.numbers():
        check_project(services, project)
        raise RegistryError(f"project {project} has no version yet: label photos of two classes of one task")
    return registry


def _change(project: int, version: Version, action: Action, why: str, by: str, as_json: bool) -> None:
    """Make a version serve, and have its predictions published."""
    from backend.jobs import get_job_queue  # noqa: PLC0415
    from backend.services import get_services  # noqa: PLC0415
    from backend.serving import serve_version  # noqa: PLC0415

    if not why.strip():
        raise typer.BadParameter("expected a reason, for those who find it in the record", param_hint="--why")
    change = serve_version(
        get_services(), get_job_queue(), project, version, action=action, who=by or this_person(), why=why
    )
    promotion, problem = change.promotion, change.problem
    if as_json:
        print(json.dumps({**promotion.facts(), "publishing": not problem}, indent=2))
    else:
        print(_in_words(promotion))
    if version.is_refused:
        print(f"{version.name} had been refused: {plain(version.card['gate'].get('reason'), 1000)}", file=sys.stderr)
    if problem:
        print(
            f"{version.name} serves, but Label Studio's queue keeps the old order until the worker runs: {problem}",
            file=sys.stderr,
        )


def _in_words(promotion: Promotion) -> str:
    before = COLD_START_VERSION if promotion.before is None else version_name(promotion.before)
    done = "rolled back" if promotion.action == "rollback" else "promoted"
    change = f"{done} from {before} to {version_name(promotion.version)}"
    # A person wrote these; they must not command a terminal.
    return f"{change} by {plain(promotion.who)}: {plain(promotion.why, 1000)}"
