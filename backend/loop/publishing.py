"""Writing the queue into Label Studio: predictions with slots, changed in place and never deleted.

A page submits the id of the prediction that it was opened with, and Label Studio refuses the submit when that row is
gone. So a prediction of an unlabelled task is only ever changed. A task that is next in line when one version follows
another needs a prediction of both: it gets a second row once, and from then on the one that does not serve is moved to
the new version. Both rows carry the same slot, since Label Studio counts a solved task for the greatest slot of its
rows. Predictions of labelled tasks are never touched: they carry those counts. Neither are those of other models:
they have no part in the order, which uses the project's version alone.
"""

import logging
import time
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor

import httpx

from backend.label_studio.client import LabelStudioApi, PredictionDraft, StoredPrediction
from backend.loop.sync import REFUSED, prediction_row
from carcond.errors import LabelStudioError
from carcond.fault_points import reach
from carcond.registry.version_names import COLD_START_VERSION, SUPERSEDED_VERSION, is_ours
from carcond.store.store import Store
from carcond.store.tables import PredictionRow

logger = logging.getLogger(__name__)

# Scores are published with six digits.
SCORE_TOLERANCE = 5e-7

Finish = Callable[[PredictionDraft], PredictionDraft]
"""Completes a draft just before it is written, in several threads: adds slow parts, while other writes wait."""


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

    def publish(
        self, drafts: Sequence[PredictionDraft], *, served_version: str, version: str, beside: Collection[int] = ()
    ) -> None:
        """Write predictions that are not there yet, then serve their version.

        Args:
            drafts: in the order in which they should be there, all of `version`.
            served_version: the project's present `model_version`.
            version: the version to serve.
            beside: ids of tasks that keep their prediction of the served version until the next publish: they may be
                being opened while the project moves.
        """
        with ThreadPoolExecutor(self._connections) as pool:
            stored = self._stored(drafts)
            list(pool.map(lambda draft: self._write(draft, stored, served_version, beside), drafts))
        reach("predictions.written")
        # Label Studio refuses a version of which it has no prediction; then there is nothing to serve.
        if served_version != version and self._store.has_prediction(self._project_id, version):
            self._api.update_project(self._project_id, model_version=version)

    def refresh(
        self, drafts: Sequence[PredictionDraft], interrupted: Callable[[], bool], written: Callable[[int], None]
    ) -> int:
        """Write further predictions of the served version one at a time, at half speed, until done or interrupted.

        Annotators come first: after each write Label Studio rests as long as the write took.

        Args:
            drafts: what to write.
            interrupted: checked before each write.
            written: receives the number of predictions written so far.

        Returns:
            Number of predictions that are still to be written.
        """
        for done, draft in enumerate(drafts):
            if interrupted():
                return len(drafts) - done
            began = time.monotonic()
            self._write(draft, self._stored([draft]), draft.model_version)
            written(done + 1)
            time.sleep(time.monotonic() - began)
        return 0

    def _stored(self, drafts: Sequence[PredictionDraft]) -> dict[int, list[PredictionRow]]:
        """Our predictions of the drafts' tasks."""
        stored: dict[int, list[PredictionRow]] = {}
        for row in self._store.predictions_of(self._project_id, [draft.task_id for draft in drafts]):
            if is_ours(row.model_version):
                stored.setdefault(row.task_id, []).append(row)
        return stored

    def _write(
        self,
        draft: PredictionDraft,
        stored: dict[int, list[PredictionRow]],
        served_version: str,
        beside: Collection[int] = (),
    ) -> None:
        rows = stored.get(draft.task_id, [])
        target = _row_to_move(rows, draft.model_version, served_version, keep=draft.task_id in beside)
        draft = self._finish(draft)
        try:
            # First: a task that is solved meanwhile counts for the greatest slot of its rows.
            for row in rows:
                if row is not target:
                    self._put_aside(row, draft)
            written = target and self._changed(target, lambda row: self._api.update_prediction(row, draft))
            changed = written or self._api.create_prediction(draft)
            reach("prediction.written")
            self._mirror(changed)
        except LabelStudioError as error:
            if error.status not in REFUSED:
                raise
            # The task was deleted a moment ago: the next turn reads the current state.
            logger.info("project %d, task %d: not written: %s", self._project_id, draft.task_id, error)

    def _put_aside(self, row: PredictionRow, draft: PredictionDraft) -> None:
        """Bring another row of the task into the draft's slot and out of its version: the task is served once."""
        if row.slot is not None and row.slot != draft.slot:
            self._mirror(self._changed(row, lambda number: self._api.set_slot(number, draft.slot)))
        if row.model_version == draft.model_version:
            self._mirror(self._changed(row, lambda number: self._api.set_version(number, SUPERSEDED_VERSION)))

    def _changed(self, row: PredictionRow, change: Callable[[int], StoredPrediction]) -> StoredPrediction | None:
        """Change a prediction; None when somebody has deleted it."""
        try:
            return change(row.prediction_id)
        except LabelStudioError as error:
            if error.status != httpx.codes.NOT_FOUND:
                raise
            self._store.drop_prediction(self._project_id, row.prediction_id)
            return None

    def _mirror(self, written: StoredPrediction | None) -> None:
        if written:
            self._store.put_prediction(prediction_row(self._project_id, written))


def is_current(draft: PredictionDraft, rows: Sequence[PredictionRow], exploration_slot: int) -> bool:
    """True if Label Studio holds a draft already, as far as the queue is concerned.

    Args:
        draft: what it should hold.
        rows: our predictions of the draft's task.
        exploration_slot: moving from one of the other slots to another is not worth a write. In this slot a photo has
            one score for ever: with another, an earlier release has published it with answers. Before the first
            version a score is the photo's place in the order, which new photos change.
    """
    of_version = [row for row in rows if row.model_version == draft.model_version]
    slots = {row.slot for row in rows if row.slot is not None}
    if len(of_version) != 1 or len(slots) > 1:
        return False
    (row,) = of_version
    has_place = draft.slot == exploration_slot or draft.model_version == COLD_START_VERSION
    if has_place and abs((row.score or 0.0) - draft.score) > SCORE_TOLERANCE:
        return False
    return (row.slot is None) == (draft.slot is None) and (row.slot == exploration_slot) == (
        draft.slot == exploration_slot
    )


def _row_to_move(
    rows: Sequence[PredictionRow], version: str, served_version: str, *, keep: bool
) -> PredictionRow | None:
    """The row that becomes the prediction of `version`; None when the task needs a further one.

    Args:
        rows: our predictions of the task.
        version: the version to write.
        served_version: the project's present `model_version`.
        keep: whether the prediction of the served version has to stay.
    """
    of_version = [row for row in rows if row.model_version == version]
    if of_version:
        return of_version[0]
    movable = [row for row in rows if not (keep and row.model_version == served_version)]
    # Rather not the one that is being served, and of the others the oldest.
    return min(movable, key=lambda row: (row.model_version == served_version, row.model_version), default=None)
