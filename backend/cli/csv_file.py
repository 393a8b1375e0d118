"""Rows as the CSV file of a command."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import typer


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows that all have the same columns; at least one.

    Raises:
        typer.BadParameter: the file cannot be written.
    """
    try:
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    except OSError as error:
        raise typer.BadParameter(f"{path} cannot be written ({error.strerror})", param_hint="--csv") from error
