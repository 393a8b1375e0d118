"""What the doctor can find, and what it found."""

from dataclasses import dataclass
from enum import StrEnum
from string import Formatter
from typing import Any

from carcond.card_values import plain

# Longer than any advice, and shorter than what a hostile server could send.
_LONGEST_VALUE = 2000


class Level(StrEnum):
    """How bad a finding is, the worst first."""

    FAULT = "fault"
    UNCHECKED = "not checked"
    WARNING = "warning"
    FINE = "fine"


@dataclass(frozen=True)
class Finding:
    """One thing that was found.

    Attributes:
        name: of its kind; of the check where nothing is wrong or nothing could be said.
        level: how bad it is.
        what: is the case.
        why: it matters; empty when nothing is wrong.
        fix: what to do; empty when nothing is wrong.
        check: that found it.
        project: in Label Studio; None for the stack as a whole.
    """

    name: str
    level: Level
    what: str
    why: str = ""
    fix: str = ""
    check: str = ""
    project: int | None = None

    def as_json(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "name": self.name,
            "level": self.level.value,
            "project": self.project,
            "check": self.check,
            "what": self.what,
            "why": self.why,
            "fix": self.fix,
        }


@dataclass(frozen=True)
class Kind:
    """Something that can be wrong. `what` and `fix` have places in braces for what was met.

    Attributes:
        name: by which scripts know it.
        level: fault or warning.
        symptom: what people see of it.
        what: is the case.
        why: it matters.
        fix: the command, or the setting with its value.
    """

    name: str
    level: Level
    symptom: str
    what: str
    why: str
    fix: str

    @property
    def example(self) -> Finding:
        """This kind with the names of its places, in capitals, in them."""
        names = {name for text in (self.what, self.fix) for _, name, _, _ in Formatter().parse(text) if name}
        return self.found(**{name: name.upper() for name in names})

    def found(self, **values: object) -> Finding:
        """This kind with what was met in its places, made printable: much of it comes from other programs."""
        shown = {name: plain(value, _LONGEST_VALUE) for name, value in values.items()}
        return Finding(self.name, self.level, self.what.format(**shown), self.why, self.fix.format(**shown))


def fine(what: str) -> Finding:
    """That a check found nothing wrong, with what it saw."""
    return Finding("", Level.FINE, plain(what, _LONGEST_VALUE))


class CannotSayError(Exception):
    """A check cannot say whether something is wrong; the text tells why."""
