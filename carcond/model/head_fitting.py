"""Fitting heads on kept embeddings: one multinomial logistic regression a task, calibrated on unseen photos.

A frozen encoder with a linear head is the closest published match to labelling in a loop
(arXiv 2401.14555), and fits in well under a second.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from carcond.arrays import UNKNOWN, BoolArray, DoubleArray, FloatArray, IntArray
from carcond.data.folds import grouped_folds, stratified_folds
from carcond.errors import NotEnoughLabelsError
from carcond.model.heads import Head, Heads, holdout_folds
from carcond.model.single_thread import one_core
from carcond.taxonomy import TASKS, Task

_Fit = Callable[[FloatArray, IntArray], tuple[DoubleArray, DoubleArray]]

# Logit of a class that no label has shown yet: such a class gets a probability of about zero,
# since nothing is known of its appearance. So low that no temperature lifts it.
_UNSEEN_LOGIT = -1e4
# Strength of the L2 penalty on centred and scaled embeddings, as the inverse that scikit-learn calls C.
_INVERSE_PENALTY = 0.01
_FOLDS = 5
# Minimum number of labels of the second most frequent class to choose a temperature on.
_MIN_PER_CLASS = 3
_TEMPERATURES = (0.05, 20.0)
# Standard deviation of the log-normal prior of a temperature around 1. A dozen labels that all happen to be right
# would otherwise make a head overconfident. docs/calibration.md has its measured effect.
_EXPECTED_DEVIATION = 0.5
# Weight of a hold-out label in the choice of a temperature; one of a training label is 1. The hold-out is a random
# sample, and the training photos were chosen because they are hard. docs/calibration.md has its measured effect.
_HOLDOUT_WEIGHT = 10.0
_NOTHING: IntArray = np.empty(0, dtype=np.int64)


@dataclass(frozen=True)
class Holdout:
    """The labelled photos of the hold-out. Temperatures are chosen on them too; weights are never fitted on them.

    Attributes:
        embeddings: ``(H, D)``.
        classes: task key -> class indices ``(H,)``, `UNKNOWN` where the label is not known.
        groups: ``(H,)``, the numbers that the photos' groups have for ever.
    """

    embeddings: FloatArray
    classes: Mapping[str, IntArray]
    groups: IntArray


def fit_heads(
    encoder_id: str,
    embeddings: FloatArray,
    classes: Mapping[str, IntArray],
    seed: int = 0,
    groups: IntArray | None = None,
    *,
    fresh: BoolArray | None = None,
    holdout: Holdout | None = None,
) -> Heads:
    """Fit one head for each task that has labels of at least two classes. Deterministic.

    Args:
        encoder_id: id of the encoder of the embeddings.
        embeddings: ``(N, D)``.
        classes: task key -> class indices ``(N,)``, `UNKNOWN` where the label is not known.
        seed: of the cross-fitting folds.
        groups: ``(N,)``, see `fit_head`.
        fresh: ``(N,)``, see `fit_head`.
        holdout: see `fit_head`.

    Raises:
        NotEnoughLabelsError: no task has labels of two classes.
    """
    by_task = {}
    with one_core():
        for task in TASKS:
            indices = classes.get(task.key, _NOTHING)
            known = indices != UNKNOWN
            if len(np.unique(indices[known])) >= 2:
                members = None if groups is None else groups[known]
                unseen = None if fresh is None else fresh[known]
                by_task[task.key] = fit_head(
                    task, embeddings[known], indices[known], seed, members, fresh=unseen, holdout=holdout
                )
    if not by_task:
        counts = {key: len(np.unique(i[i != UNKNOWN])) for key, i in classes.items()}
        raise NotEnoughLabelsError(
            f"expected labels of at least two classes of one task, got classes per task {counts}"
        )
    return Heads(encoder_id, by_task)


def fit_head(
    task: Task,
    embeddings: FloatArray,
    indices: IntArray,
    seed: int = 0,
    groups: IntArray | None = None,
    *,
    fresh: BoolArray | None = None,
    holdout: Holdout | None = None,
) -> Head:
    """Fit the head of one task, and calibrate it on cross-fitted logits and on the hold-out.

    Args:
        task: the predicted task, with any classes, not only those of `TASKS`.
        embeddings: ``(N, D)``.
        indices: class indices ``(N,)`` of at least two classes, all known.
        seed: of the cross-fitting folds.
        groups: ``(N,)``; photos of one group share a fold, since a head that was fitted on a photo's
            near-duplicate is overconfident on it. None when no two photos belong together.
        fresh: ``(N,)``, True for photos that the encoder was not trained on: the temperature is chosen on these,
            since any head is overconfident on the others. None when all are.
        holdout: photos that the temperature is chosen on too; None for no such photo.
    """
    span = _Span.of(embeddings)
    fit = partial(_fit_logistic, class_count=len(task.classes), scale=_scale(embeddings))
    weight, bias = span.restore(*fit(span.coordinates, indices))
    head = Head(task, weight, bias, temperature=1.0, cross_fitted=False)
    fold = _folds(indices, groups, seed)
    if fold is None:
        return _calibrate(head, np.empty((0, len(bias)), dtype=np.float32), _NOTHING, holdout)
    logits = _cross_fitted_logits(fit, span.coordinates, indices, fold)
    chosen = np.ones(len(indices), dtype=np.bool_) if fresh is None else fresh
    return _calibrate(head, logits[chosen], indices[chosen], holdout)


def _calibrate(head: Head, logits: FloatArray, indices: IntArray, holdout: Holdout | None) -> Head:
    """Choose the temperatures of a head on cross-fitted logits ``(N, K)`` of classes ``(N,)`` and on the hold-out."""
    if holdout is None:
        return _with_temperature(head, _choose_temperature(logits, indices, np.ones(len(indices))), (len(indices), 0))
    stated = holdout.classes.get(head.task.key, _NOTHING)
    known = np.flatnonzero(stated != UNKNOWN)
    logits = np.concatenate([logits, head.logits(holdout.embeddings[known])])
    photos = (len(indices), len(known))
    weights = np.repeat([1.0, _HOLDOUT_WEIGHT], photos)
    indices = np.concatenate([indices, stated[known]])
    fitted = _with_temperature(head, _choose_temperature(logits, indices, weights), photos)
    if not len(known):
        return fitted
    fold = np.full(len(indices), UNKNOWN)
    fold[-len(known) :] = holdout_folds(holdout.groups[known], _FOLDS)
    without = [_choose_temperature(*(each[fold != k] for each in (logits, indices, weights))) for k in range(_FOLDS)]
    return replace(fitted, fold_temperatures=np.array([each or 1.0 for each in without], dtype=np.float32))


def _with_temperature(head: Head, temperature: float | None, photos: tuple[int, int]) -> Head:
    if temperature is None:
        return replace(head, temperature_photos=(0, 0))
    return replace(head, temperature=temperature, cross_fitted=True, temperature_photos=photos)


def _choose_temperature(logits: FloatArray, indices: IntArray, weights: DoubleArray) -> float | None:
    """The temperature for logits ``(N, K)``, None with too few labels; the weights ``(N,)`` are scaled to sum to N."""
    if np.sort(np.bincount(indices, minlength=2))[-2] < _MIN_PER_CLASS:
        return None
    return fit_temperature(logits, indices, weights * (len(weights) / weights.sum()))


def fit_linear(embeddings: FloatArray, indices: IntArray, class_count: int) -> tuple[FloatArray, FloatArray]:
    """Weight ``(K, D)`` and bias ``(K,)`` of a linear head, fitted on at least two classes and not calibrated."""
    weight, bias = _fit_logistic(embeddings, indices, class_count, _scale(embeddings))
    return weight.astype(np.float32), bias.astype(np.float32)


@dataclass(frozen=True)
class _Span:
    """Orthonormal basis of the subspace that the centred embeddings span.

    Fewer photos than dimensions span fewer directions than there are dimensions. An L2 penalty is invariant to
    rotations, so a fit on coordinates equals the fit on embeddings, with shorter vectors.

    Attributes:
        mean: ``(D,)``.
        basis: ``(D, R)``, None for the dimensions as they are.
        coordinates: ``(N, R)`` of the photos.
    """

    mean: FloatArray
    basis: FloatArray | None
    coordinates: FloatArray

    @classmethod
    def of(cls, embeddings: FloatArray) -> "_Span":
        mean = embeddings.mean(axis=0)
        if len(embeddings) > embeddings.shape[1] / 2:
            return cls(mean, None, embeddings - mean)
        basis, triangle = np.linalg.qr((embeddings - mean).T)
        return cls(mean, basis, np.ascontiguousarray(triangle.T))

    def restore(self, weight: DoubleArray, bias: DoubleArray) -> tuple[FloatArray, FloatArray]:
        """Weight ``(K, D)`` and bias ``(K,)`` on embeddings, from those on coordinates."""
        restored = weight if self.basis is None else weight @ self.basis.T
        return restored.astype(np.float32), (bias - restored @ self.mean).astype(np.float32)


def _scale(embeddings: FloatArray) -> float:
    # One scale for all dimensions: dividing each by its own deviation did worse with few labels.
    return max(float(np.sqrt(embeddings.var(axis=0).mean())), 1e-6)


def _fit_logistic(
    features: FloatArray, indices: IntArray, class_count: int, scale: float
) -> tuple[DoubleArray, DoubleArray]:
    # Imported here: the web process applies heads and never fits them.
    from sklearn.linear_model import LogisticRegression  # noqa: PLC0415

    mean = features.mean(axis=0)
    model = LogisticRegression(C=_INVERSE_PENALTY, class_weight="balanced", max_iter=500, tol=1e-3)
    model.fit((features - mean) / np.float32(scale), indices)
    coefficients = model.coef_.astype(np.float64)
    intercepts = model.intercept_.astype(np.float64)
    if len(model.classes_) == 2:  # scikit-learn gives one row for two classes: the second against the first
        coefficients = np.concatenate([-coefficients / 2, coefficients / 2])
        intercepts = np.concatenate([-intercepts / 2, intercepts / 2])
    # Fold the centring and scaling into the weights, so that the head is linear on the raw embedding
    # and class activation maps are a product of its weights with the feature map.
    weight = np.zeros((class_count, features.shape[1]))
    bias = np.full(class_count, _UNSEEN_LOGIT)
    weight[model.classes_] = coefficients / scale
    bias[model.classes_] = intercepts - (coefficients / scale) @ mean
    return weight, bias


def _cross_fitted_logits(fit: _Fit, features: FloatArray, indices: IntArray, fold: IntArray) -> FloatArray:
    """Logits ``(N, K)`` of each photo from a head fitted without its fold ``(N,)``."""
    held_out = []
    for k in range(fold.max() + 1):
        weight, bias = fit(features[fold != k], indices[fold != k])
        held_out.append(features[fold == k] @ weight.T + bias)
    logits = np.empty((len(indices), held_out[0].shape[1]), dtype=np.float32)
    logits[np.argsort(fold, kind="stable")] = np.concatenate(held_out)
    return logits


def _folds(indices: IntArray, groups: IntArray | None, seed: int) -> IntArray | None:
    """Fold numbers ``(N,)``; None with too few labels, or too few groups, of two classes."""
    second_most = int(np.sort(np.bincount(indices))[-2])
    if second_most < _MIN_PER_CLASS:
        return None
    count = min(_FOLDS, second_most)
    if groups is None or len(np.unique(groups)) == len(groups):
        return stratified_folds(indices, count, seed)
    fold = grouped_folds(indices, groups, count, seed)
    # All photos of a class may be of one group: without its fold, nothing is left to be fitted.
    fittable = [len(np.unique(indices[fold != k])) >= 2 for k in range(fold.max() + 1)]
    return fold if all(fittable) else None


def fit_temperature(logits: FloatArray, indices: IntArray, weights: DoubleArray | None = None) -> float:
    """The most probable temperature (arXiv 1706.04599), given a log-normal prior around 1.

    With many photos it is the one that minimises the negative log-likelihood; with few it stays near 1.

    Args:
        logits: ``(N, K)`` of photos that the head was not fitted on.
        indices: true class indices ``(N,)``.
        weights: of the photos ``(N,)``; None for 1 each. Their sum is what the prior's weight is compared with.

    Returns:
        A value between 0.05 and 20; above 1 the head was overconfident.
    """
    # Imported here: only fitting needs them.
    from scipy.optimize import minimize_scalar  # noqa: PLC0415
    from scipy.special import log_softmax  # noqa: PLC0415

    # A class that a fold never saw has a constant logit: no temperature can correct it.
    usable = logits[np.arange(len(indices)), indices] != _UNSEEN_LOGIT
    logits, indices = logits[usable].astype(np.float64), indices[usable]
    weights = np.ones(len(indices)) if weights is None else weights[usable]

    def loss(log_temperature: float) -> float:
        likelihood = log_softmax(logits / np.exp(log_temperature), axis=1)
        prior = (log_temperature / _EXPECTED_DEVIATION) ** 2 / 2
        return prior - float(weights @ likelihood[np.arange(len(indices)), indices])

    low, high = np.log(_TEMPERATURES)
    return float(np.exp(minimize_scalar(loss, bounds=(low, high), method="bounded").x))
