"""The heads of a replay: fitted on labelled photos, measured on the test photos."""

from collections.abc import Mapping

import numpy as np

from carcond.analysis.replay_set import ReplayDataset
from carcond.arrays import FloatArray, IntArray
from carcond.evaluation.calibration import calibration_error
from carcond.evaluation.f1 import mean_f1
from carcond.evaluation.metrics import score
from carcond.model.head_fitting import Holdout, fit_head
from carcond.model.heads import Head

METRICS = ("accuracy", "macro_f1", "ece")
"""Metrics after each batch, in this order."""

EVERYTHING = ""
"""Name of the slice that has all test photos."""

ReplayHeads = Mapping[str, Head | int]
"""Task key -> its head; or the only class among its labels. Absent without labels."""


def fit(dataset: ReplayDataset, train: IntArray, held: IntArray, seed: int) -> dict[str, Head | int]:
    """Heads of all tasks, fitted as the live service fits them.

    Args:
        dataset: the labelled set.
        train: rows of the labelled photos to fit on.
        held: rows of the labelled photos of the hold-out: temperatures are chosen on them too.
        seed: of the cross-fitting folds.
    """
    heads: dict[str, Head | int] = {}
    for key, labels in dataset.labels.items():
        known = train[labels.known[train]]
        indices = labels.indices[known]
        if len(np.unique(indices)) >= 2:
            holdout = Holdout(dataset.embeddings[held], {labels.task.key: labels.indices[held]}, dataset.groups[held])
            heads[key] = fit_head(
                labels.task, dataset.embeddings[known], indices, seed, dataset.groups[known], holdout=holdout
            )
        elif len(indices):
            heads[key] = int(indices[0])
    return heads


def fitted(heads: ReplayHeads) -> dict[str, Head]:
    """The tasks with a head."""
    return {key: head for key, head in heads.items() if isinstance(head, Head)}


def measure(dataset: ReplayDataset, heads: ReplayHeads) -> dict[str, dict[str, FloatArray]]:
    """Task key -> slice -> `METRICS` ``(3,)`` on the test photos; a slice without test photos is absent."""
    everything = {EVERYTHING: np.ones(len(dataset.groups), dtype=bool)}
    measured: dict[str, dict[str, FloatArray]] = {}
    for key, labels in dataset.labels.items():
        photos = np.flatnonzero(dataset.measured() & labels.known)
        probabilities = predict(heads.get(key), dataset.embeddings[photos], len(labels.task.classes))
        measured[key] = {}
        for name, members in (everything | dict(dataset.slices)).items():
            chosen = members[photos]
            if chosen.any():
                measured[key][name] = _metrics(probabilities[chosen], labels.indices[photos[chosen]])
    return measured


def predict(head: Head | int | None, embeddings: FloatArray, class_count: int) -> FloatArray:
    """Probabilities ``(N, K)``; certain of the only class before there is a head, and even before there is a label."""
    if isinstance(head, Head):
        return head.probabilities(embeddings)
    if head is None:
        return np.full((len(embeddings), class_count), 1 / class_count, dtype=np.float32)
    return np.tile(np.eye(class_count, dtype=np.float32)[head], (len(embeddings), 1))


def _metrics(probabilities: FloatArray, indices: IntArray) -> FloatArray:
    measured = score(probabilities, indices)
    error = calibration_error(probabilities, indices)
    # A slice may hold one class alone; the mean over slices still needs a number.
    return np.array([measured["accuracy"], float(mean_f1(np.array(measured["confusion"]))), error], dtype=np.float32)
