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
from typing import Literal

import numpy as np

from carcond.arrays import BoolArray, FloatArray, IntArray
from carcond.model.heads import joint_confidence
from carcond.query.slots import EXPLORATION_SLOT, nearest_slots, representative_order, select_batch
from carcond.query.uncertainty import combine_tasks, margin

Cause = Literal["holdout", "representative", "uncertain"]

# Uncertainty by which photos are selected, see `carcond.query.uncertainty.SCORES`.
_uncertainty = margin

MAX_EXPLORATION = 4
"""Maximum number of randomly sampled photos that wait for a label.

The few most confident of them are served last, and more of them would make the hold-out look harder than the pool.
"""

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
        reserved: ``(N,)``, True for photos of the hold-out: never selected by uncertainty.
        drawn: ``(N,)``, True for photos sampled at random for the hold-out: they go into the exploration slot.
        kept_slots: ``(N,)`` slots of photos that may be open on a page, 0 for all others. They stay in their slot, or
            a label would be counted for a slot that it was not served from.
    """

    embeddings: FloatArray
    unlabelled: BoolArray
    reserved: BoolArray
    drawn: BoolArray
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


@dataclass(frozen=True)
class LiveQueue:
    """The order of the unlabelled photos of a pool.

    Attributes:
        positions: rows of the pool in the queue ``(Q,)``, one photo of each slot first.
        reasons: of each photo in the queue, Q of them.
        rest: rows of the other unlabelled photos, most informative first; they stand behind the queue in its slots.
        slots: slot of each unlabelled photo ``(N,)``.
        scores: ``(N,)`` in 0..1; in a slot the lowest score is served first. It is the joint confidence, of photos
            behind the queue never below the queue's last in the same slot; during the cold start the rank in
            representative order, in steps of 1e-6.
    """

    positions: IntArray
    reasons: Sequence[Reason]
    rest: IntArray
    slots: IntArray
    scores: FloatArray


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
        dealt = _dealt_in_order(preference[~pool.reserved[preference]], settings.slots, len(pool.unlabelled))
        kept_slots = np.where(kept_slots > 0, kept_slots, dealt)
    else:
        unlabelled = np.flatnonzero(pool.unlabelled)
        scores = combine_tasks(
            {task: _uncertainty(rows[np.newaxis, unlabelled]) for task, rows in probabilities.items()}
        )
        preference = unlabelled[np.argsort(-scores, kind="stable")]
    batch = select_batch(
        pool.embeddings,
        preference[(pool.unlabelled & ~pool.reserved)[preference]][: settings.size * settings.candidate_factor],
        np.flatnonzero(pool.unlabelled & pool.drawn),
        size=settings.size,
        slots=settings.slots,
        diverse=not cold_start and _labelled(pool) < settings.diversity_until_labels,
        kept=kept_slots,
        seed=seed,
    )
    waiting = pool.unlabelled.copy()
    waiting[batch.positions] = False
    rest = preference[waiting[preference]]
    slots = np.zeros(len(pool.unlabelled), dtype=np.int64)
    slots[batch.positions] = batch.slots
    nearest = nearest_slots(pool.embeddings[rest], pool.embeddings[batch.positions], batch.slots)
    slots[rest] = np.where(kept_slots[rest] > 0, kept_slots[rest], nearest)
    confidence = _ranks(preference, len(pool.unlabelled)) if cold_start else joint_confidence(probabilities)
    # Label Studio serves the lowest score of a slot first. So a photo behind the queue, which the margin did not
    # select, gets no lower score than the queue's last in its slot, even if its confidence is lower.
    last = np.zeros(settings.slots + 1, dtype=np.float32)
    np.maximum.at(last, batch.slots, confidence[batch.positions])
    confidence[rest] = np.maximum(confidence[rest], np.minimum(last + _SCORE_STEP, 1)[slots[rest]])
    reasons = queue_reasons(pool, probabilities, settings, batch.positions, batch.slots)
    return LiveQueue(batch.positions, reasons, rest, slots, confidence)


def exploration_size(unlabelled: int, settings: QueueSettings, most: int = MAX_EXPLORATION) -> int:
    """Number of randomly sampled photos that should wait in the exploration slot: 1 to `most`.

    Args:
        unlabelled: number of photos that still want a label.
        settings: sizes of the queue.
        most: maximum; more for a queue that is published less often.
    """
    return max(1, min(most, unlabelled // (settings.slots + 1)))


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
    return [Reason("holdout") if drawn else reason for drawn, reason in zip(is_exploration, selected, strict=True)]


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
