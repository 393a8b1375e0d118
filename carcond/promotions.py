"""Which version served when, who said so, and why: a file of JSON lines that only ever grows.

A line is {when, action, from, to, who, why}; `from` is null before the first version. A line that a full disk or a
power cut tore is skipped when the file is read, and what follows it begins on a line of its own.
"""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

Action = Literal["promote", "rollback"]

LOOP = "loop"
"""Who promotes a version that passed the gate."""


@dataclass(frozen=True)
class Promotion:
    """One change of the serving version.

    Attributes:
        when: time in UTC, ISO 8601.
        action: a rollback takes back what was promoted since `version` served, a promotion adds to it.
        before: number of the version that served before, None when there was none.
        version: number of the version that serves from then on.
        who: `LOOP`, or a person.
        why: in that one's words.
    """

    when: str
    action: Action
    before: int | None
    version: int
    who: str
    why: str

    @classmethod
    def now(cls, action: Action, before: int | None, version: int, who: str, why: str) -> "Promotion":
        """A promotion of this moment."""
        return cls(datetime.now(UTC).isoformat(timespec="seconds"), action, before, version, who, why)

    def facts(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "when": self.when,
            "action": self.action,
            "from": self.before,
            "to": self.version,
            "who": self.who,
            "why": self.why,
        }

    def line(self) -> str:
        """The line in the record. What is no text, as arguments of a command may be, is replaced."""
        text = json.dumps(self.facts(), ensure_ascii=False) + "\n"
        return text.encode("utf-8", "replace").decode()


def append_promotion(path: Path, promotion: Promotion) -> None:
    """Add a line to the record, and wait until it is on the disk.

    Raises:
        OSError: the disk refused.
    """
    line = promotion.line()
    with path.open("ab+") as file:
        if file.tell():
            file.seek(-1, os.SEEK_END)
            line = line if file.read(1) == b"\n" else "\n" + line
        file.write(line.encode())
        file.flush()
        os.fsync(file.fileno())


def read_promotions(path: Path) -> list[Promotion]:
    """All promotions, oldest first; lines that are none are skipped. Without a file there are none.

    Raises:
        OSError: there is a file and it cannot be read.
    """
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
    return [promotion for promotion in map(_parse, lines) if promotion]


def _parse(line: str) -> Promotion | None:
    try:
        facts = json.loads(line)
    except ValueError:
        return None
    if not isinstance(facts, dict):
        return None
    before, version, action = facts.get("from"), facts.get("to"), facts.get("action")
    if not isinstance(version, int) or not isinstance(before, int | None) or action not in ("promote", "rollback"):
        return None
    return Promotion(str(facts.get("when")), action, before, version, str(facts.get("who")), str(facts.get("why")))


def served_in_turn(promotions: Sequence[Promotion], serving: int | None) -> list[int]:
    """The versions that brought us to the serving one, which is the last; what was rolled back is not among them.

    Args:
        promotions: oldest first; lines may be missing among them.
        serving: number of the version that serves now, None when that is not known.
    """
    line: list[int] = []
    for each in promotions:
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
