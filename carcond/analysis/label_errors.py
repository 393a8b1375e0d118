"""Suspected wrong labels, by confident learning (arXiv 1911.00068).

Each photo is predicted by heads that were fitted on neither it nor its near-duplicates. The number of wrong labels of
a class is estimated from the confident joint; those of lowest self-confidence are suspected ("prune by class"). As the
paper trains on what is left, a second round fits heads without the suspected labels, which had bent those of the first,
and suspects anew.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from carcond.arrays import UNKNOWN, FloatArray, IntArray, softmax
from carcond.data.folds import grouped_folds
from carcond.data.label_table import BoolArray
from carcond.model.head_fitting import fit_linear, fit_temperature
from carcond.model.single_thread import one_core
from carcond.taxonomy import TASK_BY_KEY, Task

_FOLDS = 5
# Number of repeated cross-validations whose logits are averaged: one alone misses one or two more wrong labels in 100.
_DEALS = 3
MIN_GROUPS = _FOLDS
"""Minimum number of groups for the labels of a class to be checked: with fewer, a fold's heads would hardly see it."""


@dataclass(frozen=True)
class TaskSuspicion:
    """Suspicion of the labels of one task.

    Attributes:
        task: of the labels.
        judged: ``(N,)``, True for photos whose label could be checked.
        suspicion: ``(N,)``, the out-of-sample probability, 0..1, that the photo is not of the class it is labelled
            with; 0 where not checked. High = review the label.
        likely: ``(N,)``, the most probable class index; `UNKNOWN` where not checked.
        suspected: ``(N,)``, True for labels that are probably wrong.
        too_few: class keys with too few labels to check.
    """

    task: Task
    judged: BoolArray
    suspicion: FloatArray
    likely: IntArray
    suspected: BoolArray
    too_few: tuple[str, ...]

    def ranked(self) -> IntArray:
        """Positions of the suspected labels, most suspicious first."""
        positions = np.flatnonzero(self.suspected)
        return positions[np.argsort(-self.suspicion[positions], kind="stable")]


@dataclass(frozen=True)
class Suspect:
    """A label that is probably wrong.

    Attributes:
        position: of the photo, 0 .. N - 1.
        task: key of the task.
        given: class key that it is labelled with.
        likely: most probable class key.
        suspicion: see `TaskSuspicion`.
    """

    position: int
    task: str
    given: str
    likely: str
    suspicion: float


def rank_suspects(suspicions: Iterable[TaskSuspicion], classes: Mapping[str, IntArray]) -> list[Suspect]:
    """The suspected labels of all tasks, most suspicious first.

    Args:
        suspicions: of N photos each.
        classes: task key -> given class indices ``(N,)``.
    """
    found = []
    for each in suspicions:
        keys = each.task.class_keys
        for i in each.ranked():
            given, likely = keys[classes[each.task.key][i]], keys[each.likely[i]]
            found.append(Suspect(int(i), each.task.key, given, likely, float(each.suspicion[i])))
    return sorted(found, key=lambda suspect: -suspect.suspicion)


def suspect_labels(
    embeddings: FloatArray, classes: Mapping[str, IntArray], groups: IntArray, seed: int = 0
) -> dict[str, TaskSuspicion]:
    """Task key -> suspicion, for each task of the taxonomy that has labels. Deterministic.

    Args:
        embeddings: ``(N, D)``.
        classes: task key -> class indices ``(N,)``, `UNKNOWN` where the label is not known.
        groups: ``(N,)``, equal for near-duplicates and photos of one car.
        seed: of the folds.
    """
    return {
        key: suspect_task(TASK_BY_KEY[key], embeddings, indices, groups, seed)
        for key, indices in classes.items()
        if (indices != UNKNOWN).any()
    }


