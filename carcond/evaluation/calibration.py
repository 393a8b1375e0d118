"""Calibration metrics: likelihood, Brier score, calibration error and reliability."""

import math
from typing import Any

import numpy as np

from carcond.arrays import FloatArray, IntArray

_BINS = 10
# With fewer, a bin is often all right or all wrong, and the bias of its distance cannot be estimated.
_PHOTOS_PER_BIN = 5


def calibration_figures(probabilities: FloatArray, indices: IntArray) -> dict[str, Any]:
    """All figures of this module, JSON-ready: nll, brier, ece, and the bins of the reliability diagram.

    Args:
        probabilities: ``(N, K)``, N at least 1.
        indices: true class indices ``(N,)``.
    """
    return {
        "nll": negative_log_likelihood(probabilities, indices),
        "brier": brier_score(probabilities, indices),
        "ece": calibration_error(probabilities, indices),
        "bins": reliability_bins(probabilities, indices),
    }


def negative_log_likelihood(probabilities: FloatArray, indices: IntArray) -> float:
    """Mean of -ln of the true class's probability, 0 (sure and right) or greater; one photo costs 27.6 at most."""
    right = probabilities[np.arange(len(indices)), indices]
    return -float(np.log(np.maximum(right, 1e-12)).mean())


def brier_score(probabilities: FloatArray, indices: IntArray) -> float:
    """Mean squared distance of the probabilities from the truth, summed over classes: 0 (best) .. 2."""
    truth = np.eye(probabilities.shape[1])[indices]
    return float(((probabilities - truth) ** 2).sum(axis=1).mean())


def reliability_bins(probabilities: FloatArray, indices: IntArray) -> list[dict[str, float]]:
    """Up to ten bins of equal size, five photos or more, by confidence in the most probable class, lowest first.

    Returns:
        For each bin its mean confidence, its accuracy (equal if calibrated), and its number of photos.
    """
    confidence, right = _confidence(probabilities, indices)
    return [
        {"confidence": float(confidence[b].mean()), "accuracy": float(right[b].mean()), "photos": len(b)}
        for b in _bins(confidence)
    ]


def calibration_error(probabilities: FloatArray, indices: IntArray) -> float:
    """Expected calibration error of the most probable class, debiased (arXiv 1706.04599, 1909.10155).

    The photos are put into up to ten bins of equal size by confidence, of five photos or more; the error is
    the mean distance between confidence and accuracy. With few photos a bin's accuracy differs from its
    confidence by chance alone, so the plain figure is too high; the distance that chance adds, for a bin's
    accuracy drawn from a normal distribution, is taken off.

    Args:
        probabilities: ``(N, K)``, N at least 1.
        indices: true class indices ``(N,)``.

    Returns:
        0 (calibrated) .. 1.
    """
    confidence, right = _confidence(probabilities, indices)
    distances = [
        _debiased_distance(float(confidence[b].mean()), float(right[b].mean()), len(b)) * len(b)
        for b in _bins(confidence)
    ]
    return float(np.clip(sum(distances) / len(indices), 0, 1))


def _confidence(probabilities: FloatArray, indices: IntArray) -> tuple[FloatArray, FloatArray]:
    right = probabilities.argmax(axis=1) == indices
    return probabilities.max(axis=1).astype(np.float64), right.astype(np.float64)


def _bins(confidence: FloatArray) -> list[IntArray]:
    bins = max(1, min(_BINS, len(confidence) // _PHOTOS_PER_BIN))
    return np.array_split(np.argsort(confidence, kind="stable"), bins)


def _debiased_distance(confidence: float, accuracy: float, count: int) -> float:
    plain = abs(accuracy - confidence)
    deviation = math.sqrt(accuracy * (1 - accuracy) / count)
    if deviation == 0:
        return plain
    # The mean of |x| for x drawn from a normal distribution around `plain`.
    ratio = plain / deviation
    expected = deviation * math.sqrt(2 / math.pi) * math.exp(-(ratio**2) / 2) + plain * math.erf(ratio / math.sqrt(2))
    return plain - (expected - plain)
