"""Fitting time of the heads."""

import statistics
import time
from typing import Any

import numpy as np

from carcond.arrays import IntArray
from carcond.model.head_fitting import fit_heads
from carcond.taxonomy import TASKS

_DIMENSIONS = (1280, 1792)  # EfficientNet-Lite0, EfficientNet-B4
_LABELS = 1000
_REPEATS = 3


def bench_refit() -> dict[str, Any]:
    """Seconds to fit and calibrate both heads on 1 000 labels, median of three."""
    rows = []
    for dimension in _DIMENSIONS:
        generator = np.random.default_rng(0)
        classes: dict[str, IntArray] = {task.key: generator.integers(len(task.classes), size=_LABELS) for task in TASKS}
        embeddings = np.maximum(generator.normal(size=(_LABELS, dimension)), 0).astype(np.float32)
        for indices in classes.values():  # classes differ in their means, as those of real photos do
            embeddings[np.arange(_LABELS), indices] += 2
        rows.append({"labels": _LABELS, "dimension": dimension, "seconds": _median_seconds(embeddings, classes)})
    return {"rows": rows}


def _median_seconds(embeddings: np.ndarray[Any, np.dtype[np.float32]], classes: dict[str, IntArray]) -> float:
    seconds = []
    for _ in range(_REPEATS):
        began = time.perf_counter()
        fit_heads("bench", embeddings, classes)
        seconds.append(time.perf_counter() - began)
    return round(statistics.median(seconds), 3)
