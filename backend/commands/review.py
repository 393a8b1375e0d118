"""`carcond review`: which photos should be looked at again."""

import json
from typing import Annotated

import typer


def review(
    project: Annotated[int, typer.Argument(help="the project's number in Label Studio")],
    top: Annotated[int, typer.Option(min=1, help="show at most so many photos")] = 50,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON only")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="change nothing in Label Studio")] = False,
    clear: Annotated[bool, typer.Option("--clear", help="take all marks and the tab back")] = False,
) -> None:
    """Show photos whose label is probably wrong in a tab "Look again" of Label Studio, most suspicious first.

    Example: carcond review 1 --top 20
    """
    # Other commands need none of these, and they take a second to import.
    from backend.commands.project import check_project  # noqa: PLC0415
    from backend.quality_view import review_text  # noqa: PLC0415
    from backend.review import (  # noqa: PLC0415
        TAB,
        clear_review,
        photos_to_show,
        review_facts,
        review_labels,
        write_review,
    )
    from backend.services import get_services  # noqa: PLC0415

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
