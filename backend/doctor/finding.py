"""Kinds of findings of the doctor, and the findings."""

from dataclasses import dataclass
from enum import StrEnum
from string import Formatter
from typing import Any

from carcond.json_fields import sanitize_line

# Longer than any advice, and shorter than what a hostile server could send.
_LONGEST_VALUE = 2000


class Level(StrEnum):
    """Severity of a finding, the worst first."""

    FAULT = "fault"
    UNCHECKED = "not checked"
    WARNING = "warning"
    FINE = "fine"


@dataclass(frozen=True)
class Finding:
    """One thing that was found.

    Attributes:
        name: of its kind; of the check where nothing is wrong or nothing could be checked.
        level: its severity.
        what: the problem.
        why: its consequence; empty when nothing is wrong.
        fix: what to do; empty when nothing is wrong.
        check: name of the check that found it.
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
    """Something that can be wrong. `what` and `fix` have placeholders in braces for the details.

    Attributes:
        name: identifier for scripts.
        level: fault or warning.
        symptom: what people see of it.
        what: the problem.
        why: its consequence.
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
        """Finding of this kind with the names of its placeholders, in capitals, as details."""
        names = {name for text in (self.what, self.fix) for _, name, _, _ in Formatter().parse(text) if name}
        return self.found(**{name: name.upper() for name in names})

    def found(self, **values: object) -> Finding:
        """Finding of this kind with these details, made printable: many of them come from other programs."""
        shown = {name: sanitize_line(value, _LONGEST_VALUE) for name, value in values.items()}
        return Finding(self.name, self.level, self.what.format(**shown), self.why, self.fix.format(**shown))


def fine(what: str) -> Finding:
    """Finding that nothing is wrong, with what the check saw."""
    return Finding("", Level.FINE, sanitize_line(what, _LONGEST_VALUE))


class CannotSayError(Exception):
    """A check cannot determine whether something is wrong; the text says why."""
