"""Report of `scripts/check_compose`: lines while it runs, and a table at its end."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from tests.compose.engine import CheckError


class BarMissedError(CheckError):
    """Something works, but takes too long or is too large: the checks continue."""


@dataclass
class Report:
    """Results of the checks: rows of what, found, seconds."""

    rows: list[tuple[str, str, float]] = field(default_factory=list)
    failed: bool = False

    @contextmanager
    def check(self, what: str) -> Iterator[list[str]]:
        """Time one check. The list collects its findings; an error becomes a row, and ends the run."""
        found: list[str] = []
        start = time.monotonic()
        try:
            yield found
        except BarMissedError as error:
            self._fail(what, error, found, start)
        except Exception as error:  # of any kind: the table must include the failure
            self._fail(what, error, found, start)
            raise
        else:
            self._add(what, ", ".join(found) or "good", time.monotonic() - start)

    def _fail(self, what: str, error: Exception, found: list[str], start: float) -> None:
        self.failed = True
        text = str(error) or type(error).__name__
        self._add(what, ", ".join([f"FAILED: {text.splitlines()[0]}", *found]), time.monotonic() - start)
        print(text, file=sys.stderr)

    def _add(self, what: str, found: str, seconds: float) -> None:
        self.rows.append((what, found, seconds))
        print(f"{seconds:7.1f} s  {what}: {found}", flush=True)

    def table(self) -> str:
        """The rows as a Markdown table."""
        lines = [f"| {what} | {found} | {seconds:.1f} |" for what, found, seconds in self.rows]
        return "\n".join(["| what was checked | found | seconds |", "|---|---|---|", *lines]) + "\n"


def expect(holds: bool, otherwise: str) -> None:
    """Raise unless a condition holds.

    Raises:
        CheckError: it does not.
    """
    if not holds:
        raise CheckError(otherwise)


def expect_bar(holds: bool, otherwise: str) -> None:
    """Raise unless a limit is met.

    Raises:
        BarMissedError: it is not.
    """
    if not holds:
        raise BarMissedError(otherwise)
