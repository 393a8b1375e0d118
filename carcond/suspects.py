"""Suspected wrong labels, by confident learning (arXiv 1911.00068).

Each photo is judged by heads that have seen neither it nor its near-duplicates. How many labels of a class are wrong
is estimated from the confident joint; which of them, by their self-confidence ("prune by class").
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from carcond.folds import grouped_folds
from carcond.head_fitting import fit_linear, fit_temperature
from carcond.heads import UNKNOWN, FloatArray, IntArray, softmax
from carcond.label_table import BoolArray
from carcond.one_core import one_core
from carcond.taxonomy import TASK_BY_KEY, Task

_FOLDS = 5
# Logits are averaged over so many deals of the folds: one deal alone finds one or two wrong labels in a hundred less.
_DEALS = 3
MIN_GROUPS = _FOLDS
"""A class is judged from this many groups of photos on: with fewer, a fold's heads would hardly have seen it."""


@dataclass(frozen=True)
class TaskSuspicion:
    """What is to be thought of the labels of one task.

    Attributes:
        task: whose labels.
        judged: ``(N,)``, True for photos whose label could be judged.
        suspicion: ``(N,)``, the probability, 0..1, that the photo is not of the class it is labelled with, as heads
            see it that have not seen it; 0 where not judged. High = look again.
        likely: ``(N,)``, the most probable class index; `UNKNOWN` where not judged.
        suspected: ``(N,)``, True for labels that are thought wrong.
        too_few: class keys with labels that were too few to be judged.
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
    """A label that is thought wrong.

    Attributes:
        position: of the photo, 0 .. N - 1.
        task: key of the task.
        given: class key that it is labelled with.
        likely: class key that it looks like.
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
        probabilities = out_of_sample(embeddings[judged], given, groups[judged], len(task.classes), seed)
        suspicion[judged] = 1 - probabilities[np.arange(len(given)), given]
        likely[judged] = probabilities.argmax(axis=1)
        suspected[judged] = wrong_labels(probabilities, given)
    return TaskSuspicion(task, judged, suspicion, likely, suspected, too_few)


def out_of_sample(
    embeddings: FloatArray, indices: IntArray, groups: IntArray, class_count: int, seed: int = 0
) -> FloatArray:
    """Calibrated probabilities ``(N, K)`` of each photo by heads fitted without its group.

    Args:
        embeddings: ``(N, D)``.
        indices: class indices ``(N,)``, all known, each class in `MIN_GROUPS` groups at least.
        groups: ``(N,)``.
        class_count: K.
        seed: of the folds.
    """
    logits = np.zeros((len(indices), class_count), dtype=np.float32)
    with one_core():
        for deal in range(_DEALS):
            fold = grouped_folds(indices, groups, _FOLDS, seed + deal)
            for k in range(_FOLDS):
                weight, bias = fit_linear(embeddings[fold != k], indices[fold != k], class_count)
                logits[fold == k] += (embeddings[fold == k] @ weight.T + bias) / _DEALS
    return softmax(logits / np.float32(fit_temperature(logits, indices)))


def wrong_labels(probabilities: FloatArray, indices: IntArray) -> BoolArray:
    """Which labels are thought wrong ``(N,)``: the least self-confident of each class, as many as the joint says.

    A label of which the given class is also the most probable is never thought wrong.

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
    """Counts ``(K, K)`` of photos by given class (rows) and confidently seen class (columns).

    A photo is seen as the most probable of the classes whose probability reaches that class's threshold, which is
    its mean over the photos labelled with it; a photo that reaches none is not counted.

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
