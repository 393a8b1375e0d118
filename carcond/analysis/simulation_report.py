"""Report of a simulation: learning curves with confidence bands, and labels saved."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from scipy.stats import t

from carcond.analysis.replay_heads import EVERYTHING, METRICS
from carcond.analysis.simulate import TaskCurves
from carcond.arrays import FloatArray, IntArray

SHARES = (0.90, 0.95, 0.98)
"""Shares of the score with all labels for which the labels needed are reported."""

BASELINE = "random"
"""Labels needed are compared with this strategy, if it was simulated."""


def report(curves: Mapping[str, TaskCurves]) -> dict[str, Any]:
    """All of a simulation, JSON-ready.

    Args:
        curves: task key -> its curves.

    Returns:
        - ``tasks``: task -> strategy -> {labels, accuracy, macro_f1, ece}, each a list of [mean, band]; the
          band is half the width of the 95 % confidence interval of the mean over the seeds, and so over the test sets
          where each seed has its own.
        - ``full``: task -> {labels, accuracy, macro_f1, ece} with all labels.
        - ``needed``: task -> metric -> share of the full score -> strategy -> {labels, relative}, see `labels_needed`.
        - ``by``: task -> slice -> {photos, strategies}: as ``tasks``, measured on that slice of the test photos.
    """
    return {
        "tasks": {task: _strategies(each, EVERYTHING) for task, each in curves.items()},
        "full": {task: _full(each) for task, each in curves.items()},
        "needed": {
            task: {metric: _needed(each, metric) for metric in ("accuracy", "macro_f1")}
            for task, each in curves.items()
        },
        "by": {
            task: {
                name: {"photos": photos, "strategies": _strategies(each, name)}
                for name, photos in each.test_photos.items()
                if name != EVERYTHING
            }
            for task, each in curves.items()
        },
    }


def mean_and_band(runs: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Mean ``(R,)`` and half-width ``(R,)`` of its 95 % confidence interval, by Student's t.

    Args:
        runs: one row a seed ``(S, R)``, S at least 2.
    """
    seeds = len(runs)
    width = t.ppf(0.975, seeds - 1) * runs.std(axis=0, ddof=1) / np.sqrt(seeds)
    return runs.mean(axis=0), np.asarray(width)


def labels_needed(labels: IntArray, runs: FloatArray, target: float) -> float | None:
    """Labels until a score is reached for the first time, the median over the seeds.

    Args:
        labels: ``(R,)``, ascending.
        runs: scores, one row a seed ``(S, R)``.
        target: the score.

    Returns:
        Interpolated between measurements; None when half of the seeds or more never reach it.
    """
    median = float(np.median([_first_reaching(labels, run, target) for run in runs]))
    return median if np.isfinite(median) else None


def _first_reaching(labels: IntArray, run: FloatArray, target: float) -> float:
    reached = np.flatnonzero(run >= target)
    if len(reached) == 0:
        return np.inf
    first = reached[0]
    if first == 0:
        return float(labels[0])
    return float(np.interp(target, run[[first - 1, first]], labels[[first - 1, first]]))


def _strategies(curves: TaskCurves, part: str) -> dict[str, Any]:
    found = {}
    for name, by_slice in curves.values.items():
        runs = by_slice[part]
        found[name] = {"labels": [[int(count), 0.0] for count in curves.labels]}
        for column, metric in enumerate(METRICS):
            mean, band = mean_and_band(runs[:, :, column])
            found[name][metric] = [[round(float(m), 5), round(float(b), 5)] for m, b in zip(mean, band, strict=True)]
    return found


def _full(curves: TaskCurves) -> dict[str, float]:
    scores = {metric: round(float(value), 5) for metric, value in zip(METRICS, curves.full, strict=True)}
    return {"labels": int(curves.labels[-1]), **scores}


def _needed(curves: TaskCurves, metric: str) -> dict[str, Any]:
    column = METRICS.index(metric)
    rows = {}
    for share in SHARES:
        target = share * float(curves.full[column])
        needed = {
            name: labels_needed(curves.labels, by_slice[EVERYTHING][:, :, column], target)
            for name, by_slice in curves.values.items()
        }
        baseline = needed.get(BASELINE)
        rows[f"{share:.2f}"] = {
            name: {"labels": labels, "relative": labels / baseline if labels and baseline else None}
            for name, labels in needed.items()
        }
    return rows
