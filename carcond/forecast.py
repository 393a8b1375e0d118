"""Stopping help: what the next labels would bring.

Gain = (error now) x (share of it that the next labels take away). The error is measured on the hold-out, which alone is
unbiased but small. The share comes from the shape of the learning curve, for which all labelled photos are judged by
heads that have not seen them: those that a model chose are harder, which moves the curve up and, to a good
approximation, not out of shape.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from carcond.heads import IntArray
from carcond.learning_curve import (
    FOLDS,
    METRICS,
    DoubleArray,
    LabelHistory,
    cross_predict,
    fit_laws,
    measure,
    predict,
)

NEXT_LABELS = 100
"""The forecast is of so many further labels."""

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
    """What the next labels would add to a metric.

    Attributes:
        now: the metric on the hold-out as it is.
        gain: the median; a metric of 0.90 with a gain of 0.02 becomes 0.92.
        low: lower end of the 90 % interval, which may be below 0: luck with labels makes single versions worse.
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
        labels: of the task that are trained on.
        holdout: photos of the task that are measured on.
        gains: metric -> gain; empty while labels are too few.
        missing: what is missing for a forecast; empty when nothing is.
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
    """What the next labels of a task would bring. Deterministic; about a second with a thousand labels.

    Args:
        history: the task's labels. The next ones are taken to be chosen as those were.
        next_labels: how many.
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
    ahead = np.array([1 + next_labels / len(train)])
    gains = {}
    for metric in METRICS:
        laws = fit_laws(counts / len(train), measured.errors[metric], measured.covariances[metric])
        generator = np.random.default_rng(0)
        chosen = generator.choice(len(laws.weights), _DRAWS, p=laws.weights)
        now, draws = levels[metric]
        expected = draws * (1 - laws.at(ahead)[chosen, 0])
        luck = draws * laws.luck[chosen] * np.sqrt(2) * generator.standard_normal(_DRAWS)
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

    Dirichlet, as in `carcond.intervals.macro_f1_interval`: ten right of ten are no certainty.
    """
    indices, classes = history.indices[held], len(history.task.classes)
    confusion = np.zeros((classes, classes))
    np.add.at(confusion, (indices, predicted), 1)
    confusion = confusion[confusion.sum(axis=1) > 0]
    present, support = np.unique(indices), confusion.sum(axis=1)

    def scores(counts: DoubleArray) -> dict[str, DoubleArray]:
        hits = counts[:, np.arange(len(present)), present]
        f1 = 2 * hits / (support + counts.sum(axis=1)[:, present])
        return {"accuracy": hits.sum(axis=1) / len(held), "macro_f1": f1.mean(axis=1)}

    gamma = np.random.default_rng(1).standard_gamma(confusion + 1 / classes, (_DRAWS, *confusion.shape))
    drawn = scores(gamma / gamma.sum(axis=2, keepdims=True) * support[:, np.newaxis])
    now = scores(confusion[np.newaxis])
    return {metric: (float(now[metric][0]), 1 - drawn[metric]) for metric in METRICS}
