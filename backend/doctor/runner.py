"""Runs checks in parallel, each with a time limit; one that fails stops only those that depend on it."""

import logging
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from backend.doctor.finding import CannotSayError, Finding, Level
from carcond.errors import CarcondError
from carcond.json_fields import sanitize_line

logger = logging.getLogger(__name__)

# Maximum number of checks at a time: Label Studio on SQLite gets slow with more concurrent requests.
_AT_ONCE = 8


@dataclass(frozen=True)
class Check:
    """One check.

    Attributes:
        name: identifier for scripts and other checks.
        about: its subject, in words.
        run: yields what is wrong, or `fine`; nothing means fine too. It gets the stack, or a project.
        needs: checks that have to find no fault, or this one cannot run.
        seconds: time limit.
    """

    name: str
    about: str
    run: Callable[[Any], Iterable[Finding]]
    needs: tuple[str, ...] = ()
    seconds: float = 10.0


@dataclass(frozen=True)
class Job:
    """A check of the stack (project None) or of a project."""

    check: Check
    subject: Any
    project: int | None = None


class Runner:
    """Runs jobs, and remembers which checks found no fault."""

    def __init__(self) -> None:
        # What has to be fixed before a check can be relied on; empty when nothing.
        self._obstacle: dict[tuple[int | None, str], str] = {}

    def run(self, jobs: Sequence[Job]) -> list[Finding]:
        """Run jobs whose needs are among them or were run before. Findings come in the order of the jobs."""
        found: dict[int, list[Finding]] = {}
        while waiting := [n for n in range(len(jobs)) if n not in found]:
            ready = [n for n in waiting if all(self._has_run(jobs[n], need) for need in jobs[n].check.needs)]
            for start in range(0, len(ready), _AT_ONCE):
                batch = ready[start : start + _AT_ONCE]
                for number, findings in zip(batch, self._run_batch([jobs[n] for n in batch]), strict=True):
                    found[number] = findings
                    self._note(jobs[number], findings)
        return [finding for number in range(len(jobs)) for finding in found[number]]

    def passed(self, name: str, project: int | None = None) -> bool:
        """True if a check was run and found no fault."""
        return self._obstacle.get((project, name)) == ""

    def _key(self, job: Job, need: str) -> tuple[int | None, str]:
        """A need of a project's check may be a check of the stack."""
        own = (job.project, need)
        return own if own in self._obstacle else (None, need)

    def _has_run(self, job: Job, need: str) -> bool:
        return self._key(job, need) in self._obstacle

    def _note(self, job: Job, findings: Sequence[Finding]) -> None:
        stopped = any(finding.level in (Level.FAULT, Level.UNCHECKED) for finding in findings)
        first = self._first_obstacle(job) or (job.check.about if stopped else "")
        self._obstacle[job.project, job.check.name] = first

    def _first_obstacle(self, job: Job) -> str:
        return next(filter(None, (self._obstacle[self._key(job, need)] for need in job.check.needs)), "")

    def _run_batch(self, jobs: Sequence[Job]) -> list[list[Finding]]:
        results: list[list[Finding] | None] = [None] * len(jobs)

        def work(place: int) -> None:
            results[place] = self._run_one(jobs[place])

        # Daemons: a check that hangs does not keep the command from ending.
        threads = [threading.Thread(target=work, args=(place,), daemon=True) for place in range(len(jobs))]
        began = time.monotonic()
        for thread in threads:
            thread.start()
        for thread, job in zip(threads, jobs, strict=True):
            thread.join(max(0.0, began + job.check.seconds - time.monotonic()))
        return [
            result if result is not None else [_unchecked(job, f"it took longer than {job.check.seconds:g} s")]
            for result, job in zip(results, jobs, strict=True)
        ]

    def _run_one(self, job: Job) -> list[Finding]:
        obstacle = self._first_obstacle(job)
        if obstacle:
            return [_unchecked(job, f"first mend {obstacle}")]
        try:
            found = list(job.check.run(job.subject))
        except (CannotSayError, CarcondError) as error:
            return [_unchecked(job, str(error))]
        except Exception as error:  # another program's odd answer must not cost all other findings
            logger.debug("%s failed", job.check.name, exc_info=error)
            return [_unchecked(job, f"an unexpected {type(error).__name__}")]
        found = found or [Finding("", Level.FINE, "")]
        return [replace(f, check=job.check.name, project=job.project, name=f.name or job.check.name) for f in found]


def _unchecked(job: Job, reason: str) -> Finding:
    return Finding(
        job.check.name, Level.UNCHECKED, sanitize_line(reason, 400), check=job.check.name, project=job.project
    )
