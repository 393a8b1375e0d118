"""`carcond predict`: the condition that photos show."""

import json
from pathlib import Path
from typing import Annotated

import typer

from backend.cli.condition_view import condition_rows, conditions_table, photo_facts
from backend.cli.csv_file import write_csv
from backend.cli.simulation_view import progress_bar
from backend.project.serving_model import ServingModel
from backend.services import get_services
from carcond.data.photo_folder import photo_files, shown_name
from carcond.errors import UnreadableImageError


def predict(
    place: Annotated[Path, typer.Argument(metavar="PHOTO_OR_DIR", help="a photo, or a folder of photos")],
    project: Annotated[int | None, typer.Option(help="number in Label Studio; needed when there are several")] = None,
    csv_file: Annotated[Path | None, typer.Option("--csv", help="also write the table into this file")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON only")] = False,
) -> None:
    """Predict cleanliness and damage of photos, with the serving version of a project.

    Example: carcond predict car.jpg

    Example: carcond predict photos --project 1 --csv conditions.csv

    Photos that cannot be read are listed with the reason; the exit code is 1 when none could be.
    """
    files = photo_files(place)
    model = ServingModel.of(get_services(), project)
    with progress_bar("encoding photos") as progress:
        seen = model.look_at_all(files, progress)
    names = [shown_name(file.relative_to(place) if place.is_dir() else file.name) for file in files]
    facts = photo_facts(model.project, model.version.name, dict(zip(names, seen, strict=True)))
    if csv_file:
        write_csv(csv_file, condition_rows(facts))
    print(json.dumps(facts, indent=2, ensure_ascii=False) if as_json else conditions_table(facts))
    if not facts["photos"]:
        raise UnreadableImageError(f"none of {len(files)} photos could be read: see the reason beside each")
