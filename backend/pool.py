"""The unlabelled pool of a project: from heads and embeddings to predictions in queue order."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from backend.label_config import LabelBinding
from backend.labelstudio import PredictionDraft
from carcond.heads import FloatArray, Heads, IntArray, joint_confidence
from carcond.selection import choose_queue, nearest_slots, typical_order
from carcond.settings import Settings
from carcond.taxonomy import TASK_BY_KEY

# Without a model there is no confidence to show; this much a rank orders the cold-start queue.
_RANK_STEP = 1e-6


@dataclass(frozen=True)
class Pool:
    """All photos of a project that have an embedding.

    Attributes:
        task_ids: ``(N,)``.
        embeddings: ``(N, D)``.
        unlabelled: ``(N,)``, True for photos that still want a label.
        reserved: ``(N,)``, True for photos on the hold-out side: never candidates.
        drawn: ``(N,)``, True for photos drawn into the hold-out: they go into the exploration slot.
    """

    task_ids: IntArray
    embeddings: FloatArray
    unlabelled: npt.NDArray[np.bool_]
    reserved: npt.NDArray[np.bool_]
    drawn: npt.NDArray[np.bool_]


@dataclass(frozen=True)
class RankedPool:
    """Predictions for the unlabelled photos.

    Attributes:
        queue: what should be labelled next, one photo of each slot first.
        round_length: how many of `queue` make one round over the slots.
        rest: the other photos, most uncertain first; they stand behind the queue in its slots.
    """

    queue: Sequence[PredictionDraft]
    round_length: int
    rest: Sequence[PredictionDraft]


def rank_pool(pool: Pool, heads: Heads | None, version: str, binding: LabelBinding, settings: Settings) -> RankedPool:
    """Order the unlabelled photos and say what is predicted for each.

    Until `settings.typical_photos` photos are labelled, typical ones are asked for: the uncertainty
    of a model that has seen almost nothing is worse than chance (arXiv 2210.02442).

    Args:
        pool: the photos.
        heads: the serving version's heads, None before the first version: then nothing is predicted.
        version: the version string to publish under.
        binding: the words of the project's label config.
        settings: sizes of the queue and its slots.
    """
    confidence, results = _predict(pool, heads, binding)
    if heads is None or (~pool.unlabelled).sum() < settings.typical_photos:
        preference = typical_order(pool.embeddings, settings.typical_photos)
        considered = settings.queue_size
    else:
        preference = np.argsort(confidence, kind="stable")
        considered = settings.queue_size * settings.candidate_factor
    if heads is None:
        confidence[preference] = np.arange(len(preference), dtype=np.float32) * _RANK_STEP
    candidates = preference[(pool.unlabelled & ~pool.reserved)[preference]][:considered]
    exploration = np.flatnonzero(pool.unlabelled & pool.drawn)
    queue = choose_queue(pool.embeddings, candidates, exploration, size=settings.queue_size, slots=settings.slots)
    behind = np.setdiff1d(np.flatnonzero(pool.unlabelled), queue.positions)
    behind = behind[np.argsort(confidence[behind], kind="stable")]
    slots = np.zeros(len(pool.task_ids), dtype=np.int64)
    slots[queue.positions] = queue.slots
    slots[behind] = nearest_slots(pool.embeddings[behind], pool.embeddings[queue.positions], queue.slots)

    def draft(position: int) -> PredictionDraft:
        score = round(float(confidence[position]), 6)
        return PredictionDraft(int(pool.task_ids[position]), results[position], score, version, int(slots[position]))

    return RankedPool([draft(i) for i in queue.positions], len(np.unique(queue.slots)), [draft(i) for i in behind])


def _predict(pool: Pool, heads: Heads | None, binding: LabelBinding) -> tuple[FloatArray, list[list[dict[str, Any]]]]:
    """Joint confidence ``(N,)`` and regions of each photo; zero and none without a model."""
    count = len(pool.task_ids)
    if heads is None or count == 0:
        return np.zeros(count, dtype=np.float32), [[] for _ in range(count)]
    probabilities = heads.probabilities(pool.embeddings)
    results = [binding.result(classes) for classes in chosen_classes(probabilities)]
    return joint_confidence(probabilities), results


def chosen_classes(probabilities: Mapping[str, FloatArray]) -> list[dict[str, tuple[str, float]]]:
    """For each photo: task key -> (most probable class key, its probability).

    Args:
        probabilities: task key -> ``(N, K)``.
    """
    columns = []
    for task, rows in probabilities.items():
        keys = TASK_BY_KEY[task].class_keys
        best = rows.argmax(axis=1)
        columns.append([(task, keys[k], round(float(row[k]), 4)) for k, row in zip(best, rows, strict=True)])
    return [{task: (key, probability) for task, key, probability in photo} for photo in zip(*columns, strict=True)]
