"""`carcond fleet`: the condition of many cars."""

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from backend.cli.csv_file import write_csv
from backend.cli.fleet_view import fleet_rows, fleet_text
from backend.cli.simulation_view import progress_bar
from backend.project.serving_model import ServingModel
from backend.services import get_services
from carcond.analysis.fleet import fleet_facts
from carcond.analysis.fleet_files import read_fleet
from carcond.reports.curve_plot import check_can_plot
from carcond.reports.fleet_plot import save_fleet_plot


class By(StrEnum):
    """Subject that photos are grouped by."""

    CAR = "car"
    DRIVER = "driver"


def fleet(
    place: Annotated[Path, typer.Argument(metavar="DIR_OR_CSV", help="a folder for each car, or a CSV file")],
    by: Annotated[By, typer.Option(help="group by car or by driver")] = By.CAR,
    project: Annotated[int | None, typer.Option(help="number in Label Studio; needed when there are several")] = None,
    csv_file: Annotated[Path | None, typer.Option("--csv", help="also write the table into this file")] = None,
    plot: Annotated[Path | None, typer.Option(help="draw the months into this PNG file")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON only")] = False,
) -> None:
    """Summarize photos of a fleet: dirt and damage, their trend, reminders, and photos for human review.

    Example: carcond fleet photos

    Example: carcond fleet photos.csv --by driver --csv drivers.csv --plot drivers.png
    """
    if plot:
        check_can_plot()
    files = read_fleet(place, by.value)
    model = ServingModel.of(get_services(), project)
    with progress_bar("encoding photos") as progress:
        seen = model.look_at_all([file.path for file in files], progress)
    facts = {"project": model.project, "version": model.version.name, **fleet_facts(files, seen, by.value)}
    if csv_file:
        write_csv(csv_file, fleet_rows(facts))
    if plot:
        try:
            save_fleet_plot(facts, plot)
        except OSError as error:
            raise typer.BadParameter(f"{plot} cannot be written ({error.strerror})", param_hint="--plot") from error
    print(json.dumps(facts, indent=2, ensure_ascii=False) if as_json else fleet_text(facts))
