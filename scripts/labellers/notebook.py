"""Results of all annotators together, written by several threads."""

import threading
import time
from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from scripts.labellers.ledger import Ledger
from scripts.labellers.traffic import OpenedTask

QUEUES = ("Active learning or random queue", "Task lock")
"""Label Studio's reasons for serving a photo: from the queue, and locked by this annotator before."""

KINDS = ("refused", "blank", "out_of_queue", "served_twice", "page_errors")


@dataclass(frozen=True)
class Incident:
    """An unexpected event.

    Attributes:
        kind: one of `KINDS`.
        person: annotator affected.
        task_id: of the photo; 0 without one.
        detail: description.
        at_s: seconds since the beginning.
    """

    kind: str
    person: str
    task_id: int
    detail: str
    at_s: float


@dataclass(frozen=True)
class Labelled:
    """A photo of the stream that was submitted or skipped.

    Attributes:
        task_id: the task.
        slot: `cluster` of the prediction that it was opened with; None without one.
        was_right: True if the pre-label was submitted unchanged.
    """

    task_id: int
    slot: int | None
    was_right: bool


@dataclass(frozen=True)
class Wait:
    """Seconds from a press on Submit or Skip until the next photo can be labelled, and its parts.

    Attributes:
        total_s: all of it.
        save_s: until Label Studio has answered the submit.
        serve_s: from then until it has answered the request for the next photo.
        show_s: from then until the photo is there, and its pre-label chosen.
    """

    total_s: float
    save_s: float
    serve_s: float
    show_s: float


@dataclass
class Notebook:
    """Counts over all annotators; `ledger` has their intended labels."""

    ledger: Ledger = field(default_factory=Ledger)
    submits: int = 0
    deeds: Counter[str] = field(default_factory=Counter)
    waits: list[Wait] = field(default_factory=list)
    labelled: list[Labelled] = field(default_factory=list)
    incidents: list[Incident] = field(default_factory=list)
    _open: dict[int, str] = field(default_factory=dict)
    _lock: threading.RLock = field(default_factory=threading.RLock)
    _began: float = field(default_factory=time.monotonic)

    def now(self) -> float:
        """Seconds since the beginning."""
        return time.monotonic() - self._began

    def serve(self, person: str, user_id: int, task: OpenedTask) -> None:
        """Record a photo served by the stream, and check that nobody else has it."""
        with self._lock:
            if task.queue not in QUEUES:
                self.add("out_of_queue", person, task.task_id, f"queue: {task.queue!r}")
            other = self._open.get(task.task_id)
            labelled_by = [user for user, meant in self.ledger.of_task(task.task_id).items() if not meant.skipped]
            if other not in (None, person):
                self.add("served_twice", person, task.task_id, f"{other} has it open")
            elif any(user != user_id for user in labelled_by):
                self.add("served_twice", person, task.task_id, "somebody else has labelled it")
            self.close(person)
            self._open[task.task_id] = person

    def close(self, person: str) -> None:
        """Record that an annotator has no photo of the stream open any more."""
        with self._lock:
            for task_id in [task for task, who in self._open.items() if who == person]:
                del self._open[task_id]

    def is_free(self, task_id: int) -> bool:
        """True if nobody has a photo open in the stream, or has labelled it."""
        with self._lock:
            return task_id not in self._open and not self.ledger.of_task(task_id)

    def add(self, kind: str, person: str, task_id: int, detail: str) -> None:
        """Record an incident; see `Incident`."""
        with self._lock:
            self.incidents.append(Incident(kind, person, task_id, detail, round(self.now(), 1)))

    def count(self, kind: str) -> int:
        """Number of incidents of a kind."""
        return sum(incident.kind == kind for incident in self.incidents)

    def figures(self) -> dict[str, Any]:
        """All counts and times, JSON-ready."""
        slots = Counter(str(each.slot) for each in self.labelled)
        return {
            "submits": self.submits,
            **{kind: self.count(kind) for kind in KINDS},
            "wait_for_next_s": spread([wait.total_s for wait in self.waits]),
            "wait_parts_s": {
                "save": spread([wait.save_s for wait in self.waits]),
                "serve": spread([wait.serve_s for wait in self.waits]),
                "show": spread([wait.show_s for wait in self.waits]),
            },
            "longest_wait_s": round(max((wait.total_s for wait in self.waits), default=0.0), 3),
            "slot_counts": dict(sorted(slots.items())),
            "labelled": len(self.labelled),
            "accepted_share": round(sum(each.was_right for each in self.labelled) / max(1, len(self.labelled)), 3),
            "deeds": dict(self.deeds),
            "incidents": [asdict(incident) for incident in self.incidents],
        }


def spread(seconds: list[float]) -> dict[str, float | None]:
    """Median and 95th percentile; None without a value."""
    if not seconds:
        return {"median": None, "p95": None}
    return {"median": round(float(np.median(seconds)), 3), "p95": round(float(np.quantile(seconds, 0.95)), 3)}
