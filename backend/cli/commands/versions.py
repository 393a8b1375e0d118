"""`carcond versions`: listing, showing, promoting, rolling back and pinning versions."""

import json
import sys
from collections.abc import Callable, Mapping
from functools import partial
from typing import Annotated, Any

import typer

from backend.cli.commands.person import this_person
from backend.cli.commands.project import check_project
from backend.jobs.queue import get_job_queue
from backend.label_studio.annotator_names import known_names, named_card
from backend.project.promotion import Change, pin_version, serve_version, unpin_version
from backend.project.versions import promotion_words, pruned_text, standing_words, version_facts, versions_table
from backend.services import get_services
from carcond.errors import RegistryError
from carcond.model.version_card import VersionCard
from carcond.registry.promotions import Promotion
from carcond.registry.registry import Registry, version_name, version_number
from carcond.reports.card_page import card_page
from carcond.reports.card_text import card_text

versions = typer.Typer(
    no_args_is_help=True, help="List and show the versions of a project; choose which one serves, and pin it."
)

_Project = Annotated[int, typer.Option(help="number in Label Studio")]
_VersionName = Annotated[str, typer.Argument(metavar="VERSION", help="like 7, 0007 or carcond-0007")]
_Why = Annotated[str, typer.Option(help="the reason, for the record")]
_By = Annotated[str, typer.Option(help="your name, for the record (default: the user of this machine)")]
_Json = Annotated[bool, typer.Option("--json", help="print JSON only")]


@versions.command("list")
def list_versions(
    project: _Project,
    every: Annotated[
        bool, typer.Option("--all", help="list pruned versions too, of which only figures are left")
    ] = False,
    as_json: _Json = False,
) -> None:
    """List the versions that are kept, the newest first, with their labels, scores and verdicts.

    Example: carcond versions list --project 1
    Example: carcond versions list --project 1 --all
    """
    registry = _registry(project)
    rows = version_facts(registry, every=every)
    print(json.dumps(rows, indent=2) if as_json else versions_table(registry, rows))


@versions.command()
def show(
    project: _Project,
    version: _VersionName,
    as_json: _Json = False,
    as_html: Annotated[bool, typer.Option("--html", help="print the report as an HTML page")] = False,
) -> None:
    """Show the report card of a version: its labels, its scores, and the gate's verdict.

    Example: carcond versions show 7 --project 1
    Example: carcond versions show 7 --project 1 --html > card.html
    """
    if as_json and as_html:
        raise typer.BadParameter("expected --json or --html, got both")
    registry, number = _registry(project), version_number(version)
    pruned = registry.pruned({number}).get(number)
    if pruned and not as_html:
        _print_shown(registry, pruned, pruned_text(pruned), as_json)
        return
    card = registry.card(number)
    if as_html:
        print(card_page(_with_names(card)))
        return
    (row,) = version_facts(registry, [number])
    facts = {**card, **{name: row[name] for name in ("number", "serving", "pinned", "not_served", "kept")}}
    text = f"{card_text(_with_names(card))}{standing_words(registry, row)}\n"
    _print_shown(registry, facts, text, as_json)


@versions.command()
def promote(project: _Project, version: _VersionName, why: _Why, by: _By = "", as_json: _Json = False) -> None:
    """Make a version serve and pin it, whatever the gate's verdict: no newer one takes over until it is unpinned.

    Example: carcond versions promote 7 --project 1 --why "finds scratches that 8 misses"
    """
    chosen = _registry(project).load(version_number(version))
    _change(project, why, by, as_json, partial(serve_version, version=chosen, action="promote"))


@versions.command()
def rollback(project: _Project, why: _Why, by: _By = "", as_json: _Json = False) -> None:
    """Restore the previous serving version, and pin it; repeat to go further back.

    Example: carcond versions rollback --project 1 --why "calls wet cars dirty"
    """
    chosen = _registry(project).previous()
    _change(project, why, by, as_json, partial(serve_version, version=chosen, action="rollback"))


@versions.command()
def pin(
    project: _Project,
    why: _Why,
    version: Annotated[str, typer.Argument(metavar="[VERSION]", help="default: the serving version")] = "",
    by: _By = "",
    as_json: _Json = False,
) -> None:
    """Keep a version serving: candidates are fitted and evaluated, and none of them serves until it is unpinned.

    Example: carcond versions pin --project 1 --why "we measure this one in the field"
    Example: carcond versions pin 7 --project 1 --why "we measure this one in the field" --by anna
    """
    registry = _registry(project)
    number = version_number(version) if version else registry.pointed()
    if number is None:
        raise RegistryError(f"expected a version, since none serves project {project}")
    _change(project, why, by, as_json, partial(pin_version, number=number))


@versions.command()
def unpin(project: _Project, why: _Why, by: _By = "", as_json: _Json = False) -> None:
    """Let newer versions serve again: the newest that the gate accepted takes over at once.

    Example: carcond versions unpin --project 1 --why "the measurement is done"
    """
    _registry(project)
    _change(project, why, by, as_json, unpin_version)


def _with_names(card: Mapping[str, Any]) -> dict[str, Any]:
    """Card with the names of annotators, if Label Studio is reachable."""
    return named_card(card, known_names(get_services().api) if card.get("annotators") else {})


def _registry(project: int) -> Registry:
    services = get_services()
    services.pull_models(project)
    registry = services.registry(project)
    if not registry.numbers():
        check_project(services, project)
        raise RegistryError(f"project {project} has no version yet: label photos of two classes of one task")
    return registry


def _print_shown(registry: Registry, facts: Mapping[str, Any], text: str, as_json: bool) -> None:
    """Print a version's facts, or the text about it, and its promotions."""
    history = [each for each in registry.history() if facts["number"] in (each.before, each.version)]
    if as_json:
        print(json.dumps({**facts, "promotions": [each.facts() for each in history]}, indent=2))
        return
    print(text, end="")
    for each in history:
        print(f"{each.when}  {promotion_words(each)}")


def _change(project: int, why: str, by: str, as_json: bool, make: "Callable[..., Change]") -> None:
    """Change the serving or pinned version, and print the consequence."""
    if not why.strip():
        raise typer.BadParameter("expected a reason, for those who find it in the record", param_hint="--why")
    services = get_services()
    change = make(services, get_job_queue(), project, who=by or this_person(), why=why)
    promotion, problem = change.promotion, change.problem
    if as_json:
        print(json.dumps({**promotion.facts(), "publishing": not problem}, indent=2))
    else:
        print(promotion_words(promotion))
        print(_consequence(project, promotion))
    name = version_name(promotion.version)
    card = VersionCard.read(services.registry(project).card(promotion.version))
    if promotion.changes_serving and card.is_refused:
        print(f"{name} had been refused: {card.reason}", file=sys.stderr)
    if problem and promotion.changes_serving:
        print(
            f"{name} serves, but Label Studio's queue keeps the old order until the worker runs: {problem}",
            file=sys.stderr,
        )
    elif problem:
        print(f"The worker learns of that in its next turn: {problem}", file=sys.stderr)


def _consequence(project: int, promotion: Promotion) -> str:
    if promotion.action == "unpin":
        return "The newest version that the gate accepted serves from the next turn on."
    return (
        "It is pinned: newer versions are fitted and judged, and do not serve until\n"
        f'  carcond versions unpin --project {project} --why "..."'
    )
