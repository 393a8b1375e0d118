"""How good a model version is on photos it was not fitted on."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from carcond.heads import UNKNOWN, FloatArray, Heads, IntArray


def evaluate(heads: Heads, embeddings: FloatArray, classes: Mapping[str, IntArray]) -> dict[str, Any]:
    """Metrics of each task on labelled photos.

    Args:
        heads: the model version's heads.
        embeddings: ``(N, D)``.
        classes: task key -> class indices ``(N,)``, `UNKNOWN` where not labelled.

    Returns:
        Task key -> JSON-ready {photos, accuracy, macro_f1, nll, confusion}; `confusion` is
        ``(K, K)``, true class by row. A task without a head or without labels is absent.
    """
    report = {}
    for key, head in heads.by_task.items():
        indices = classes.get(key)
        known = indices != UNKNOWN if indices is not None else np.zeros(0, dtype=bool)
        if indices is None or not known.any():
            continue
        report[key] = score(head.probabilities(embeddings[known]), indices[known])
    return report


def score(probabilities: FloatArray, indices: IntArray) -> dict[str, Any]:
    """Metrics of probabilities ``(N, K)`` against true class indices ``(N,)``, N at least 1."""
    from sklearn.metrics import confusion_matrix, f1_score  # noqa: PLC0415 - the web process measures nothing

    predicted = probabilities.argmax(axis=1)
    right = probabilities[np.arange(len(indices)), indices]
    present = np.unique(indices)
    return {
        "photos": len(indices),
        "accuracy": float((predicted == indices).mean()),
        # Over the classes that occur: a class nobody has labelled here is not a failure.
        "macro_f1": float(f1_score(indices, predicted, labels=present, average="macro", zero_division=0.0)),
        "nll": -float(np.log(np.maximum(right, 1e-12)).mean()),
        "confusion": confusion_matrix(indices, predicted, labels=np.arange(probabilities.shape[1])).tolist(),
    }
