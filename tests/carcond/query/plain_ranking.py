"""The rule of the live queue over whole arrays in memory: the reference of `carcond.query.live_queue`."""

from collections.abc import Mapping

import numpy as np

from carcond.arrays import FloatArray, IntArray
from carcond.model.heads import joint_confidence
from carcond.query.live_queue import Pool, QueueSettings
from carcond.query.slots import nearest_slots, representative_order, select_batch
from carcond.query.uncertainty import combine_tasks, margin


def plain_ranking(
    pool: Pool, probabilities: Mapping[str, FloatArray], settings: QueueSettings
) -> tuple[IntArray, IntArray, IntArray, FloatArray]:
    """Queue and rest as rows, and the slots and scores ``(N,)`` of all photos; embeddings are an array."""
    count, labelled = len(pool.unlabelled), int((~pool.unlabelled).sum())
    cold, kept = not probabilities or labelled < settings.cold_start_labels, pool.kept_slots
    scores: FloatArray
    if cold:
        order = representative_order(pool.embeddings, settings.cold_start_labels, 0)
        order = order[~pool.holdout[order]]
        dealt, scores = np.zeros(count, dtype=np.int64), np.zeros(count, dtype=np.float32)
        dealt[order] = 1 + np.arange(len(order)) % settings.slots
        scores[order] = np.arange(len(order), dtype=np.float32) * np.float32(1e-6)
        kept = np.where(kept > 0, kept, dealt)
        order = order[pool.unlabelled[order]]
    else:
        scores = joint_confidence(probabilities)
        unlabelled = np.flatnonzero(pool.unlabelled)
        uncertain = combine_tasks({key: margin(rows[np.newaxis, unlabelled]) for key, rows in probabilities.items()})
        order = unlabelled[np.argsort(-uncertain, kind="stable")]
        order = order[~pool.holdout[order]]
    held = np.flatnonzero(pool.unlabelled & pool.holdout)
    held = held[np.argsort(pool.draws[held], kind="stable")]
    scores[held] = (1 + pool.draws[held]) / 2
    share = max(1, settings.size // (settings.slots + 1), settings.size - len(order))
    batch = select_batch(
        pool.embeddings,
        order[: settings.size * settings.candidate_factor],
        held[:share],
        size=settings.size,
        slots=settings.slots,
        diverse=not cold and labelled < settings.diversity_until_labels,
        kept=kept,
    )
    rest = np.array([row for row in [*order, *held] if row not in set(batch.positions.tolist())], dtype=np.int64)
    slots = np.zeros(count, dtype=np.int64)
    slots[batch.positions] = batch.slots
    nearest = nearest_slots(pool.embeddings[rest], pool.embeddings[batch.positions], batch.slots)
    slots[rest] = np.where(kept[rest] > 0, kept[rest], nearest)
    slots[held] = 0
    for row in rest:
        in_slot = scores[batch.positions[batch.slots == slots[row]]]
        last = in_slot.max() if len(in_slot) else np.float32(0)
        scores[row] = max(scores[row], min(last + np.float32(1e-6), np.float32(1)))
    return batch.positions, rest, slots, scores
