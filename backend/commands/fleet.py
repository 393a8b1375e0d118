"""`carcond fleet`: the condition of many cars."""

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class By(StrEnum):
    """What photos are summed up by."""

    CAR = "car"
    DRIVER = "driver"


def fleet(
    place: Annotated[Path, typer.Argument(metavar="DIR_OR_CSV", help="a folder for each car, or a CSV file")],
    by: Annotated[By, typer.Option(help="sum up by car or by driver")] = By.CAR,
    project: Annotated[int | None, typer.Option(help="number in Label Studio; needed when there are several")] = None,
    csv_file: Annotated[Path | None, typer.Option("--csv", help="also write the table into this file")] = None,
    plot: Annotated[Path | None, typer.Option(help="draw the months into this PNG file")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON only")] = False,
) -> None:
    """Sum up photos of a fleet: what is dirty or damaged, how it changes, whom to remind, what a human must see.

    Example: carcond fleet photos

    Example: carcond fleet photos.csv --by driver --csv drivers.csv --plot drivers.png
    """
    from backend.csv_file import write_csv  # noqa: PLC0415
    from backend.fleet_view import fleet_rows, fleet_text  # noqa: PLC0415
    from backend.judge import Judge  # noqa: PLC0415
    from backend.services import get_services  # noqa: PLC0415
    from backend.simulation_view import progress_bar  # noqa: PLC0415
    from carcond.curve_plot import check_can_plot  # noqa: PLC0415
    from carcond.fleet import fleet_facts  # noqa: PLC0415
    from carcond.fleet_files import read_fleet  # noqa: PLC0415
    from carcond.fleet_plot import save_fleet_plot  # noqa: PLC0415

    if plot:
        check_can_plot()
    files = read_fleet(place, by.value)
    judge = Judge.of(get_services(), project)
    with progress_bar("looking at photos") as progress:
        seen = judge.look_at_all([file.path for file in files], progress)
    facts = {"project": judge.project, "version": judge.version.name, **fleet_facts(files, seen, by.value)}
    if csv_file:
        write_csv(csv_file, fleet_rows(facts))
    if plot:
        try:
            save_fleet_plot(facts, plot)
        except OSError as error:
            raise typer.BadParameter(f"{plot} cannot be written ({error.strerror})", param_hint="--plot") from error
    print(json.dumps(facts, indent=2, ensure_ascii=False) if as_json else fleet_text(facts))
