"""Learning curves: the error by number of labels, and the power laws that fit it.

A curve is an inverse power law of the number of labels, a - b n^-c (Figueroa et al. 2012,
doi:10.1186/1472-6947-12-8). Not all curves are (arXiv 2103.10948), and the best-fitting law extrapolates with
overconfidence (arXiv 2207.01725), so all laws are averaged, weighted by their likelihood.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
import numpy.typing as npt

from carcond.arrays import UNKNOWN, FloatArray, IntArray
from carcond.data.dataset import LabelledSet
from carcond.data.folds import grouped_folds
from carcond.evaluation.f1 import f1_from_counts
from carcond.model.head_fitting import fit_linear
from carcond.model.single_thread import one_core
from carcond.taxonomy import TASK_BY_KEY, Task

DoubleArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

METRICS = ("accuracy", "macro_f1")
"""Metrics; the error is 1 minus the metric."""

FOLDS = 5
_DRAWS = 400
# Prior grids of the power laws: reducible share of the error, and exponents in the range seen in practice.
_REDUCIBLE = np.linspace(0, 1, 21)
_EXPONENTS = np.array([0.2, 0.35, 0.5, 0.7, 0.9, 1.2, 1.5])
# Standard deviation of a head's error by label sampling, as a share of the error.
_DEVIATIONS = np.array([0.05, 0.1, 0.2])


@dataclass(frozen=True)
class LabelHistory:
    """The labels of one task, in the order in which they were made.

    Attributes:
        task: of the labels.
        embeddings: ``(N, D)``.
        indices: class indices ``(N,)``, all known.
        groups: ``(N,)``; photos of one group are never both fitted and measured on.
        holdout: ``(N,)``, True for photos that are never trained on.
        drawn: ``(N,)``, True for those of them that were randomly sampled from the pool.
        imported: ``(N,)``, True for labels that no model selected.
    """

    task: Task
    embeddings: FloatArray
    indices: IntArray
    groups: IntArray
    holdout: BoolArray
    drawn: BoolArray
    imported: BoolArray


@dataclass(frozen=True)
class Origin:
    """Origin of a photo's label.

    Attributes:
        rank: order of labelling; labels with a lower rank were made before.
        drawn: True if it was randomly sampled from the pool, for the hold-out.
        imported: True if it was imported with its label.
    """

    rank: int
    drawn: bool
    imported: bool


def label_histories(labelled: LabelledSet, origins: Mapping[int, Origin]) -> dict[str, LabelHistory]:
    """Task key -> history, for tasks with labels. Imported labels have no order of their own and are shuffled.

    Args:
        labelled: the labelled set.
        origins: task id -> origin, of each usable example.
    """
    of = [origins[example.task_id] for example in labelled.usable]
    ranks = np.array([origin.rank for origin in of], dtype=np.int64)
    drawn = np.array([origin.drawn for origin in of], dtype=bool)
    imported = np.array([origin.imported for origin in of], dtype=bool)
    ranks[imported] = np.random.default_rng(0).permutation(ranks[imported])
    order = np.argsort(ranks, kind="stable")
    histories = {}
    for key, indices in labelled.classes.items():
        rows = order[indices[order] != UNKNOWN]
        if len(rows):
            histories[key] = LabelHistory(
                TASK_BY_KEY[key],
                labelled.embeddings[rows],
                indices[rows],
                labelled.groups[rows],
                labelled.holdout[rows],
                drawn[rows],
                imported[rows],
            )
    return histories


@dataclass(frozen=True)
class Measured:
    """Errors after several counts of labels, on the same photos.

    Attributes:
        errors: metric -> ``(R,)``.
        covariances: metric -> ``(R, R)``: their sampling covariance over photos.
    """

    errors: dict[str, DoubleArray]
    covariances: dict[str, DoubleArray]


@dataclass(frozen=True)
class Laws:
    """Power laws with their posterior weights; each is scaled to 1 at a reference count of labels.

    Attributes:
        reducible: share of the error at the reference count that further labels can take away ``(G,)``.
        exponents: ``(G,)``.
        deviation: standard deviation of a head's error around the law by label sampling, as a share of it ``(G,)``.
        weights: ``(G,)``, they sum to 1.
    """

    reducible: DoubleArray
    exponents: DoubleArray
    deviation: DoubleArray
    weights: DoubleArray

    def at(self, relative: DoubleArray) -> DoubleArray:
        """Errors ``(G, R)`` after `relative` ``(R,)`` times the reference count, as shares of the error there."""
        return law(self.reducible, self.exponents, relative)


def law(reducible: DoubleArray, exponents: DoubleArray, relative: DoubleArray) -> DoubleArray:
    """Power laws ``(G, R)`` that are 1 where `relative` ``(R,)`` is 1."""
    powers = relative[np.newaxis] ** -exponents[:, np.newaxis]
    return np.asarray(1 - reducible[:, np.newaxis] + reducible[:, np.newaxis] * powers)


def predict(history: LabelHistory, trains: Sequence[IntArray], photos: IntArray) -> IntArray:
    """Predicted classes ``(R, P)`` of the rows `photos` ``(P,)`` by heads, each fitted on some rows."""
    embeddings = history.embeddings[photos]
    predicted = []
    with one_core():
        for train in trains:
            indices = history.indices[train]
            if len(np.unique(indices)) < 2:
                predicted.append(np.full(len(photos), indices[0]))
                continue
            weight, bias = fit_linear(history.embeddings[train], indices, len(history.task.classes))
            predicted.append((embeddings @ weight.T + bias).argmax(axis=1))
    return np.array(predicted)


def cross_predict(history: LabelHistory, train: IntArray, photos: IntArray, counts: Sequence[int]) -> IntArray:
    """Out-of-sample predicted classes ``(R, P)`` by heads fitted on the first labels.

    All rows are dealt into folds by group; a photo is predicted by heads fitted on the first `counts` of the rows
    `train` outside its fold. Labels are taken as they come, so a fold may have fewer of them than the last count.

    Args:
        history: the labels.
        train: rows to fit on, in order.
        photos: rows to be predicted.
        counts: ``(R,)`` of labels.
    """
    fold = grouped_folds(history.indices, history.groups, FOLDS, seed=0)
    predicted = np.empty((len(counts), len(photos)), dtype=np.int64)
    for k in range(fold.max() + 1):
        judged = np.flatnonzero(fold[photos] == k)
        if len(judged):
            rest = train[fold[train] != k]
            predicted[:, judged] = predict(history, [rest[:count] for count in counts], photos[judged])
    return predicted


def measure(history: LabelHistory, photos: IntArray, predicted: IntArray) -> Measured:
    """Errors of predictions ``(R, P)`` for the rows `photos` ``(P,)``, and their covariance.

    The covariance is estimated by the Bayesian bootstrap over groups (Rubin 1981, doi:10.1214/aos/1176345338).
    """
    _, group = np.unique(history.groups[photos], return_inverse=True)
    generator = np.random.default_rng(0)
    weights = generator.standard_exponential((_DRAWS, group.max() + 1))[:, group]
    everything = np.concatenate([np.ones((1, len(photos))), weights])
    values = _errors(predicted, history.indices[photos], len(history.task.classes), everything)
    return Measured(
        {metric: found[0] for metric, found in values.items()},
        {metric: np.atleast_2d(np.cov(found[1:], rowvar=False)) for metric, found in values.items()},
    )


def _errors(predicted: IntArray, indices: IntArray, classes: int, weights: DoubleArray) -> dict[str, DoubleArray]:
    """Metric -> errors ``(W, R)`` with photos weighted by the rows of `weights` ``(W, P)``."""
    weights = weights / weights.sum(axis=1, keepdims=True)
    accuracy = weights @ (predicted == indices).T
    f1 = []
    for index in np.unique(indices):
        hits = weights @ ((predicted == index) & (indices == index)).T
        stated, support = weights @ (predicted == index).T, weights @ (indices == index)
        f1.append(f1_from_counts(hits, stated, support[:, np.newaxis]))
    return {"accuracy": 1 - accuracy, "macro_f1": 1 - np.mean(f1, axis=0)}


def fit_laws(relative: DoubleArray, errors: DoubleArray, covariance: DoubleArray) -> Laws:
    """Posterior weights of power laws, given measured errors, under a uniform prior.

    Args:
        relative: counts of labels ``(R,)``, as multiples of the reference count.
        errors: measured at these counts ``(R,)``.
        covariance: of the measurement ``(R, R)``.
    """
    reducible, exponents = prior_grid()
    shapes = law(reducible, exponents, relative)
    noises = [covariance + np.diag((deviation * np.maximum(errors, 0.005)) ** 2) for deviation in _DEVIATIONS]
    logs = np.concatenate([log_likelihood(shapes, errors, noise) for noise in noises])
    weights = np.exp(logs - logs.max())
    times = len(_DEVIATIONS)
    deviation = np.repeat(_DEVIATIONS, len(shapes))
    return Laws(np.tile(reducible, times), np.tile(exponents, times), deviation, weights / weights.sum())


def prior_grid() -> tuple[DoubleArray, DoubleArray]:
    """Grid of power laws: `reducible` and `exponents`, each ``(G,)``."""
    grid = np.array(list(product(_REDUCIBLE, _EXPONENTS)))
    return grid[:, 0], grid[:, 1]


def log_likelihood(shapes: DoubleArray, errors: DoubleArray, covariance: DoubleArray) -> DoubleArray:
    """Log-likelihoods ``(G,)`` of curves ``(G, R)`` of any scale (it is integrated over), given errors ``(R,)``."""
    precision = np.linalg.inv(covariance)
    along = shapes @ precision @ errors
    norm = np.einsum("gr,rs,gs->g", shapes, precision, shapes)
    _, log_determinant = np.linalg.slogdet(covariance)
    return np.asarray(along**2 / norm - errors @ precision @ errors - np.log(norm) - log_determinant) / 2
