"""How honest probabilities are: expected calibration error."""

import numpy as np

from carcond.heads import FloatArray, IntArray

_BINS = 10


def calibration_error(probabilities: FloatArray, indices: IntArray) -> float:
    """Expected calibration error of the most probable class, debiased (arXiv 1706.04599, 1909.10155).

    The photos are put into ten bins of equal size by confidence; the error is the mean distance between
    confidence and accuracy. With few photos a bin's accuracy differs from its confidence by chance alone,
    so the plain figure is too high; the distance that chance adds, for a bin's accuracy drawn from a normal
    distribution, is taken off.

    Args:
        probabilities: ``(N, K)``, N at least 1.
        indices: true class indices ``(N,)``.

    Returns:
        0 (honest) .. 1.
    """
    confidence = probabilities.max(axis=1).astype(np.float64)
    right = probabilities.argmax(axis=1) == indices
    bins = np.array_split(np.argsort(confidence, kind="stable"), min(_BINS, len(indices)))
    distances = [_debiased_distance(confidence[b].mean(), right[b].mean(), len(b)) * len(b) for b in bins]
    return float(np.clip(sum(distances) / len(indices), 0, 1))


def _debiased_distance(confidence: float, accuracy: float, count: int) -> float:
    from scipy.stats import foldnorm  # noqa: PLC0415 - the web process measures nothing

    plain = abs(accuracy - confidence)
    deviation = float(np.sqrt(accuracy * (1 - accuracy) / count))
    if deviation == 0:
        return plain
    expected = float(foldnorm.mean(plain / deviation, scale=deviation))
    return plain - (expected - plain)
