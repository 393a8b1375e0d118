"""Acquisition scores: the expected informativeness of a photo's label.

All scores share one interface, `Score`: from the class probabilities of an ensemble of heads,
``(M, N, K)``, to one number a photo, ``(N,)``, higher = more informative. A single head is an ensemble
of one. Probabilities should be calibrated: they are compared between photos and between tasks.

No score of a single model clearly beats margin or entropy (arXiv 2403.14800, 2210.03822).
"""

from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt

from carcond.arrays import FloatArray, IntArray, softmax
from carcond.model.head_fitting import fit_linear
from carcond.model.heads import Head

Score = Callable[[FloatArray], FloatArray]

ENSEMBLE_SIZE = 10
"""Number of heads in an ensemble: bald hardly changes with more."""


def least_confidence(probabilities: FloatArray) -> FloatArray:
    """One minus the probability of the most probable class, 0..1-1/K (survey: arXiv 2009.00236).

    Args:
        probabilities: ``(M, N, K)``; their mean over the ensemble is what counts.
    """
    return np.asarray(1 - probabilities.mean(axis=0).max(axis=1), dtype=np.float32)


def margin(probabilities: FloatArray) -> FloatArray:
    """One minus the lead of the most probable class over the next, 0..1 (best of many in arXiv 2210.03822).

    Args:
        probabilities: ``(M, N, K)``; their mean over the ensemble is what counts.
    """
    ordered = np.sort(probabilities.mean(axis=0), axis=1)
    return np.asarray(1 - (ordered[:, -1] - ordered[:, -2]), dtype=np.float32)


def entropy(probabilities: FloatArray) -> FloatArray:
    """Shannon entropy of the class probabilities in nats, 0..log K (survey: arXiv 2009.00236).

    Args:
        probabilities: ``(M, N, K)``; their mean over the ensemble is what counts.
    """
    return _entropy(probabilities.mean(axis=0))


def bald(probabilities: FloatArray) -> FloatArray:
    """Mutual information of label and head in nats, 0..log K: BALD (arXiv 1112.5745, 1703.02910).

    High where the heads are each confident and contradict each other, zero where all agree, however
    uncertain they are: it ignores aleatoric uncertainty.

    Args:
        probabilities: ``(M, N, K)``; with M = 1 the score is zero everywhere.
    """
    information = _entropy(probabilities.mean(axis=0)) - _entropy(probabilities).mean(axis=0)
    return np.asarray(np.maximum(information, 0), dtype=np.float32)


def _entropy(probabilities: FloatArray) -> FloatArray:
    logarithms = np.log(np.maximum(probabilities, 1e-12))
    return np.asarray(-(probabilities * logarithms).sum(axis=-1), dtype=np.float32)


SCORES: Mapping[str, Score] = {
    "confidence": least_confidence,
    "margin": margin,
    "entropy": entropy,
    "bald": bald,
}
"""Name -> score. `bald` needs an ensemble, see `bootstrap_probabilities`."""


def combine_tasks(scores: Mapping[str, FloatArray]) -> FloatArray:
    """One score per photo from the scores of several tasks.

    The scores of each task are divided by their mean over the photos, then averaged over the tasks. So
    all tasks weigh the same in total: a hard task, with all photos uncertain, does not dominate an
    easy one, with a few. A task whose scores are all zero does not count. For one task the order, and
    the ratios that power sampling uses, are unchanged.

    Args:
        scores: task key -> ``(N,)``, none negative, all over the same photos.

    Returns:
        ``(N,)``; its mean is 1 when every task has a positive score.
    """
    if not scores:
        raise ValueError("expected the scores of at least one task, got none")
    shares = [values / max(float(values.mean()), 1e-12) if len(values) else values for values in scores.values()]
    return np.asarray(np.mean(shares, axis=0), dtype=np.float32)


def bootstrap_probabilities(
    head: Head,
    labelled: FloatArray,
    indices: IntArray,
    embeddings: FloatArray,
    generator: np.random.Generator,
    *,
    size: int = ENSEMBLE_SIZE,
) -> FloatArray:
    """Class probabilities ``(M, N, K)`` of heads fitted on bootstrap samples of the labels (arXiv 1602.04621).

    The bootstrap is stratified by class, so that no class is missing. All heads share the
    temperature of the one fitted on all labels.

    Args:
        head: fitted on all labels of the task.
        labelled: embeddings ``(L, D)`` that `head` was fitted on.
        indices: their class indices ``(L,)``.
        embeddings: ``(N, D)`` of the photos to predict.
        generator: random generator.
        size: M.
    """
    members = []
    for _ in range(size):
        drawn = _resample(indices, generator)
        weight, bias = fit_linear(labelled[drawn], indices[drawn], len(head.task.classes))
        members.append(softmax((embeddings @ weight.T + bias) / np.float32(head.temperature)))
    return np.stack(members)


def _resample(indices: IntArray, generator: np.random.Generator) -> npt.NDArray[np.int64]:
    by_class = [np.flatnonzero(indices == index) for index in np.unique(indices)]
    return np.concatenate([generator.choice(members, len(members)) for members in by_class])
