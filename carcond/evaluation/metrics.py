"""Metrics of a model version on photos it was not fitted on."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from carcond.arrays import UNKNOWN, FloatArray, IntArray, softmax
from carcond.evaluation.calibration import calibration_figures, negative_log_likelihood
from carcond.evaluation.f1 import f1_from_counts, mean_f1
from carcond.evaluation.intervals import macro_f1_interval, wilson_interval
from carcond.model.heads import Head, Heads
from carcond.taxonomy import Task


def evaluate(
    heads: Heads, embeddings: FloatArray, classes: Mapping[str, IntArray], groups: IntArray | None = None
) -> dict[str, Any]:
    """Metrics of each task on labelled photos that no head was fitted on.

    Args:
        heads: the model version's heads.
        embeddings: ``(N, D)``.
        classes: task key -> class indices ``(N,)``, `UNKNOWN` where not labelled.
        groups: numbers of the photos' groups ``(N,)`` where the photos are the hold-out: temperatures were chosen on
            it, so each photo is measured by one that was chosen without its label. None for photos that no temperature
            was chosen on.

    Returns:
        Task key -> JSON-ready metrics: those of `score`; `accuracy_interval` and `macro_f1_interval`, each the
        two ends of a 95 % interval; those of `class_scores`; and `before` (at temperature 1) and `after`
        calibration, each as `carcond.evaluation.calibration.calibration_figures` gives them. A task without a head or
        without labels is absent.
    """
    report = {}
    for key, head in heads.by_task.items():
        indices = classes.get(key)
        known = indices != UNKNOWN if indices is not None else np.zeros(0, dtype=bool)
        if indices is None or not known.any():
            continue
        if groups is None:
            probabilities = head.probabilities(embeddings[known])
        else:
            probabilities = head.holdout_probabilities(embeddings[known], groups[known])
        report[key] = _evaluate_head(head, embeddings[known], indices[known], probabilities)
    return report


def _evaluate_head(head: Head, embeddings: FloatArray, indices: IntArray, probabilities: FloatArray) -> dict[str, Any]:
    metrics = score(probabilities, indices)
    confusion = np.array(metrics["confusion"])
    return {
        **metrics,
        "accuracy_interval": list(wilson_interval(int(np.trace(confusion)), len(indices))),
        "macro_f1_interval": list(macro_f1_interval(confusion)) if metrics["macro_f1"] is not None else None,
        **class_scores(confusion, head.task),
        "before": calibration_figures(softmax(head.logits(embeddings)), indices),
        "after": calibration_figures(probabilities, indices),
    }


def score(probabilities: FloatArray, indices: IntArray) -> dict[str, Any]:
    """Metrics of probabilities ``(N, K)`` against true class indices ``(N,)``, N at least 1.

    Returns:
        JSON-ready {photos, accuracy, macro_f1, nll, confusion}; `macro_f1` is None where only one class occurs,
        `confusion` is ``(K, K)``, true class by row.
    """
    confusion = confusion_matrix(probabilities.argmax(axis=1), indices, probabilities.shape[1])
    return {
        "photos": len(indices),
        "accuracy": float(np.trace(confusion)) / len(indices),
        "macro_f1": macro_f1(confusion),
        "nll": negative_log_likelihood(probabilities, indices),
        "confusion": confusion.tolist(),
    }


def confusion_matrix(predicted: IntArray, indices: IntArray, class_count: int) -> IntArray:
    """Confusion matrix ``(K, K)``: photos by true class (row) and predicted class (column)."""
    cells = np.bincount(indices * class_count + predicted, minlength=class_count**2)
    return cells.reshape(class_count, class_count)


def occurring_classes(confusion: IntArray) -> int:
    """Number of classes with at least one photo in a confusion matrix ``(K, K)``, true class by row."""
    return int((confusion.sum(axis=1) > 0).sum())


def macro_f1(confusion: IntArray) -> float | None:
    """Mean F1 over the classes that occur; None where only one does: calling every photo by its name would be 1."""
    return float(mean_f1(confusion)) if occurring_classes(confusion) > 1 else None


def class_scores(confusion: IntArray, task: Task) -> dict[str, Any]:
    """Precision, recall and F1 by class.

    Returns:
        JSON-ready `classes`: class key -> {precision, recall, f1, support}, in the order of `confusion`, with
        None for a precision of a class that was never predicted and for a recall and F1 of one that does not
        occur; and `precision` and `recall`, the means over the classes that occur, where None counts as 0.
    """
    classes = {}
    f1 = f1_from_counts(np.diag(confusion), confusion.sum(axis=0), confusion.sum(axis=1))
    for i, key in enumerate(task.class_keys):
        hits, support, stated = int(confusion[i, i]), int(confusion[i].sum()), int(confusion[:, i].sum())
        classes[key] = {
            "precision": hits / stated if stated else None,
            "recall": hits / support if support else None,
            "f1": float(f1[i]) if support else None,
            "support": support,
        }
    present = [each for each in classes.values() if each["support"]]
    means = {name: float(np.mean([each[name] or 0.0 for each in present])) for name in ("precision", "recall")}
    return {"classes": classes, **means}


def combined_accuracy(predicted: Mapping[str, IntArray], classes: Mapping[str, IntArray]) -> dict[str, Any]:
    """Accuracy of all tasks together, on the photos that have a label for each of them.

    Args:
        predicted: task key -> predicted class indices ``(N,)``, of each task with a head.
        classes: task key -> class indices ``(N,)``, `UNKNOWN` where not labelled.

    Returns:
        JSON-ready {photos, accuracy, accuracy_interval}; empty with fewer than two tasks, or without such photos.
    """
    if len(predicted) < 2:
        return {}
    known = np.all([classes[task] != UNKNOWN for task in predicted], axis=0)
    photos = int(known.sum())
    if not photos:
        return {}
    right = int(np.all([predicted[task] == classes[task] for task in predicted], axis=0)[known].sum())
    return {"photos": photos, "accuracy": right / photos, "accuracy_interval": list(wilson_interval(right, photos))}
