"""The tasks that Label Studio serves next, and those that pages hold open: they must never be without a pre-label.

Label Studio reads the project's `model_version` once to choose a task and once more to show it, and it serves a task
that a page had locked again after a reload, however old the lock. In both cases the page is blank unless the task has
a prediction of exactly the version that is served at that moment. Locks are not in Label Studio's API, so the tasks
that may be locked are derived from its order: the slot of which an annotator has solved fewest tasks comes first, and
in it the lowest score.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta

import numpy as np

from backend.loop.photo_predictions import PhotoPredictions
from backend.pool.facts import NONE, HeldPredictions
from backend.snapshot import Snapshot
from carcond.store.store import Store
from carcond.store.tables import AnnotationRow, PredictionRow

Solved = Counter[int | None]
"""Slot -> number of tasks that an annotator has solved of it."""

# A lock of Label Studio holds for a day.
_LOCK_TIME = timedelta(days=1)
# Labels that one person can make from the moment the labels are read until the next version is served.
_LABELS_AHEAD = 3


def open_tasks(store: Store, project_id: int, served_version: str, snapshot: Snapshot, now: datetime) -> set[int]:
    """Unlabelled tasks that people may be opening now, or may have open since their newest annotation.

    Args:
        store: keeps what each annotator may have open.
        project_id: the project.
        served_version: the project's `model_version`.
        snapshot: has just been taken.
        now: in UTC.
    """
    newest = {
        annotator: row
        for annotator, row in _newest(snapshot.annotations).items()
        if now - _moment(row.updated_at) < _LOCK_TIME
    }
    solved = _solved(snapshot.annotations, snapshot.facts.held, newest)
    # Each of the others may hold the lock of a task, and one more may just have been solved.
    width = len(newest) + 1
    predictions = PhotoPredictions(snapshot.task_ids, snapshot.facts.held)
    waiting = predictions.first_of_slots(served_version, snapshot.unlabelled, width + _LABELS_AHEAD)
    noted = {row.annotator: row.annotation_id for row in store.open_tasks(project_id)}
    for annotator, row in newest.items():
        if noted.get(annotator) != row.annotation_id:
            served = served_next(waiting, solved[annotator], width, labels=1)
            store.put_open_tasks(project_id, annotator, row.annotation_id, served)
    held = snapshot.rows({row.task_id for row in store.open_tasks(project_id) if row.annotator in newest})
    still_open = snapshot.task_ids[held[snapshot.unlabelled[held]]].tolist()
    somebody_new = Solved()
    next_in_line = [served_next(waiting, each, width, _LABELS_AHEAD) for each in (*solved.values(), somebody_new)]
    return set(still_open).union(*next_in_line)


def served_next(
    waiting: Sequence[PredictionRow], solved: Mapping[int | None, int], width: int, labels: int
) -> set[int]:
    """Ids of the tasks that Label Studio may serve to one annotator.

    Args:
        waiting: predictions of the served version, of unlabelled tasks: the first `width` + `labels` of each slot, or
            more.
        solved: slot -> number of tasks that the annotator has solved of it.
        width: number of tasks, in Label Studio's order, of which any may be free to be served.
        labels: number of labels that the annotator may make meanwhile.
    """
    rows, count, found = list(waiting), Counter(solved), set[int]()
    for _ in range(labels):
        rows.sort(key=lambda row: (count[row.slot], row.score or 0.0, row.task_id))
        found |= {row.task_id for row in rows[:width]}
        for row in rows[:1]:
            count[row.slot] += 1
        del rows[:1]
    return found


def _solved(
    annotations: Iterable[AnnotationRow], held: HeldPredictions, annotators: Collection[int]
) -> dict[int, Solved]:
    """Solved tasks of each annotator. A task counts for the greatest slot of its predictions, as in Label Studio."""
    tasks = {(row.annotator, row.task_id) for row in annotations if row.annotator in annotators}
    task_ids = np.array(sorted({task_id for _, task_id in tasks}), dtype=np.int64)
    greatest = PhotoPredictions(task_ids, held).greatest_slots
    slots = {task_id: slot for task_id, slot in zip(task_ids.tolist(), greatest.tolist(), strict=True) if slot != NONE}
    solved = {annotator: Solved() for annotator in annotators}
    for annotator, task_id in tasks:
        solved[annotator][slots.get(task_id)] += 1
    return solved


def _newest(annotations: Iterable[AnnotationRow]) -> dict[int, AnnotationRow]:
    """The newest annotation of each annotator."""
    newest: dict[int, AnnotationRow] = {}
    for row in annotations:
        if row.annotator not in newest or row.annotation_id > newest[row.annotator].annotation_id:
            newest[row.annotator] = row
    return newest


def _moment(stamp: str) -> datetime:
    moment = datetime.fromisoformat(stamp)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
