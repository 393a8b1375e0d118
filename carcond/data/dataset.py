"""The labelled set of one project, on which heads are fitted and measured."""

import hashlib
import json
import posixpath
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import numpy.typing as npt

from carcond.arrays import UNKNOWN, FloatArray, IntArray
from carcond.data.annotations import ConsensusLabel, Opinion, merge_opinions
from carcond.data.label_studio_export import photo_path
from carcond.data.split import HOLDOUT, TRAIN
from carcond.store.tables import AnnotationRow, Photo
from carcond.taxonomy import TASK_BY_KEY, TASKS


@dataclass(frozen=True)
class Example:
    """One labelled photo.

    Attributes:
        task_id: its id in Label Studio.
        side: `HOLDOUT` or `TRAIN`.
        label: the merged label.
        problem: why it has no embedding; such a photo is listed and not used.
        source: source of the photo, see `source_of`.
    """

    task_id: int
    side: str
    label: ConsensusLabel
    problem: str | None
    source: str = ""

    def row(self) -> dict[str, Any]:
        """JSON-ready facts, as a model version keeps them."""
        return {
            "task": self.task_id,
            "side": self.side,
            "classes": dict(self.label.classes),
            "agreement": dict(self.label.agreement),
            "ties": list(self.label.ties),
            "problem": self.problem,
        }


@dataclass(frozen=True)
class LabelledSet:
    """Examples with their embeddings.

    Attributes:
        examples: all labelled photos, in order of task id, also those without an embedding.
        embeddings: ``(N, D)`` of the usable ones.
        classes: task key -> class indices ``(N,)``, `UNKNOWN` where a task was not answered.
        holdout: ``(N,)``, True for photos that the model is only measured on.
        groups: ``(N,)``, equal for near-duplicates and photos of one car.
    """

    examples: Sequence[Example]
    embeddings: FloatArray
    classes: Mapping[str, IntArray]
    holdout: npt.NDArray[np.bool_]
    groups: IntArray

    @property
    def usable(self) -> list[Example]:
        """The examples with an embedding, in the order of `embeddings`."""
        return [example for example in self.examples if example.problem is None]

    def side(self, holdout: bool) -> tuple[FloatArray, dict[str, IntArray]]:
        """Embeddings and class indices of one split."""
        chosen = self.holdout == holdout
        return self.embeddings[chosen], {task: indices[chosen] for task, indices in self.classes.items()}

    def fingerprint(self, encoder_id: str) -> str:
        """Hash of all mutable inputs of the fitted heads: groups, once given, never change."""
        rows = [encoder_id, *(example.row() for example in self.examples)]
        digest = hashlib.sha256(json.dumps(rows, sort_keys=True).encode())
        # A photo's address can change while its label stays.
        digest.update(self.embeddings.tobytes())
        return digest.hexdigest()


def merge_annotations(annotations: Sequence[AnnotationRow]) -> dict[int, ConsensusLabel]:
    """Task id -> merged label, for photos with at least one annotation that was not skipped."""
    opinions: dict[int, list[Opinion]] = {}
    for row in annotations:
        if not row.cancelled:
            opinions.setdefault(row.task_id, []).append(Opinion(row.annotator, row.updated_at, row.classes))
    return {task_id: merge_opinions(said) for task_id, said in opinions.items()}


def labelled_set(
    photos: Sequence[Photo], labels: Mapping[int, ConsensusLabel], task_ids: IntArray, embeddings: FloatArray
) -> LabelledSet:
    """Join labels and embeddings.

    Args:
        photos: of the project; labelled ones must have a split.
        labels: task id -> merged label.
        task_ids: ``(P,)`` of the kept embeddings, ascending.
        embeddings: ``(P, D)``.
    """
    position = {int(task_id): i for i, task_id in enumerate(task_ids)}
    examples = []
    for photo in photos:
        if photo.task_id in labels:
            problem = None if photo.task_id in position else photo.problem or "not embedded yet"
            source = source_of(photo.source, photo.url)
            examples.append(Example(photo.task_id, photo.side or TRAIN, labels[photo.task_id], problem, source))
    usable = [e for e in examples if e.problem is None]
    group_of = {photo.task_id: photo.group for photo in photos}
    rows = [position[e.task_id] for e in usable]
    return LabelledSet(
        examples,
        embeddings[rows],
        {task.key: _class_indices(usable, task.key) for task in TASKS},
        np.array([e.side == HOLDOUT for e in usable], dtype=bool),
        _group_numbers([group_of[e.task_id] for e in usable]),
    )


def source_of(source: str | None, address: str) -> str:
    """Source of a photo: the task's source field, else the folder of its address, else the address's host.

    The parts of an address that may be secret, its query and its user, are left out.
    """
    if source:
        return source
    try:
        host, folder = urlsplit(address).hostname or "", posixpath.dirname(photo_path(address))
    except ValueError:  # brackets that do not match: no address that a photo could be fetched from
        return "malformed address"
    return "/".join(part for part in (host, folder) if part) or "unknown"


def _group_numbers(groups: Sequence[int | None]) -> IntArray:
    """A photo without a group is a group of its own."""
    unused = max((group for group in groups if group is not None), default=0) + 1
    return np.array([unused + i if group is None else group for i, group in enumerate(groups)], dtype=np.int64)


def _class_indices(examples: Sequence[Example], task: str) -> IntArray:
    keys = TASK_BY_KEY[task].class_keys
    stated = [e.label.classes.get(task) for e in examples]
    return np.array([keys.index(c) if c in keys else UNKNOWN for c in stated], dtype=np.int64)
