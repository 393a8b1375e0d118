"""Writing the queue into Label Studio: predictions with slots, best first, in place.

Each unlabelled task has exactly one prediction of ours. A task that joins the queue gets its prediction
moved to the new version by PATCH; a task that leaves it keeps the old version's, which Label Studio
does not serve once `project.model_version` has moved on. Only the few tasks that are next in line have
both for the second or two in which one version follows the other. Predictions of labelled tasks are
never touched: they carry the counts by which Label Studio goes round the slots. Neither are those of
other models: they have no part in the order, which looks at the project's version alone.
"""

import logging
import math
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import httpx

from backend.labelstudio import LabelStudioApi, PredictionDraft, StoredPrediction
from backend.sync import prediction_row
from carcond.errors import LabelStudioError
from carcond.registry import is_ours
from carcond.store import Store
from carcond.tables import PredictionRow

logger = logging.getLogger(__name__)

Finish = Callable[[PredictionDraft], PredictionDraft]
"""Told a draft just before it is written, by several threads: adds what costs time, while other writes wait."""

_REFUSED = (httpx.codes.BAD_REQUEST, httpx.codes.NOT_FOUND)


class Publisher:
    """Writes predictions of one project, and mirrors them in the store."""

    def __init__(
        self, api: LabelStudioApi, store: Store, project_id: int, connections: int, finish: Finish = lambda draft: draft
    ) -> None:
        self._api = api
        self._finish = finish
        self._store = store
        self._project_id = project_id
        self._connections = connections

    def publish_queue(
        self,
        queue: Sequence[PredictionDraft],
        rest: Sequence[PredictionDraft],
        *,
        served_version: str,
        version: str,
        head: int,
    ) -> None:
        """Write those predictions of the queue that are not there yet, and serve their version.

        Label Studio shows a pre-label only while the task's prediction and the project are of one
        version, and it reads the project once to choose a task and once more to show it: a task that
        is being opened while the project moves needs the predictions of both. So those that the old
        queue would serve next get the new one beside the old one, which goes last of all. Two
        predictions of different versions leave the order alone. Whatever else has to be there before
        the project moves is made of tasks that the old queue would serve last.

        Args:
            queue: in the order in which they should be there, all of `version`.
            rest: the other unlabelled tasks' predictions.
            served_version: the project's present `model_version`.
            version: the version to serve.
            head: so many are written before the project moves, so that nobody finds an empty queue.
        """
        if served_version == version:
            self._write(queue)
            return
        old = [row for row in self._store.predictions(self._project_id) if row.model_version == served_version]
        next_in_line = _first_of_each_slot(old, {draft.task_id for draft in (*queue, *rest)})
        doubled = [draft for draft in (*queue, *rest) if draft.task_id in next_in_line]
        others = [draft for draft in queue if draft.task_id not in next_in_line]
        old_score = {row.task_id: row.score or 0.0 for row in old}
        served_last = sorted(others, key=lambda draft: -old_score.get(draft.task_id, math.inf))
        served_last = served_last[: max(0, head - len(doubled))]
        self._write_beside(doubled, version)
        self._write(served_last)
        # Label Studio refuses a version of which it has no prediction; then there is nothing to serve.
        if self._store.has_prediction(self._project_id, version):
            self._api.update_project(self._project_id, model_version=version)
        written = {draft.task_id for draft in served_last}
        self._write([draft for draft in others if draft.task_id not in written])
        self._delete_other_versions(next_in_line, version)

    def refresh(self, drafts: Sequence[PredictionDraft], interrupted: Callable[[], bool]) -> int:
        """Write further predictions one at a time, at half speed, until done or interrupted.

        Annotators come first: after each write Label Studio rests as long as the write took.

        Returns:
            How many are still to be written.
        """
        for done, draft in enumerate(drafts):
            if interrupted():
                return len(drafts) - done
            began = time.monotonic()
            self._write([draft])
            time.sleep(time.monotonic() - began)
        return 0

    def _write(self, drafts: Sequence[PredictionDraft]) -> None:
        """Write predictions over those that their tasks have."""
        stored: dict[int, list[PredictionRow]] = {}
        for row in self._store.predictions_of(self._project_id, [draft.task_id for draft in drafts]):
            if is_ours(row.model_version):
                stored.setdefault(row.task_id, []).append(row)
        self._write_over(stored, drafts)

    def _write_beside(self, drafts: Sequence[PredictionDraft], version: str) -> None:
        """Add predictions to those of other versions, unless a publish that was cut short has done so."""
        rows = self._store.predictions_of(self._project_id, [draft.task_id for draft in drafts])
        there = {row.task_id for row in rows if row.model_version == version}
        self._write_over({}, [draft for draft in drafts if draft.task_id not in there])

    def _write_over(self, stored: Mapping[int, Sequence[PredictionRow]], drafts: Sequence[PredictionDraft]) -> None:
        with ThreadPoolExecutor(self._connections) as pool:
            list(pool.map(partial(self._write_one, stored), drafts))

    def _delete_other_versions(self, task_ids: Collection[int], version: str) -> None:
        rows = self._store.predictions_of(self._project_id, list(task_ids))
        ids = [r.prediction_id for r in rows if is_ours(r.model_version) and r.model_version != version]
        with ThreadPoolExecutor(self._connections) as pool:
            list(pool.map(self._delete, ids))

    def _write_one(self, stored: Mapping[int, Sequence[PredictionRow]], draft: PredictionDraft) -> None:
        # One that is being served is changed; it is not to be gone in between.
        rows = sorted(stored.get(draft.task_id, ()), key=lambda row: row.model_version != draft.model_version)
        for row in rows[1:]:
            self._delete(row.prediction_id)
        draft = self._finish(draft)
        try:
            written = self._update(rows[0].prediction_id, draft) if rows else None
            written = written or self._api.create_prediction(draft)
        except LabelStudioError as error:
            if error.status not in _REFUSED:
                raise
            # The task was deleted a moment ago: the next turn reads what is true.
            logger.info("project %d, task %d: not written: %s", self._project_id, draft.task_id, error)
            return
        self._store.put_prediction(prediction_row(self._project_id, written))

    def _update(self, prediction_id: int, draft: PredictionDraft) -> StoredPrediction | None:
        """Move a prediction; None when somebody has deleted it."""
        try:
            return self._api.update_prediction(prediction_id, draft)
        except LabelStudioError as error:
            if error.status != httpx.codes.NOT_FOUND:
                raise
            self._store.drop_prediction(self._project_id, prediction_id)
            return None

    def _delete(self, prediction_id: int) -> None:
        try:
            self._api.delete_prediction(prediction_id)
        except LabelStudioError as error:
            if error.status != httpx.codes.NOT_FOUND:
                raise
        self._store.drop_prediction(self._project_id, prediction_id)


def _first_of_each_slot(rows: Sequence[PredictionRow], task_ids: set[int]) -> set[int]:
    """The tasks, among the given ones, with the lowest score of each slot."""
    first: dict[int | None, PredictionRow] = {}
    for row in rows:
        if row.task_id in task_ids and (row.slot not in first or (row.score or 0) < (first[row.slot].score or 0)):
            first[row.slot] = row
    return {row.task_id for row in first.values()}
