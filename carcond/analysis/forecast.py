"""Forecast for stopping: the expected gain of the next labels.

Gain = (error now) x (share of it that the next labels take away). The error is measured on the hold-out, which alone is
unbiased but small. The share comes from the shape of the learning curve, for which all labelled photos are predicted
by heads that were not fitted on them: model-selected photos are harder, which moves the curve up and, to a good
approximation, does not change its shape.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from carcond.analysis.learning_curve import (
    FOLDS,
    METRICS,
    DoubleArray,
    LabelHistory,
    cross_predict,
    fit_laws,
    measure,
    predict,
)
from carcond.arrays import IntArray
from carcond.evaluation.f1 import mean_f1

NEXT_LABELS = 100
"""Default number of further labels that the forecast is for."""

_LEAST_LABELS = 60
_LEAST_HOLDOUT = 10
_LEAST_OF_A_CLASS = 5
_GRID = 6
_FIRST = 20
_DRAWS = 4000
_INTERVAL = (0.05, 0.5, 0.95)
_POINT = 0.01


@dataclass(frozen=True)
class Gain:
    """Forecast gain of a metric.

    Attributes:
        now: the metric on the hold-out as it is.
        gain: the median; a metric of 0.90 with a gain of 0.02 becomes 0.92.
        low: lower end of the 90 % interval, which may be below 0: label-sampling variance makes single versions worse.
        high: upper end.
        state: "flat" when the law leaves less than a point (0.01) to gain with 95 % probability, "rising" when a
            point or more is to be expected, else "slow".
    """

    now: float
    gain: float
    low: float
    high: float
    state: str


@dataclass(frozen=True)
class Forecast:
    """The forecast of one task.

    Attributes:
        labels: number of the task's training labels.
        holdout: number of the task's hold-out photos.
        gains: metric -> gain; empty while labels are too few, without macro-F1 where the hold-out is of one class.
        missing: data that a forecast still needs; empty when there is one.
    """

    labels: int
    holdout: int
    gains: dict[str, Gain]
    missing: str = ""

    def as_json(self) -> dict[str, Any]:
        """JSON-ready: {labels, holdout, next_labels, state, missing} and metric -> {now, gain, low, high, state}."""
        states = {gain.state for gain in self.gains.values()}
        overall = next((state for state in ("rising", "slow", "flat") if state in states), "too few labels")
        found = {metric: {**vars(gain)} for metric, gain in self.gains.items()}
        facts = {"labels": self.labels, "holdout": self.holdout, "next_labels": NEXT_LABELS}
        return {**facts, "state": overall, "missing": self.missing or None, **found}


def forecast(history: LabelHistory, next_labels: int = NEXT_LABELS) -> Forecast:
    """Forecast the gain of a task's next labels. Deterministic; about a second with a thousand labels.

    Args:
        history: the task's labels. The next ones are assumed to be selected in the same way.
        next_labels: number of them.
    """
    train, held = np.flatnonzero(~history.holdout), np.flatnonzero(history.holdout)
    missing = _missing(history.indices[train], len(held))
    if missing:
        return Forecast(len(train), len(held), {}, missing)
    last = len(train) * (FOLDS - 1) // FOLDS
    counts = np.unique(np.geomspace(max(_FIRST, last // 6), last, _GRID).astype(int))
    photos = np.arange(len(history.indices))
    measured = measure(history, photos, cross_predict(history, train, photos, counts.tolist()))
    levels = _levels(history, held, predict(history, [train], held)[0])
    is_one_class = len(np.unique(history.indices[held])) < 2
    ahead = np.array([1 + next_labels / len(train)])
    gains = {}
    for metric in METRICS[:1] if is_one_class else METRICS:
        laws = fit_laws(counts / len(train), measured.errors[metric], measured.covariances[metric])
        generator = np.random.default_rng(0)
        chosen = generator.choice(len(laws.weights), _DRAWS, p=laws.weights)
        now, draws = levels[metric]
        expected = draws * (1 - laws.at(ahead)[chosen, 0])
        luck = draws * laws.deviation[chosen] * np.sqrt(2) * generator.standard_normal(_DRAWS)
        low, middle, high = np.quantile(expected + luck, _INTERVAL)
        state = _state(expected)
        gains[metric] = Gain(now, float(np.median(expected)), float(min(low, middle)), float(high), state)
    return Forecast(len(train), len(held), gains)


def _missing(indices: IntArray, held: int) -> str:
    counts = np.sort(np.bincount(indices, minlength=2))
    needs = [
        (len(indices), _LEAST_LABELS, "labels to train on"),
        (int(counts[-2]), _LEAST_OF_A_CLASS, "labels of a second class"),
        (held, _LEAST_HOLDOUT, "hold-out labels"),
    ]
    return ", ".join(f"{least - count} more {what}" for count, least, what in needs if count < least)


def _state(expected: DoubleArray) -> str:
    if np.quantile(expected, 0.95) < _POINT:
        return "flat"
    return "rising" if np.median(expected) >= _POINT else "slow"


def _levels(history: LabelHistory, held: IntArray, predicted: IntArray) -> dict[str, tuple[float, DoubleArray]]:
    """Metric -> its value on the hold-out, and draws ``(D,)`` from the posterior of the error.

    Dirichlet, as in `carcond.evaluation.intervals.macro_f1_interval`: ten right of ten are no certainty.
    """
    indices, classes = history.indices[held], len(history.task.classes)
    confusion = np.zeros((classes, classes))
    np.add.at(confusion, (indices, predicted), 1)
    present = np.unique(indices)

    def scores(counts: DoubleArray) -> dict[str, DoubleArray]:
        return {"accuracy": np.trace(counts, axis1=1, axis2=2) / len(held), "macro_f1": mean_f1(counts)}

    gamma = np.random.default_rng(1).standard_gamma(confusion[present] + 1 / classes, (_DRAWS, len(present), classes))
    tables = np.zeros((_DRAWS, classes, classes))
    tables[:, present] = gamma / gamma.sum(axis=2, keepdims=True) * confusion[present].sum(axis=1)[:, np.newaxis]
    drawn, now = scores(tables), scores(confusion[np.newaxis])
    return {metric: (float(now[metric][0]), 1 - drawn[metric]) for metric in METRICS}
