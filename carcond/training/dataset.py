"""Labelled photo files to train on, merged, grouped and split. `carcond.training.dataset_reader` reads them."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from carcond.arrays import UNKNOWN, FloatArray, IntArray
from carcond.data.annotations import ConsensusLabel
from carcond.data.dataset import Example, LabelledSet
from carcond.data.folds import deal_groups
from carcond.data.split import HOLDOUT, TRAIN
from carcond.taxonomy import TASKS

VALIDATION = "validation"
"""Split on which the best epoch is chosen and the heads are calibrated; no weight is fitted on it."""


@dataclass(frozen=True)
class TrainingPhoto:
    """One labelled photo.

    Attributes:
        name: as the export or the table has it.
        file: path of the photo.
        label: the merged label, of at least one task.
        side: `TRAIN`, `VALIDATION`, or `HOLDOUT`, on which it is only measured.
        group: equal for near-duplicates and photos of one car.
        source: where it comes from, see `carcond.data.dataset.source_of`.
    """

    name: str
    file: Path
    label: ConsensusLabel
    side: str = TRAIN
    group: int = 0
    source: str = ""


@dataclass(frozen=True)
class TrainingSet:
    """Photos to train and to measure on."""

    photos: Sequence[TrainingPhoto]

    @property
    def files(self) -> list[Path]:
        """Paths of the photos, in their order."""
        return [photo.file for photo in self.photos]

    def positions(self, side: str) -> IntArray:
        """Positions of the photos of a split, ascending."""
        return np.array([i for i, photo in enumerate(self.photos) if photo.side == side], dtype=np.int64)

    def classes(self) -> dict[str, IntArray]:
        """Task key -> class indices ``(N,)``, `UNKNOWN` where a photo has no label for the task."""
        return {
            task.key: np.array(
                [_index(task.class_keys, photo.label.classes.get(task.key)) for photo in self.photos], dtype=np.int64
            )
            for task in TASKS
        }

    def groups(self) -> IntArray:
        """Group numbers ``(N,)``."""
        return np.array([photo.group for photo in self.photos], dtype=np.int64)

    def measured_side(self) -> str:
        """Split that a report card measures: the hold-out, or the validation photos when nothing is held out."""
        return HOLDOUT if len(self.positions(HOLDOUT)) else VALIDATION

    def labelled(self, embeddings: FloatArray) -> LabelledSet:
        """Labelled set of a model version's card, without the validation photos unless they are measured on.

        Args:
            embeddings: ``(N, D)`` of all photos.
        """
        measured = self.measured_side()
        kept = [i for i, photo in enumerate(self.photos) if photo.side in (TRAIN, measured)]
        examples = [
            Example(
                i,
                HOLDOUT if self.photos[i].side == measured else TRAIN,
                self.photos[i].label,
                None,
                self.photos[i].source,
            )
            for i in kept
        ]
        return LabelledSet(
            examples,
            embeddings[kept],
            {task: indices[kept] for task, indices in self.classes().items()},
            np.array([example.side == HOLDOUT for example in examples], dtype=bool),
            self.groups()[kept],
        )

    def fingerprint(self) -> str:
        """Hash of all that a training takes from this set, except the photos' pixels."""
        rows = [(photo.name, photo.side, photo.group, sorted(photo.label.classes.items())) for photo in self.photos]
        return hashlib.sha256(json.dumps(rows).encode()).hexdigest()


def validation_groups(training: TrainingSet, share: float, seed: int) -> set[int]:
    """Groups for validation, stratified by class as evenly as groups allow.

    Args:
        training: photos that may be trained on; their splits are ignored.
        share: of the photos, rounded to one in n: 0.2 is every fifth.
        seed: of the assignment.
    """
    numbers, group = np.unique(training.groups(), return_inverse=True)
    if not len(numbers):
        return set()
    parts = round(1 / share)
    kinds = [np.ones(len(group))]
    for task in TASKS:
        indices = training.classes()[task.key]
        kinds += [(indices == index).astype(float) for index in range(len(task.classes))]
    held = np.zeros((len(numbers), len(kinds)))
    np.add.at(held, group, np.stack(kinds, axis=1))
    # The last fold: it is dealt to last, so a class with few photos keeps them for training.
    chosen = deal_groups(held, parts, seed) == parts - 1
    return {int(number) for number in numbers[chosen]}


def _index(keys: Sequence[str], key: str | None) -> int:
    return keys.index(key) if key in keys else UNKNOWN
