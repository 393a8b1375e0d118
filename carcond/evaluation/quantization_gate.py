"""The gate of a quantized encoder: its answers on a project's photos must be those of the encoder it was made from.

The heads of one version, fitted on the other encoder's embeddings, answer from the embeddings of both, so that nothing
but the type of the numbers differs. Whether heads fitted on its own embeddings are as good is then decided, as for
any other encoder, by `carcond.evaluation.gate`.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from carcond.arrays import UNKNOWN, FloatArray, IntArray
from carcond.evaluation.calibration import calibration_error
from carcond.model.encoder import BATCH_SIZE, Encoder
from carcond.model.encoder_card import EncoderComparison, TaskAgreement
from carcond.model.heads import Head, Heads

MIN_AGREEMENT = 0.99
"""Minimum share of photos with the same class of a task."""

MAX_ERROR_RISE = 0.005
"""Maximum rise of a task's calibration error."""

MIN_PHOTOS = 100
"""Minimum number of photos to compare: with fewer, a single other class is less agreement than required."""


@dataclass(frozen=True)
class ComparedPhotos:
    """Photos that neither the heads were fitted on nor the quantization was calibrated on.

    Attributes:
        pixels: ``(N, 3, S, S)``, N at least 1.
        classes: task key -> class indices ``(N,)``, `UNKNOWN` where a photo has no hold-out label.
        groups: numbers of the photos' groups ``(N,)``.
    """

    pixels: FloatArray
    classes: Mapping[str, IntArray]
    groups: IntArray


def compare_encoders(base: Encoder, quantized: Encoder, heads: Heads, photos: ComparedPhotos) -> EncoderComparison:
    """Compare two encoders of one network, alternately batch by batch.

    Args:
        base: the encoder of the heads.
        quantized: made from it.
        heads: of a version; each task needs a hold-out label among the photos.
        photos: to answer.
    """
    encoders = (base, quantized)
    rows: tuple[list[FloatArray], ...] = ([], [])
    milliseconds: tuple[list[float], ...] = ([], [])
    for start in range(0, len(photos.pixels), BATCH_SIZE):
        batch = np.ascontiguousarray(photos.pixels[start : start + BATCH_SIZE])
        for encoder, embedded, times in zip(encoders, rows, milliseconds, strict=True):
            began = time.perf_counter()
            embedded.append(encoder.embed(batch))
            times.append(1000 * (time.perf_counter() - began) / len(batch))
    before, after = (np.concatenate(embedded) for embedded in rows)
    tasks = {key: _compare_task(head, before, after, photos) for key, head in heads.by_task.items()}
    base_ms, quantized_ms = (round(float(np.median(times)), 2) for times in milliseconds)
    return EncoderComparison(tasks=tasks, base_ms=base_ms, ms=quantized_ms)


def _compare_task(head: Head, before: FloatArray, after: FloatArray, photos: ComparedPhotos) -> TaskAgreement:
    agreement = (head.logits(before).argmax(axis=1) == head.logits(after).argmax(axis=1)).mean()
    indices = photos.classes[head.task.key]
    known = np.flatnonzero(indices != UNKNOWN)
    base_error, error = (
        calibration_error(head.holdout_probabilities(rows[known], photos.groups[known]), indices[known])
        for rows in (before, after)
    )
    return TaskAgreement(
        photos=len(before), agreement=float(agreement), labels=len(known), base_error=base_error, error=error
    )


def objections(comparison: EncoderComparison) -> Sequence[str]:
    """Reasons, with numbers, why a quantized encoder may not be used; none if it may."""
    found = []
    for key, task in comparison.tasks.items():
        if task.agreement < MIN_AGREEMENT:
            found.append(
                f"{key}: {task.agreement:.1%} of {task.photos} photos keep their class, expected {MIN_AGREEMENT:.0%}"
            )
        if round(task.error - task.base_error, 4) > MAX_ERROR_RISE:
            found.append(
                f"{key}: calibration error {task.error:.4f} after {task.base_error:.4f} on {task.labels} hold-out "
                f"labels, expected a rise of {MAX_ERROR_RISE} at most"
            )
    if comparison.ms >= comparison.base_ms:
        found.append(f"not faster: {comparison.ms:.1f} ms a photo, fp32 {comparison.base_ms:.1f} ms")
    return found
