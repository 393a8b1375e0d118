"""Intended labels, kept independently of Label Studio; `scripts.labellers.audit` compares them."""

import threading
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Meant:
    """An annotator's final label of one photo: task key -> class key, or that it was skipped."""

    classes: Mapping[str, str] = field(default_factory=dict)
    skipped: bool = False


class Ledger:
    """Final label of each photo by each annotator. Safe to share between threads.

    A label is recorded when it is submitted, and confirmed when Label Studio has answered that it is saved.
    """

    def __init__(self) -> None:
        self._meant: dict[int, dict[int, Meant]] = {}
        self._confirmed: dict[tuple[int, int], Meant] = {}
        self._lock = threading.Lock()

    def write(self, task_id: int, user_id: int, meant: Meant) -> None:
        """Record a submitted label."""
        with self._lock:
            self._meant.setdefault(task_id, {})[user_id] = meant

    def confirm(self, task_id: int, user_id: int) -> None:
        """Record that the label submitted last is saved."""
        with self._lock:
            self._confirmed[task_id, user_id] = self._meant[task_id][user_id]

    def confirmed(self) -> dict[tuple[int, int], Meant]:
        """(task id, user id) -> last label of which Label Studio has answered that it is saved."""
        with self._lock:
            return dict(self._confirmed)

    def of_task(self, task_id: int) -> dict[int, Meant]:
        """User id -> final label of that photo."""
        with self._lock:
            return dict(self._meant.get(task_id, {}))

    def entries(self) -> dict[tuple[int, int], Meant]:
        """(task id, user id) -> final label."""
        with self._lock:
            return {(task, user): meant for task, by_user in self._meant.items() for user, meant in by_user.items()}

    def labels(self) -> dict[int, dict[str, str]]:
        """Task id -> classes by majority of its annotators, none where it is a tie."""
        labels = {}
        for task_id in {task for task, _ in self.entries()}:
            stated = [meant.classes for meant in self.of_task(task_id).values() if not meant.skipped]
            if merged := _merge(stated):
                labels[task_id] = merged
        return labels


def _merge(stated: list[Mapping[str, str]]) -> dict[str, str]:
    merged = {}
    for key in {key for classes in stated for key in classes}:
        votes = Counter(classes[key] for classes in stated if key in classes).most_common(2)
        if len(votes) == 1 or votes[0][1] > votes[1][1]:
            merged[key] = votes[0][0]
    return merged