def suspect_task(
    task: Task, embeddings: FloatArray, indices: IntArray, groups: IntArray, seed: int = 0
) -> TaskSuspicion:
    """Suspicion of the labels of one task; see `suspect_labels`. `task` may have any classes."""
    frequent = [k for k in range(len(task.classes)) if len(np.unique(groups[indices == k])) >= MIN_GROUPS]
    present = {int(k) for k in np.unique(indices) if k != UNKNOWN}
    judged = np.isin(indices, frequent) if len(frequent) > 1 else np.zeros(len(indices), dtype=bool)
    too_few = tuple(task.class_keys[k] for k in sorted(present - set(frequent if judged.any() else ())))
    suspicion = np.zeros(len(indices), dtype=np.float32)
    likely = np.full(len(indices), UNKNOWN, dtype=np.int64)
    suspected = np.zeros(len(indices), dtype=bool)
    if judged.any():
        given = indices[judged]
        photos = embeddings[judged], given, groups[judged], len(task.classes), seed
        first = out_of_sample(*photos)
        probabilities = out_of_sample(*photos, trusted=~wrong_labels(first, given))
        suspicion[judged] = 1 - probabilities[np.arange(len(given)), given]
        likely[judged] = probabilities.argmax(axis=1)
        suspected[judged] = wrong_labels(probabilities, given)
    return TaskSuspicion(task, judged, suspicion, likely, suspected, too_few)


def out_of_sample(
    embeddings: FloatArray,
    indices: IntArray,
    groups: IntArray,
    class_count: int,
    seed: int = 0,
    *,
    trusted: BoolArray | None = None,
) -> FloatArray:
    """Out-of-sample calibrated probabilities ``(N, K)`` of each photo, by heads fitted without its group.

    Args:
        embeddings: ``(N, D)``.
        indices: class indices ``(N,)``, all known, each class in `MIN_GROUPS` groups at least.
        groups: ``(N,)``.
        class_count: K.
        seed: of the folds.
        trusted: ``(N,)``, True for photos to fit on; where a class would be left without one, all are. None for all.
    """
    logits = np.zeros((len(indices), class_count), dtype=np.float32)
    with one_core():
        for deal in range(_DEALS):
            fold = grouped_folds(indices, groups, _FOLDS, seed + deal)
            for k in range(_FOLDS):
                fitted = _without_untrusted(fold != k, indices, trusted)
                weight, bias = fit_linear(embeddings[fitted], indices[fitted], class_count)
                logits[fold == k] += (embeddings[fold == k] @ weight.T + bias) / _DEALS
    return softmax(logits / np.float32(fit_temperature(logits, indices)))


def _without_untrusted(photos: BoolArray, indices: IntArray, trusted: BoolArray | None) -> BoolArray:
    if trusted is None:
        return photos
    kept = photos & trusted
    return kept if len(np.unique(indices[kept])) == len(np.unique(indices[photos])) else photos


def wrong_labels(probabilities: FloatArray, indices: IntArray) -> BoolArray:
    """Mask ``(N,)`` of suspected labels: the least self-confident of each class, as many as the joint estimates.

    A label whose given class is also the most probable is never suspected.

    Args:
        probabilities: out-of-sample, ``(N, K)``.
        indices: given class indices ``(N,)``.
    """
    joint = confident_joint(probabilities, indices)
    counts = np.bincount(indices, minlength=len(joint))
    shares = joint.sum(axis=1) - joint.diagonal()
    confidence = probabilities[np.arange(len(indices)), indices]
    wrong = np.zeros(len(indices), dtype=bool)
    for k, (counted, off_diagonal) in enumerate(zip(joint.sum(axis=1), shares, strict=True)):
        number = round(counts[k] * off_diagonal / counted) if counted else 0
        members = np.flatnonzero(indices == k)
        wrong[members[np.argsort(confidence[members], kind="stable")[:number]]] = True
    return np.asarray(wrong & (probabilities.argmax(axis=1) != indices), dtype=np.bool_)


def confident_joint(probabilities: FloatArray, indices: IntArray) -> IntArray:
    """Counts ``(K, K)`` of photos by given class (rows) and confidently predicted class (columns).

    The predicted class is the most probable of those whose probability reaches the class's threshold, which is its
    mean over the photos labelled with it; a photo that reaches none is not counted.

    Args:
        probabilities: out-of-sample, ``(N, K)``.
        indices: given class indices ``(N,)``.
    """
    count = probabilities.shape[1]
    present = np.unique(indices)
    thresholds = np.full(count, np.inf)
    thresholds[present] = [probabilities[indices == k, k].mean() for k in present]
    reached = probabilities >= thresholds
    confident = reached.any(axis=1)
    seen = np.where(reached, probabilities, -1).argmax(axis=1)
    joint = np.zeros((count, count), dtype=np.int64)
    np.add.at(joint, (indices[confident], seen[confident]), 1)
    return joint
