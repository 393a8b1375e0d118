"""The live "labels saved" figure: label efficiency of model-selected photos against randomly sampled ones.

Heads fitted on the first model-selected labels are compared with heads fitted on as many randomly sampled labels, on
the same random photos. A random photo that heads are fitted on is never among those they are measured on; no serving
head is ever fitted on one. Both curves are assumed to be one power law (`carcond.analysis.learning_curve`) up to a
scale of the label count: n random labels are worth as much as `ratio` x n selected ones.

One label in ten is random, so the random curve is short: the figure describes the first labels, and for a long time it
is not known.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from carcond.analysis.learning_curve import (
    FOLDS,
    METRICS,
    DoubleArray,
    LabelHistory,
    cross_predict,
    law,
    log_likelihood,
    measure,
    predict,
    prior_grid,
)
from carcond.data.split import LEAST_IMPORTED

_LEAST_DRAWN = 30
_LEAST_OF_A_CLASS = 5
_FIRST = 12
_RATIOS = np.geomspace(1 / 8, 8, 49)
# Maximum ratio of the interval's ends; with a wider interval the figure counts as not known.
_WIDEST = 8.0
_INTERVAL = (0.05, 0.5, 0.95)
# Standard deviation of a head's error by label sampling, as a share of the error, at this number of labels. Measured
# on random samples of car photos, and rounded up: see docs/stopping.md.
_LUCK_AT = 40
_LUCK = 0.1


@dataclass(frozen=True)
class LabelsSaved:
    """Comparison of the model-selected labels of one task with random ones.

    Attributes:
        chosen: number of model-selected labels.
        drawn: number of randomly sampled labels.
        compared: maximum number of labels of each kind in the comparison.
        ratio: selected labels that are worth as much as one random label: 0.5 means that half are needed; None while
            not known.
        low: lower end of its 90 % interval.
        high: upper end.
        missing: why it is not yet known; empty when it is.
    """

    chosen: int
    drawn: int
    compared: int = 0
    ratio: float | None = None
    low: float | None = None
    high: float | None = None
    missing: str = ""

    def as_json(self) -> dict[str, Any]:
        """JSON-ready: the attributes, `known`, and `saved`, the share of random labels that are not needed."""
        known = not self.missing
        facts = {**vars(self), "missing": self.missing or None, "known": known}
        if known and self.ratio is not None and self.low is not None and self.high is not None:
            facts["saved"] = {"share": 1 - self.ratio, "low": 1 - self.high, "high": 1 - self.low}
        return facts


def labels_saved(history: LabelHistory, metric: str = METRICS[0]) -> LabelsSaved:
    """Compare the model-selected labels of a task with randomly sampled ones. Deterministic.

    Args:
        history: the task's labels.
        metric: of `carcond.analysis.learning_curve.METRICS`.
    """
    chosen = np.flatnonzero(~history.holdout)
    drawn = np.flatnonzero(history.drawn)
    last = min(len(drawn) * (FOLDS - 1) // FOLDS, len(chosen))
    missing = _missing(history)
    if missing:
        return LabelsSaved(len(chosen), len(drawn), missing=missing)
    counts = np.unique(np.geomspace(min(_FIRST, last // 2), last, 4).astype(int))
    ahead = np.unique(np.geomspace(max(counts[0] // 2, 5), min(3 * last, len(chosen)), 7).astype(int))
    random_heads = cross_predict(history, drawn, drawn, counts.tolist())
    chosen_heads = predict(history, [chosen[:count] for count in ahead], drawn)
    measured = measure(history, drawn, np.concatenate([random_heads, chosen_heads]))
    weights = _weights(counts / last, ahead / last, last, measured.errors[metric], measured.covariances[metric])
    low, middle, high = _quantiles(weights)
    unsure = high / low > _WIDEST
    why = (
        f"between {low:.2g} and {high:.2g} times as many labels as random ones: more labels are needed"
        if unsure
        else ""
    )
    return LabelsSaved(len(chosen), len(drawn), int(last), middle, low, high, why)


def _missing(history: LabelHistory) -> str:
    if history.imported.sum() >= LEAST_IMPORTED:  # a few are those that somebody made before the first prediction
        return "the model also learnt from imported labels, so the chosen ones cannot be compared by themselves"
    drawn = history.indices[history.drawn]
    counts = np.sort(np.bincount(drawn, minlength=2))
    needs = [
        (len(drawn), _LEAST_DRAWN, "labels of drawn photos"),
        (int(counts[-2]), _LEAST_OF_A_CLASS, "labels of drawn photos of a second class"),
    ]
    return ", ".join(f"{least - count} more {what}" for count, least, what in needs if count < least)


def _weights(
    random_counts: DoubleArray, chosen_counts: DoubleArray, last: int, errors: DoubleArray, covariance: DoubleArray
) -> DoubleArray:
    """Posterior weights of `_RATIOS`; counts are multiples of `last`."""
    noise = covariance + _luck(random_counts * last, chosen_counts * last, errors)
    reducible, exponents = prior_grid()
    logs = []
    for ratio in _RATIOS:
        walked = np.concatenate([random_counts * ratio, chosen_counts])
        logs.append(log_likelihood(law(reducible, exponents, walked), errors, noise))
    found = np.array(logs)
    return np.asarray(np.exp(found - found.max()).sum(axis=1))


def _luck(random_counts: DoubleArray, chosen_counts: DoubleArray, errors: DoubleArray) -> DoubleArray:
    """Covariance of the errors by label sampling: heads of one kind share labels, so their errors correlate."""
    counts = np.concatenate([random_counts, chosen_counts])
    kinds = np.repeat([0, 1], [len(random_counts), len(chosen_counts)])
    deviation = _LUCK * np.sqrt(_LUCK_AT / np.maximum(counts, 1)) * np.maximum(errors, 0.01)
    shared = np.sqrt(np.minimum.outer(counts, counts) / np.maximum.outer(counts, counts))
    return np.asarray(np.outer(deviation, deviation) * shared * (kinds[:, np.newaxis] == kinds))


def _quantiles(weights: DoubleArray) -> tuple[float, float, float]:
    """5, 50 and 95 % of the ratio, between the points of the grid in its logarithm."""
    below = np.concatenate([[0.0], np.cumsum(weights) / weights.sum()])
    step = math.log(_RATIOS[1] / _RATIOS[0])
    edges = np.log(_RATIOS[0]) - step / 2 + step * np.arange(len(_RATIOS) + 1)
    low, middle, high = np.exp(np.interp(_INTERVAL, below, edges))
    return float(low), float(middle), float(high)
