"""The unlabelled pool of a project: from heads and embeddings to predictions in queue order."""

from collections.abc import Mapping, Sequence
from typing import Any

from backend.label_studio.client import PredictionDraft
from backend.label_studio.label_config import LabelBinding
from backend.loop.explanation_line import Classes, confidence_line, reason_line
from carcond.arrays import FloatArray, IntArray
from carcond.model.heads import Heads
from carcond.model.single_thread import one_core
from carcond.query.live_queue import Pool, QueueSettings, Reason, rank_pool
from carcond.settings import Settings
from carcond.taxonomy import TASK_BY_KEY

BLANK_SHARE = 0.05
"""Share of the photos outside the hold-out that open without chosen answers, so that a blank one gives nothing away."""


class RankedDrafts:
    """Predictions for the unlabelled photos, made when they are asked for: few of them are written.

    Attributes:
        queue: what should be labelled next, one photo of each slot first.
        rest: rows of the other photos, most informative first; they stand behind the queue in its slots.
    """

    def __init__(
        self,
        task_ids: IntArray,
        pool: Pool,
        probabilities: Mapping[str, FloatArray],
        version: str,
        *,
        binding: LabelBinding,
        settings: Settings,
    ) -> None:
        self._task_ids = task_ids
        self._pool = pool
        self._probabilities = probabilities
        self._version = version
        self._binding = binding
        self._min_confidence = settings.prelabel_min_confidence
        self._ranked = rank_pool(pool, probabilities, queue_settings(settings))
        positions = self._ranked.positions
        self.rest = self._ranked.rest
        placed = self._ranked.queue_slots, self._ranked.queue_scores
        self.queue: Sequence[PredictionDraft] = self._drafts(positions, *placed, self._ranked.reasons)

    def of_rest(self, rows: IntArray) -> list[PredictionDraft]:
        """Predictions of some rows of `rest`."""
        return self._drafts(rows, *self._ranked.place_rest(rows), [None] * len(rows))

    def place_rest(self, rows: IntArray) -> tuple[IntArray, FloatArray]:
        """Slots and scores of some rows of `rest`, see `carcond.query.live_queue.LiveQueue.place_rest`."""
        return self._ranked.place_rest(rows)

    def _drafts(
        self, rows: IntArray, slots: IntArray, scores: FloatArray, reasons: Sequence[Reason | None]
    ) -> list[PredictionDraft]:
        classes = chosen_classes({task: p[rows] for task, p in self._probabilities.items()}) or [{}] * len(rows)
        return [
            self._draft(row, most_probable, round(score, 6), slot, reason)
            for row, most_probable, score, slot, reason in zip(
                rows.tolist(), classes, scores.tolist(), slots.tolist(), reasons, strict=True
            )
        ]

    def _draft(self, row: int, classes: Classes, score: float, slot: int, reason: Reason | None) -> PredictionDraft:
        blank = is_blank(bool(self._pool.holdout[row]), float(self._pool.draws[row]))
        suggested = suggested_classes(classes, blank, self._min_confidence)
        result = prediction_result(classes, suggested, self._binding, self._version, reason)
        # Not even hidden in photos of the hold-out: nothing is learnt there of how people take answers.
        left_out = {} if self._pool.holdout[row] else classes
        hidden = {task: answer for task, answer in left_out.items() if task not in suggested}
        return PredictionDraft(int(self._task_ids[row]), result, score, self._version, slot, hidden)


def queue_settings(settings: Settings) -> QueueSettings:
    """Sizes of the live queue as they are set."""
    return QueueSettings(
        size=settings.queue_size,
        slots=settings.slots,
        candidate_factor=settings.candidate_factor,
        cold_start_labels=settings.cold_start_labels,
        diversity_until_labels=settings.diversity_until_labels,
    )


def rank_drafts(
    task_ids: IntArray, pool: Pool, heads: Heads | None, version: str, *, binding: LabelBinding, settings: Settings
) -> RankedDrafts:
    """Order the unlabelled photos and say what is predicted for each; see `carcond.query.live_queue`.

    Args:
        task_ids: of the photos ``(N,)``.
        pool: the photos.
        heads: the serving version's heads, None before the first version: then nothing is predicted.
        version: the version string to publish under.
        binding: the words of the project's label config.
        settings: sizes of the queue and its slots.
    """
    with one_core():  # the products of blocks are small: threads would wait for each other
        probabilities = heads.probabilities(pool.embeddings) if heads and len(task_ids) else {}
        return RankedDrafts(task_ids, pool, probabilities, version, binding=binding, settings=settings)


def is_blank(held_out: bool, draw: float) -> bool:
    """True if a photo opens without chosen answers, so that its label is the annotator's own.

    Args:
        held_out: whether it belongs to the hold-out. A label that only confirms the model cannot measure it.
        draw: the photo's random number, see `carcond.data.split.photo_draw`.
    """
    return held_out or draw < BLANK_SHARE


def suggested_classes(classes: Classes, blank: bool, min_confidence: float) -> Classes:
    """Of the most probable classes those that annotators find chosen.

    Args:
        classes: most probable class of each task.
        blank: see `is_blank`.
        min_confidence: an answer that is less sure is left to the annotator.
    """
    return {} if blank else {task: answer for task, answer in classes.items() if answer[1] >= min_confidence}


def prediction_result(
    classes: Classes, suggested: Classes, binding: LabelBinding, version: str, reason: Reason | None
) -> list[dict[str, Any]]:
    """Regions of a prediction: the suggested answers, and lines with confidences and reason where there is room.

    Args:
        classes: most probable class of each task; empty before there is a model.
        suggested: those of them that are chosen, see `suggested_classes`.
        binding: of the label config.
        version: that answers.
        reason: why the photo is in the queue; None for one that is not.
    """
    regions = binding.result(suggested)
    confidences = confidence_line(binding, version, classes, suggested) if binding.confidence_to else ""
    if confidences:
        regions += binding.confidence_regions(confidences)
    if binding.reason_to:
        regions.append(binding.reason_region(reason_line(binding, version, classes, suggested, reason)))
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
