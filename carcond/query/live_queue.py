"""The rule of the live queue: which photos are labelled next, in which slots, in which order, and why.

The loop publishes its answer to Label Studio, `carcond simulate` replays it as the strategy `live`, and the dashboard
shows its reasons. Photos are selected by margin (`_uncertainty`), combined over the tasks. Until
`QueueSettings.cold_start_labels` photos are labelled, representative ones are served instead, in their order: the
uncertainty of a model that has seen almost nothing is worse than chance (arXiv 2210.02442). Until
`QueueSettings.diversity_until_labels` are, the batch is spread over clusters of similar photos (arXiv 2401.14555);
then the smallest margins alone decide.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np

from carcond.arrays import BoolArray, FloatArray, IntArray
from carcond.model.heads import joint_confidence
from carcond.query.slots import EXPLORATION_SLOT, QueryBatch, nearest_slots, representative_order, select_batch
from carcond.query.uncertainty import combine_tasks, margin
from carcond.store.embedding_matrix import BLOCK, Embeddings

Cause = Literal["holdout", "representative", "uncertain"]

# Uncertainty by which photos are selected, see `carcond.query.uncertainty.SCORES`.
_uncertainty = margin

# The smallest difference between scores that orders photos: Label Studio keeps six digits.
_SCORE_STEP = np.float32(1e-6)


@dataclass(frozen=True)
class QueueSettings:
    """Sizes of the live queue.

    Attributes:
        size: photos in the queue, those of the exploration slot included.
        slots: slots for selected photos, which take turns; the exploration slot comes on top.
        candidate_factor: candidates for each photo of the queue, before the most diverse of them are selected.
        cold_start_labels: labels of representative photos before uncertainty sampling.
        diversity_until_labels: number of labels up to which slots hold clusters of similar photos.
    """

    size: int = 20
    slots: int = 9
    candidate_factor: int = 2
    cold_start_labels: int = 10
    diversity_until_labels: int = 50


@dataclass(frozen=True)
class Pool:
    """All photos of a project that have an embedding.

    Attributes:
        embeddings: ``(N, D)``.
        unlabelled: ``(N,)``, True for photos that still want a label; skipped ones do not.
        holdout: ``(N,)``, True for photos of the hold-out. They wait in the exploration slot, and no model has a say in
            their order.
        draws: ``(N,)`` random numbers in 0..1, the same for a photo for ever: the hold-out's order.
        kept_slots: ``(N,)`` slots of photos that may be open on a page, 0 for all others. They stay in their slot, or
            a label would be counted for a slot that it was not served from.
    """

    embeddings: Embeddings
    unlabelled: BoolArray
    holdout: BoolArray
    draws: FloatArray
    kept_slots: IntArray


@dataclass(frozen=True)
class Reason:
    """Why a photo is in the queue.

    Attributes:
        cause: what it was selected for.
        task_key: task that it is most uncertain about, where that is the cause.
    """

    cause: Cause
    task_key: str = ""


class LiveQueue:
    """The order of the unlabelled photos of a pool.

    Attributes:
        positions: rows of the pool in the queue ``(Q,)``, one photo of each slot first.
        queue_slots: of these ``(Q,)``.
        queue_scores: of these ``(Q,)``, see `scores`.
        reasons: of each photo in the queue, Q of them.
        rest: rows of the other unlabelled photos, most informative first, then those of the hold-out; they stand behind
            the queue in its slots.
    """

    def __init__(
        self,
        pool: Pool,
        batch: QueryBatch,
        reasons: Sequence[Reason],
        *,
        rest: IntArray,
        order: "_Order",
        slots: int,
    ) -> None:
        self.positions = batch.positions
        self.queue_slots = batch.slots
        self.queue_scores = order.scores[batch.positions]
        self.reasons = reasons
        self.rest = rest
        self._pool = pool
        self._order = order
        # Label Studio serves the lowest score of a slot first. So a photo behind the queue, which the margin did not
        # select, gets no lower score than the queue's last in its slot, even if its confidence is lower.
        last = np.zeros(slots + 1, dtype=np.float32)
        np.maximum.at(last, batch.slots, self.queue_scores)
        self._least_behind = np.minimum(last + _SCORE_STEP, 1)

    def place_rest(self, rows: IntArray) -> tuple[IntArray, FloatArray]:
        """Slots ``(R,)`` and scores ``(R,)`` of some rows of `rest`; see `scores`."""
        slots = self._order.kept_slots[rows]
        slots[self._pool.holdout[rows]] = EXPLORATION_SLOT
        free = np.flatnonzero((slots == 0) & ~self._pool.holdout[rows])
        queue = self._pool.embeddings[self.positions]
        for start in range(0, len(free), BLOCK):
            some = free[start : start + BLOCK]
            slots[some] = nearest_slots(self._pool.embeddings[rows[some]], queue, self.queue_slots)
        return slots, np.maximum(self._order.scores[rows], self._least_behind[slots])

    @cached_property
    def slots(self) -> IntArray:
        """Slot of each unlabelled photo ``(N,)``."""
        return self._placed[0]

    @cached_property
    def scores(self) -> FloatArray:
        """``(N,)`` in 0..1; in a slot the lowest score is served first.

        It is the joint confidence, of photos behind the queue never below the queue's last in the same slot; during
        the cold start the rank in representative order, in steps of 1e-6. In the exploration slot it is in the order of
        the draw, 0.5..1.
        """
        return self._placed[1]

    @cached_property
    def _placed(self) -> tuple[IntArray, FloatArray]:
        slots, scores = np.zeros(len(self._pool.unlabelled), dtype=np.int64), self._order.scores.copy()
        slots[self.positions] = self.queue_slots
        slots[self.rest], scores[self.rest] = self.place_rest(self.rest)
        return slots, scores


@dataclass(frozen=True)
class _Order:
    """What the order says of each photo of the pool.

    Attributes:
        scores: ``(N,)``, see `LiveQueue.scores`.
        kept_slots: ``(N,)`` slots of photos that have theirs already, 0 for all others.
    """

    scores: FloatArray
    kept_slots: IntArray


def rank_pool(pool: Pool, probabilities: Mapping[str, FloatArray], settings: QueueSettings, seed: int = 0) -> LiveQueue:
    """Order the unlabelled photos.

    Args:
        pool: the photos.
        probabilities: task key -> calibrated class probabilities ``(N, K)``; empty before there is a model.
        settings: sizes of the queue and its slots.
        seed: of k-means.
    """
    cold_start = is_cold_start(pool, probabilities, settings)
    kept_slots = pool.kept_slots
    if cold_start:
        preference = representative_order(pool.embeddings, settings.cold_start_labels, seed)
        preference = preference[~pool.holdout[preference]]
        dealt = _dealt_in_order(preference, settings.slots, len(pool.unlabelled))
        kept_slots = np.where(kept_slots > 0, kept_slots, dealt)
        scores = _ranks(preference, len(pool.unlabelled))
        preference = preference[pool.unlabelled[preference]]
    else:
        scores = joint_confidence(probabilities)
        preference = _most_uncertain_first(probabilities, pool)
    held = np.flatnonzero(pool.unlabelled & pool.holdout)
    held = held[np.argsort(pool.draws[held], kind="stable")]
    # Half of the range: photos of the hold-out look like others, and do not come first where a tab's order is served.
    scores[held] = (1 + pool.draws[held]) / 2
    # As many as of each other slot, and more once there are no others.
    from_holdout = max(1, settings.size // (settings.slots + 1), settings.size - len(preference))
    batch = select_batch(
        pool.embeddings,
        preference[: settings.size * settings.candidate_factor],
        held[:from_holdout],
        size=settings.size,
        slots=settings.slots,
        diverse=not cold_start and _labelled(pool) < settings.diversity_until_labels,
        kept=kept_slots,
        seed=seed,
    )
    waiting = pool.unlabelled.copy()
    waiting[batch.positions] = False
    rest = np.concatenate([preference, held])
    rest = rest[waiting[rest]]
    reasons = queue_reasons(pool, probabilities, settings, batch.positions, batch.slots)
    order = _Order(scores, kept_slots)
    return LiveQueue(pool, batch, reasons, rest=rest, order=order, slots=settings.slots)


def is_cold_start(pool: Pool, probabilities: Mapping[str, FloatArray], settings: QueueSettings) -> bool:
    """Return True while representative photos are selected: there is no model yet, or hardly a label."""
    return not probabilities or _labelled(pool) < settings.cold_start_labels


def queue_reasons(
    pool: Pool,
    probabilities: Mapping[str, FloatArray],
    settings: QueueSettings,
    positions: IntArray,
    slots: IntArray,
) -> list[Reason]:
    """Reasons of photos in the queue.

    Args:
        pool: all photos.
        probabilities: see `rank_pool`.
        settings: see `rank_pool`.
        positions: rows of the pool ``(Q,)``.
        slots: of each ``(Q,)``.
    """
    selected: Sequence[Reason]
    if is_cold_start(pool, probabilities, settings):
        selected = [Reason("representative")] * len(positions)
    else:
        selected = [Reason("uncertain", task) for task in _most_uncertain_tasks(probabilities, pool, positions)]
    is_exploration = slots == EXPLORATION_SLOT
    return [Reason("holdout") if held else reason for held, reason in zip(is_exploration, selected, strict=True)]


def served_order(positions: IntArray, slots: IntArray, scores: FloatArray) -> IntArray:
    """Photos as one person is served them: the slots in turn, in each slot the lowest score first.

    Args:
        positions: rows of the pool ``(Q,)``; of equal scores the first one comes first.
        slots: slot of each row of the pool ``(N,)``.
        scores: of each row of the pool ``(N,)``.

    Returns:
        The positions in order ``(Q,)``.
    """
    by_score = positions[np.argsort(scores[positions], kind="stable")]
    place = np.empty(len(by_score), dtype=np.int64)
    for slot in np.unique(slots[by_score]):
        members = np.flatnonzero(slots[by_score] == slot)
        place[members] = np.arange(len(members))
    return np.asarray(by_score[np.lexsort((slots[by_score], place))], dtype=np.int64)


def _labelled(pool: Pool) -> int:
    return int((~pool.unlabelled).sum())


def _most_uncertain_first(probabilities: Mapping[str, FloatArray], pool: Pool) -> IntArray:
    """Unlabelled photos outside the hold-out, in the order in which they are selected."""
    unlabelled = np.flatnonzero(pool.unlabelled)
    uncertain = combine_tasks({key: _uncertainty(rows[np.newaxis, unlabelled]) for key, rows in probabilities.items()})
    order = unlabelled[np.argsort(-uncertain, kind="stable")]
    return order[~pool.holdout[order]]


def _dealt_in_order(order: IntArray, slots: int, count: int) -> IntArray:
    """Slots 1..C ``(N,)`` of photos dealt one by one; 0 for photos that are not in the order.

    Labelled photos keep their place in the deal. So the next photo is in a slot that has had one label less, whoever
    goes round the slots, and however often the queue is ranked anew.
    """
    dealt = np.zeros(count, dtype=np.int64)
    dealt[order] = 1 + np.arange(len(order)) % slots
    return dealt


def _ranks(order: IntArray, count: int) -> FloatArray:
    """Scores ``(N,)`` that serve photos in this order, in steps of `_SCORE_STEP`."""
    ranks = np.zeros(count, dtype=np.float32)
    ranks[order] = np.arange(len(order), dtype=np.float32) * _SCORE_STEP
    return ranks


def _most_uncertain_tasks(probabilities: Mapping[str, FloatArray], pool: Pool, positions: IntArray) -> list[str]:
    """Of each photo the task that weighs most in `combine_tasks`."""
    if not len(positions):
        return []
    scores = [_uncertainty(rows[np.newaxis]) for rows in probabilities.values()]
    shares = [values[positions] / max(float(values[pool.unlabelled].mean()), 1e-12) for values in scores]
    keys = list(probabilities)
    return [keys[k] for k in np.stack(shares).argmax(axis=0)]
