"""A line for each version that is no longer among the newest: its figures, and why it is kept or when it was pruned.

A line is a version's figures (see `figures`) with {promoted, kept, pruned}: `promoted` is {when, who, why} of the last
time that it began to serve, null for never; `kept` is the milestone, empty for none; `pruned` is the time in UTC, ISO
8601, at which its directory was pruned, empty for never. The log is append-only; the last line of a version holds.
"""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from carcond.files import append_lines
from carcond.model.version_card import VersionCard

Row = dict[str, Any]


def figures(card: Mapping[str, Any]) -> Row:
    """The figures of a card, JSON-ready; None where the card has none.

    Returns:
        {created, encoder_id, labels: {train, holdout}, holdout: task key -> {photos, accuracy, macro_f1}, gate:
        {accepted, reason}}.
    """
    return VersionCard.read(card).model_dump(
        include={
            "created": True,
            "encoder_id": True,
            "labels": {"train", "holdout"},
            "holdout": {"__all__": {"photos", "accuracy", "macro_f1"}},
            "gate": {"accepted", "reason"},
        }
    )


class VersionLog:
    """The log of one project."""

    def __init__(self, path: Path) -> None:
        self._path = path
        # State of the file, and its rows then.
        self._read: tuple[tuple[int, int], dict[int, Row]] = ((0, 0), {})

    def rows(self) -> dict[int, Row]:
        """Number of a version -> its row, ascending; without a file there are none.

        Raises:
            OSError: there is a file and it cannot be read.
        """
        try:
            stat = self._path.stat()
            stamp = (stat.st_mtime_ns, stat.st_size)
            if self._read[0] != stamp:
                text = self._path.read_text(encoding="utf-8", errors="replace")
                found = {row["number"]: row for row in map(_parse, text.split("\n")) if row}
                self._read = (stamp, dict(sorted(found.items())))
        except (FileNotFoundError, NotADirectoryError):
            return {}
        return self._read[1]

    def append(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Add rows, and wait until they are on the disk.

        Raises:
            OSError: the disk refused; some of them may have been added.
        """
        append_lines(self._path, "".join(json.dumps(row) + "\n" for row in rows))


def _parse(line: str) -> Row | None:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(row, dict) or not isinstance(row.get("number"), int):
        return None
    return row if isinstance(row.get("kept"), str) and isinstance(row.get("pruned"), str) else None
