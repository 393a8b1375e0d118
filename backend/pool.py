"""The unlabelled pool of a project: from heads and embeddings to predictions in queue order."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from backend.label_config import LabelBinding
from backend.labelstudio import PredictionDraft
from backend.reason_line import Reason, reason_line
from carcond.acquisition import combine_tasks, margin
from carcond.heads import FloatArray, Heads, IntArray, joint_confidence
from carcond.selection import EXPLORATION_SLOT, choose_queue, nearest_slots, typical_order
from carcond.settings import Settings
from carcond.taxonomy import TASK_BY_KEY

# The smallest difference between scores that orders photos.
_SCORE_STEP = np.float32(1e-6)


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
        rest: the other photos, most informative first; they stand behind the queue in its slots.
    """

    queue: Sequence[PredictionDraft]
    round_length: int
    rest: Sequence[PredictionDraft]


def rank_pool(pool: Pool, heads: Heads | None, version: str, binding: LabelBinding, settings: Settings) -> RankedPool:
    """Order the unlabelled photos and say what is predicted for each.

    Photos are chosen by margin, combined over the tasks, and published with their joint confidence as score. Until
    `settings.typical_photos` photos are labelled, typical ones are asked for: the uncertainty of a model that has
    seen almost nothing is worse than chance (arXiv 2210.02442). Until `settings.grouped_photos` are, the queue is
    spread over groups of photos that look alike; then the smallest margins alone decide.

    Args:
        pool: the photos.
        heads: the serving version's heads, None before the first version: then nothing is predicted.
        version: the version string to publish under.
        binding: the words of the project's label config.
        settings: sizes of the queue and its slots.
    """
    probabilities = heads.probabilities(pool.embeddings) if heads and len(pool.task_ids) else {}
    labelled = int((~pool.unlabelled).sum())
    is_typical = not probabilities or labelled < settings.typical_photos
    if is_typical:
        preference = typical_order(pool.embeddings, settings.typical_photos)
        considered = settings.queue_size
    else:
        unlabelled = np.flatnonzero(pool.unlabelled)
        scores = combine_tasks({task: margin(rows[np.newaxis, unlabelled]) for task, rows in probabilities.items()})
        preference = unlabelled[np.argsort(-scores, kind="stable")]
        considered = settings.queue_size * settings.candidate_factor
    candidates = preference[(pool.unlabelled & ~pool.reserved)[preference]][:considered]
    exploration = np.flatnonzero(pool.unlabelled & pool.drawn)
    queue = choose_queue(
        pool.embeddings,
        candidates,
        exploration,
        size=settings.queue_size,
        slots=settings.slots,
        grouped=is_typical or labelled < settings.grouped_photos,
    )
    waiting = pool.unlabelled.copy()
    waiting[queue.positions] = False
    behind = preference[waiting[preference]]
    slots = np.zeros(len(pool.task_ids), dtype=np.int64)
    slots[queue.positions] = queue.slots
    slots[behind] = nearest_slots(pool.embeddings[behind], pool.embeddings[queue.positions], queue.slots)
    confidence = _confidence(probabilities, preference)
    # Label Studio serves the lowest score of a slot first. So a photo behind the queue, which the margin did not
    # choose, is published with no lower score than the queue's last in its slot, even if its confidence is lower.
    last = np.zeros(settings.slots + 1, dtype=np.float32)
    np.maximum.at(last, queue.slots, confidence[queue.positions])
    confidence[behind] = np.maximum(confidence[behind], np.minimum(last + _SCORE_STEP, 1)[slots[behind]])
    classes = chosen_classes(probabilities) if probabilities else [{}] * len(pool.task_ids)
    doubtful = _most_uncertain_tasks(probabilities, pool)

    def draft(position: int, is_chosen: bool) -> PredictionDraft:
        score, slot = round(float(confidence[position]), 6), int(slots[position])
        reason = None
        if is_chosen and slot == EXPLORATION_SLOT:
            reason = Reason("holdout")
        elif is_chosen:
            reason = Reason("typical") if is_typical else Reason("uncertain", doubtful[position])
        result = prediction_result(classes[position], binding, version, reason)
        return PredictionDraft(int(pool.task_ids[position]), result, score, version, slot)

    return RankedPool(
        [draft(i, True) for i in queue.positions], len(np.unique(queue.slots)), [draft(i, False) for i in behind]
    )


def _confidence(probabilities: Mapping[str, FloatArray], preference: IntArray) -> FloatArray:
    """Joint confidence ``(N,)``; without a model tiny numbers in the order of preference."""
    if probabilities:
        return joint_confidence(probabilities)
    ranks = np.zeros(len(preference), dtype=np.float32)
    ranks[preference] = np.arange(len(preference), dtype=np.float32) * _SCORE_STEP
    return ranks


def _most_uncertain_tasks(probabilities: Mapping[str, FloatArray], pool: Pool) -> list[str]:
    """Of each photo the task that weighs most in `combine_tasks`; of none without a model."""
    if not probabilities or not pool.unlabelled.any():
        return [""] * len(pool.task_ids)
    scores = [margin(rows[np.newaxis]) for rows in probabilities.values()]
    shares = np.stack([values / max(float(values[pool.unlabelled].mean()), 1e-12) for values in scores])
    keys = list(probabilities)
    return [keys[k] for k in shares.argmax(axis=0)]


def prediction_result(
    classes: Mapping[str, tuple[str, float]], binding: LabelBinding, version: str, reason: Reason | None
) -> list[dict[str, Any]]:
    """Regions of a prediction: an answer to each task, and the line with the reason where the config has room.

    Args:
        classes: task key -> (class key, its probability); empty before there is a model.
        binding: of the label config.
        version: that answers.
        reason: why the photo is in the queue; None for one that is not.
    """
    regions = binding.result(classes)
    if binding.reason_to:
        regions.append(binding.reason_region(reason_line(binding, version, classes, reason)))
    return regions


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
