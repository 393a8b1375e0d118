"""`carcond review`: photos whose labels should be reviewed."""

import json
from typing import Annotated

import typer

from backend.cli.commands.project import check_project
from backend.project.label_review import TAB, clear_review, photos_to_show, review_facts, review_labels, write_review
from backend.project.quality_view import review_text
from backend.services import get_services


def review(
    project: Annotated[int, typer.Option(help="number in Label Studio")],
    top: Annotated[int, typer.Option(min=1, help="maximum number of photos")] = 50,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON only")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="change nothing in Label Studio")] = False,
    clear: Annotated[bool, typer.Option("--clear", help="remove all marks and the tab")] = False,
) -> None:
    """Show photos whose label is probably wrong in a tab "Look again" of Label Studio, most suspicious first.

    Example: carcond review --project 1 --top 20
    """
    # Other commands need none of these, and they take a second to import.

    services = get_services()
    check_project(services, project)
    if clear:
        clear_review(services.api, project)
        print("{}" if as_json else f'nothing is marked any more, and there is no tab "{TAB}"')
        return
    found = review_labels(services, project)
    if dry_run:
        tab, shown = None, photos_to_show(list(services.api.tasks(project)), found.photos)[:top]
    else:
        tab, shown = write_review(services.api, project, found.photos, top)
    facts = review_facts(services, project, found, shown, tab)
    print(json.dumps(facts, indent=2) if as_json else review_text(facts))
