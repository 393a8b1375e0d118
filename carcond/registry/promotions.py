"""Append-only record of promotions and pins as JSON lines: versions, times, persons and reasons.

A line is {when, action, from, to, who, why, pinned}; `from` is null before the first version, `pinned` is missing in
lines of programs without pins. `promote` and `rollback` change the serving version; `pin` and `unpin` change the
pin alone, and such programs skip them. A line truncated by a full disk or a power cut is skipped too.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from carcond.files import append_lines

Action = Literal["promote", "rollback", "pin", "unpin"]

LOOP = "loop"
"""Author of the promotion of a version that passed the gate."""


@dataclass(frozen=True)
class Promotion:
    """One change of the serving version, or of its pin.

    Attributes:
        when: time in UTC, ISO 8601.
        action: a rollback undoes the promotions since `version` served, a promotion adds to them.
        before: number of the version that served before, None when there was none.
        version: number of the version that serves from then on.
        who: `LOOP`, or a person.
        why: reason in their words.
        pinned: True when `version` is pinned from then on.
    """

    when: str
    action: Action
    before: int | None
    version: int
    who: str
    why: str
    pinned: bool = False

    @classmethod
    def now(
        cls, action: Action, before: int | None, version: int, who: str, why: str, *, pinned: bool = False
    ) -> "Promotion":
        """Promotion with the current time."""
        return cls(datetime.now(UTC).isoformat(timespec="seconds"), action, before, version, who, why, pinned)

    @property
    def changes_serving(self) -> bool:
        """False for a line that changes only the pin."""
        return self.action in ("promote", "rollback")

    def facts(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "when": self.when,
            "action": self.action,
            "from": self.before,
            "to": self.version,
            "who": self.who,
            "why": self.why,
            "pinned": self.pinned,
        }

    def line(self) -> str:
        """The line in the record. Bytes that are not UTF-8, as in arguments of a command, are replaced."""
        text = json.dumps(self.facts(), ensure_ascii=False) + "\n"
        return text.encode("utf-8", "replace").decode()


def append_promotion(path: Path, promotion: Promotion) -> None:
    """Add a line to the record, and wait until it is on the disk.

    Raises:
        OSError: the disk refused.
    """
    append_lines(path, promotion.line())


def read_promotions(path: Path) -> list[Promotion]:
    """All lines, oldest first; those that are no promotions are skipped. Without a file there are none.

    Raises:
        OSError: there is a file and it cannot be read.
    """
    return parse_promotions(path.read_text(encoding="utf-8", errors="replace")) if path.exists() else []


def parse_promotions(text: str) -> list[Promotion]:
    """The lines of a record, oldest first; those that are no promotions are skipped."""
    return [promotion for promotion in map(_parse, text.split("\n")) if promotion]


def _parse(line: str) -> Promotion | None:
    try:
        facts = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(facts, dict):
        return None
    before, version, action = facts.get("from"), facts.get("to"), facts.get("action")
    if not isinstance(version, int) or not isinstance(before, int | None):
        return None
    if action not in ("promote", "rollback", "pin", "unpin"):
        return None
    when, who, why = (str(facts.get(name)) for name in ("when", "who", "why"))
    return Promotion(when, action, before, version, who, why, facts.get("pinned") is True)


def pin_in_force(promotions: Iterable[Promotion]) -> Promotion | None:
    """The line that pinned the version which is pinned now; None while none is.

    A promotion by the loop that slipped in beside a pin does not end it: the next turn makes the pinned version serve.
    A person who makes a version serve without pinning it, as programs that know no pins do, ends it.

    Args:
        promotions: all lines, oldest first.
    """
    pin = None
    for each in promotions:
        if each.pinned:
            pin = each
        elif each.action == "unpin" or each.who != LOOP:
            pin = None
    return pin


def chosen_by_people(promotions: Iterable[Promotion]) -> set[int]:
    """Versions that a person promoted, rolled back to or pinned, and those that were replaced by these."""
    numbers = {number for each in promotions if each.who != LOOP for number in (each.before, each.version)}
    return {number for number in numbers if number is not None}


def served_in_turn(promotions: Sequence[Promotion], serving: int | None) -> list[int]:
    """History of promotions up to the serving version, which is the last; rolled-back versions are left out.

    Args:
        promotions: oldest first; lines may be missing among them.
        serving: number of the version that serves now, None when that is not known.
    """
    line: list[int] = []
    for each in promotions:
        if not each.changes_serving:
            continue
        if each.before is not None:
            _arrive(line, each.before)
        if each.action == "promote":
            line.append(each.version)
        else:
            if each.version not in line:  # it served before there was a record, or its line is lost
                line = [number for number in line if number < each.version]
            _arrive(line, each.version)
    if serving is not None:
        _arrive(line, serving)
    return line


def _arrive(line: list[int], version: int) -> None:
    """Make a version the last of the line: by going back to it, or, when it is not there, by adding it."""
    if version in line:
        while line[-1] != version:
            line.pop()
    else:
        line.append(version)
