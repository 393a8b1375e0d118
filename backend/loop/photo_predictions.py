"""Our predictions that Label Studio holds, beside the photos that they are of."""

from collections.abc import Collection
from functools import cached_property

import numpy as np

from backend.loop.publishing import SCORE_TOLERANCE
from backend.pool.facts import NONE, HeldPredictions, is_among
from carcond.arrays import BoolArray, FloatArray, IntArray
from carcond.query.slots import EXPLORATION_SLOT
from carcond.registry.version_names import COLD_START_VERSION
from carcond.store.tables import PredictionRow


class PhotoPredictions:
    """The predictions of some photos; those of others are left out."""

    def __init__(self, task_ids: IntArray, held: HeldPredictions) -> None:
        """Find the predictions of photos.

        Args:
            task_ids: of the photos ``(P,)``, ascending.
            held: of the project.
        """
        self._task_ids = task_ids
        self._held = held
        self._chosen = np.flatnonzero(is_among(held.task_ids, task_ids))
        # Of R predictions: the position of the photo, and the slot.
        self._photo = np.searchsorted(task_ids, held.task_ids[self._chosen])
        self._slots = held.slots[self._chosen]

    @cached_property
    def counts(self) -> IntArray:
        """Number of predictions of each photo ``(P,)``."""
        return np.bincount(self._photo, minlength=len(self._task_ids))

    @cached_property
    def greatest_slots(self) -> IntArray:
        """Greatest slot of each photo's predictions ``(P,)``, `NONE` without one."""
        greatest = np.full(len(self._task_ids), NONE, dtype=np.int64)
        np.maximum.at(greatest, self._photo, self._slots)
        return greatest

    def kept_slots(self, opened: Collection[int], slots: int) -> dict[int, int]:
        """Slots 1..C of tasks that stay in theirs: they have two predictions, or get a second one as `opened` do.

        Args:
            opened: task ids, see `backend.loop.next_in_line`.
            slots: C.
        """
        stays = (self.counts > 1) | is_among(self._task_ids, np.array(sorted(opened), dtype=np.int64))
        stays &= (self.greatest_slots > EXPLORATION_SLOT) & (self.greatest_slots <= slots)
        return dict(zip(self._task_ids[stays].tolist(), self.greatest_slots[stays].tolist(), strict=True))

    def first_of_slots(self, version: str, wanted: BoolArray, depth: int) -> list[PredictionRow]:
        """Predictions of a version that come first in each slot: the lowest score, then the lowest task id.

        Args:
            version: of the predictions.
            wanted: ``(P,)``, True for photos that count.
            depth: maximum number of predictions of each slot.
        """
        waiting = np.flatnonzero(self._held.of_version(version)[self._chosen] & wanted[self._photo])
        first: list[PredictionRow] = []
        for slot in np.unique(self._slots[waiting]).tolist():
            members = waiting[self._slots[waiting] == slot]
            scores = self._held.scores[self._chosen[members]]
            if len(members) > depth:
                near = scores <= np.partition(scores, depth - 1)[depth - 1]
                members, scores = members[near], scores[near]
            tasks = self._task_ids[self._photo[members]]
            order = np.lexsort((tasks, scores))[:depth]
            first += [
                PredictionRow(task_id=task_id, score=score, slot=None if slot == NONE else slot)
                for task_id, score in zip(tasks[order].tolist(), scores[order].tolist(), strict=True)
            ]
        return first

    def published(self, version: str) -> tuple[IntArray, IntArray, FloatArray]:
        """Photos with a prediction of a version in a slot.

        Returns:
            Their positions, ascending, and the slot and score of every photo ``(P,)``, 0 where there is none.
        """
        chosen = self._held.of_version(version)[self._chosen] & (self._slots != NONE)
        photo = self._photo[chosen]
        slots, scores = np.zeros(len(self._task_ids), dtype=np.int64), np.zeros(len(self._task_ids), dtype=np.float32)
        slots[photo] = self._slots[chosen]
        scores[photo] = self._held.scores[self._chosen[chosen]]
        return np.unique(photo), slots, scores

    def are_current(self, version: str, explored: BoolArray, scores: FloatArray) -> BoolArray:
        """``(P,)``, True where Label Studio holds the prediction already: `backend.loop.publishing.is_current` for all.

        Args:
            version: of the predictions that it should hold.
            explored: ``(P,)``, True for photos that belong into the exploration slot, False for the other slots.
            scores: ``(P,)`` of the photos in the exploration slot, before the first version of all.
        """
        of_version = self._held.of_version(version)[self._chosen]
        photo = self._photo[of_version]
        slot = np.full(len(self._task_ids), NONE, dtype=np.int64)
        slot[photo] = self._slots[of_version]
        held_score = np.zeros(len(self._task_ids))
        held_score[photo] = self._held.scores[self._chosen[of_version]]
        has_place = explored | (version == COLD_START_VERSION)
        is_placed = np.abs(held_score - np.round(scores.astype(np.float64), 6)) <= SCORE_TOLERANCE
        once = np.bincount(photo, minlength=len(self._task_ids)) == 1
        in_kind = (slot != NONE) & ((slot == EXPLORATION_SLOT) == explored)
        return np.asarray(once & self._have_one_slot & in_kind & (is_placed | ~has_place), dtype=np.bool_)

    def lateness(self, explored: BoolArray) -> IntArray:
        """0 for photos that a refresh moves first ``(P,)``.

        First those that were sampled for the hold-out while other slots served them with answers, then those with two
        predictions: they have been next in line, and a page may have one of them open.

        Args:
            explored: see `are_current`.
        """
        elsewhere = np.bincount(self._photo[self._slots != EXPLORATION_SLOT], minlength=len(self._task_ids)) > 0
        return np.where(explored & elsewhere, 0, np.where(self.counts > 1, 1, 2))

    @cached_property
    def _have_one_slot(self) -> BoolArray:
        """``(P,)``, False for photos whose predictions are in different slots."""
        with_slot = self._slots != NONE
        least = self.greatest_slots.copy()
        np.minimum.at(least, self._photo[with_slot], self._slots[with_slot])
        return np.asarray(least == self.greatest_slots, dtype=np.bool_)
