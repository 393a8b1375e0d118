"""Photos of a fleet with their car or driver and their day."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path

from PIL import ExifTags, Image

from carcond.data.label_table import Row, column_values, read_rows
from carcond.data.photo_folder import photo_files, shown_name
from carcond.errors import LabelTableError

KINDS = ("car", "driver")
"""Columns of the CSV file by which photos may be aggregated."""


@dataclass(frozen=True)
class FleetFile:
    """One photo of a fleet.

    Attributes:
        name: as the file or the folder names it.
        path: of the file.
        subject: the car or driver that it is aggregated under.
        car: name of the car: photos of one car and day are combined.
        day: on which it was taken; None when not known.
    """

    name: str
    path: Path
    subject: str
    car: str
    day: date | None


def read_fleet(place: Path, by: str) -> list[FleetFile]:
    """The photos of a fleet.

    Args:
        place: a folder with a folder for each car (or driver), whose days come from the photos' EXIF data; or a CSV
            file with the columns `file` (a path beside it), `car` or `driver` or both, and perhaps `date`
            (2026-05-31, with or without a time).
        by: "car" or "driver", which the folders stand for.

    Raises:
        LabelTableError: there are no photos, a column is missing, or a row is malformed.
    """
    return _read_folder(place) if place.is_dir() else _read_csv(place, by)


def _read_folder(place: Path) -> list[FleetFile]:
    files = []
    for path in photo_files(place):
        name = path.relative_to(place)
        if len(name.parts) == 1:
            raise LabelTableError(f"expected a folder for each car in {place}, got the photo {name} in none of them")
        car = shown_name(name.parts[0])
        files.append(FleetFile(shown_name(name), path, car, car, _taken_on(path)))
    return files


def _taken_on(path: Path) -> date | None:
    try:
        with Image.open(path) as image:
            exif = image.getexif()
            text = exif.get_ifd(ExifTags.IFD.Exif).get(ExifTags.Base.DateTimeOriginal) or exif.get(
                ExifTags.Base.DateTime
            )
        return datetime.strptime(str(text), "%Y:%m:%d %H:%M:%S").date()
    except Exception:  # a broken photo is reported when it is encoded; broken or missing EXIF data has no day
        return None


def _read_csv(path: Path, by: str) -> list[FleetFile]:
    rows = read_rows(path)
    column_values(rows, by)
    return [_row(path, number, row, by) for number, row in enumerate(rows, start=2)]


def _row(path: Path, number: int, row: Row, by: str) -> FleetFile:
    values = {column: row.get(column, "").strip() for column in ("file", "date", *KINDS)}
    where = f"line {number} of {path}"
    if not values["file"] or not values[by]:
        raise LabelTableError(f"expected a file and a {by} in {where}, got {values['file']!r} and {values[by]!r}")
    try:
        day = datetime.fromisoformat(values["date"]).date() if values["date"] else None
    except ValueError:
        raise LabelTableError(f"expected a date like 2026-05-31 in {where}, got {values['date']!r}") from None
    car = values["car"] or values[by]
    return FleetFile(values["file"], path.parent / values["file"], values[by], car, day)


def visits(files: Sequence[FleetFile]) -> list[list[int]]:
    """Positions of the photos that show one car on one day, the earliest day first; those of no day come first."""
    together: dict[tuple[date, str, str], list[int]] = {}
    for position, file in enumerate(files):
        together.setdefault((file.day or date.min, file.subject, file.car), []).append(position)
    return [together[key] for key in sorted(together)]
