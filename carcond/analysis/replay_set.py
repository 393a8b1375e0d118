"""A labelled set with embeddings, for simulations to replay."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from carcond.arrays import BoolArray, FloatArray, IntArray
from carcond.data.folds import grouped_folds
from carcond.data.images import STATS_SIDE, decode_photo, perceptual_hash
from carcond.data.label_studio_export import find_photo
from carcond.data.label_table import Row, TaskLabels, column_values, measured_rows, task_labels
from carcond.data.near_duplicates import Likeness, assign_groups
from carcond.errors import LabelTableError, UnreadableImageError
from carcond.model.embedding_cache import Progress, embed_files
from carcond.model.encoder import Encoder

FOLDS = 5
"""Test folds where no split is marked: each photo is in the test set of one seed in five."""


@dataclass(frozen=True)
class ReplayDataset:
    """A labelled set to be replayed.

    Attributes:
        embeddings: ``(N, D)``.
        labels: task key -> classes of the N photos; all tasks are learnt from the same batches.
        groups: ``(N,)``, equal for near-duplicates and photos of one car.
        test: ``(N,)``, True for photos that are only measured on; None where each seed has test photos of its own,
            see `for_seed`.
        slices: name -> ``(N,)``, True for photos that are also measured by themselves.
    """

    embeddings: FloatArray
    labels: Mapping[str, TaskLabels]
    groups: IntArray
    test: BoolArray | None = None
    slices: Mapping[str, BoolArray] = field(default_factory=dict)

    def for_seed(self, seed: int) -> "ReplayDataset":
        """The set with the test photos of a seed: the marked ones, or else a fifth of the groups.

        Five seeds in turn have the five folds of one deal, in which each class is dealt out as evenly as whole groups
        allow; the next five have those of another deal.
        """
        if self.test is not None:
            return self
        classes = np.stack([labels.indices for labels in self.labels.values()], axis=1)
        _, combination = np.unique(classes, axis=0, return_inverse=True)
        fold = grouped_folds(combination, self.groups, FOLDS, seed // FOLDS)
        return replace(self, test=fold == seed % FOLDS)

    def measured(self) -> BoolArray:
        """``(N,)``, True for the test photos.

        Raises:
            ValueError: they are those of a seed, see `for_seed`.
        """
        if self.test is None:
            raise ValueError("expected a set for one seed, got one whose test photos differ from seed to seed")
        return self.test

    def pool(self) -> IntArray:
        """Photos that can be labelled: those outside the test split with a known class."""
        known = np.any([labels.known for labels in self.labels.values()], axis=0)
        return np.flatnonzero(known & ~self.measured())

    def check(self) -> None:
        """Make sure that each task can be learnt and measured.

        Raises:
            LabelTableError: a task has fewer than two classes to be labelled, or no test photo.
        """
        pool = self.pool()
        for key, labels in self.labels.items():
            known = labels.indices[pool][labels.known[pool]]
            tested = int((self.measured() & labels.known).sum())
            if len(np.unique(known)) < 2 or tested == 0:
                raise LabelTableError(
                    f"expected train rows of at least two classes of {key} and a test row, "
                    f"got {len(np.unique(known))} classes in {len(known)} train rows and {tested} test rows"
                )

    def by_task(self) -> list["ReplayDataset"]:
        """One dataset for each task: a queue of its own over the photos of which its class is known."""
        return [replace(self, labels={key: labels}) for key, labels in self.labels.items()]


@dataclass(frozen=True)
class Columns:
    """Roles of the columns of a table of labels.

    Attributes:
        stand_ins: task key -> column used for it.
        slices: column by whose values the test photos are also measured; empty for none.
    """

    stand_ins: Mapping[str, str] = field(default_factory=dict)
    slices: str = ""


def find_photos(rows: Sequence[Row], folder: Path) -> list[Path]:
    """Paths of the rows' photos; of a missing photo, the expected path.

    Raises:
        LabelTableError: not one is there.
    """
    files = [find_photo(folder, row["file"]) or folder / row["file"] for row in rows]
    if not any(file.exists() for file in files):
        raise LabelTableError(f"none of the {len(files)} photos is in {folder}; the first should be {rows[0]['file']}")
    return files


def group_rows(rows: Sequence[Row], folder: Path, max_pixels: int) -> IntArray:
    """Group numbers ``(N,)`` by the column `group`; a row without one is in the group of its nearest near-duplicate.

    Photos are only read if a row has no group; one that cannot be read is a group of its own.

    Args:
        rows: from `carcond.data.label_table.read_rows`.
        folder: of the photos.
        max_pixels: limit of width x height of a photo.

    Raises:
        LabelTableError: photos have to be read, and not one is there.
    """
    names = np.array([row.get("group", "").strip() for row in rows])
    _, numbers = np.unique(names, return_inverse=True)
    groups = np.asarray(numbers, dtype=np.int64)
    if np.all(names != ""):
        return groups
    hashes = [_hash(file, max_pixels) for file in find_photos(rows, folder)]
    named = np.flatnonzero(names != "")
    known = [i for i in named if hashes[i] is not None]
    new = [i for i in np.flatnonzero(names == "") if hashes[i] is not None]
    groups[names == ""] = groups.max() + 1 + len(rows) + np.flatnonzero(names == "")
    found = assign_groups(
        [Likeness(hashes[i] or 0) for i in new], [Likeness(hashes[i] or 0) for i in known], groups[known].tolist()
    )
    groups[new] = found
    return groups


def _hash(file: Path, max_pixels: int) -> int | None:
    try:
        return perceptual_hash(decode_photo(file.read_bytes(), target=STATS_SIDE, max_pixels=max_pixels))
    except (OSError, UnreadableImageError):
        return None


def load_dataset(
    rows: Sequence[Row],
    columns: Columns,
    embeddings: FloatArray,
    groups: IntArray,
    unreadable: Sequence[int] = (),
    *,
    rotate: bool = False,
) -> ReplayDataset:
    """Join labels and embeddings.

    Args:
        rows: from `carcond.data.label_table.read_rows`.
        columns: their roles.
        embeddings: ``(N, D)`` of the rows' photos.
        groups: ``(N,)``, see `group_rows`.
        unreadable: positions of rows whose photo cannot be read; they are left out.
        rotate: True to ignore the column `split`: each seed has test photos of its own.

    Raises:
        LabelTableError: the rows cannot be used, or a group is in both train and test.
    """
    kept = np.setdiff1d(np.arange(len(rows)), np.array(unreadable, dtype=np.int64))
    rows = [rows[i] for i in kept]
    labels = task_labels(rows, columns.stand_ins)
    slices = {}
    if columns.slices:
        values = np.array(column_values(rows, columns.slices))
        slices = {str(value): values == value for value in np.unique(values[values != ""])}
    test = None if rotate else measured_rows(rows)
    if test is not None:
        _check_split(rows, groups[kept], test)
    return ReplayDataset(embeddings[kept], labels, groups[kept], test, slices)


def _check_split(rows: Sequence[Row], groups: IntArray, test: BoolArray) -> None:
    crossing = np.intersect1d(groups[test], groups[~test])
    if len(crossing):
        members = np.flatnonzero(groups == crossing[0])
        trained, tested = (rows[members[test[members] == side][0]]["file"] for side in (False, True))
        raise LabelTableError(
            f"expected photos of one group, or near-duplicates, in one split, got {trained} in train and {tested} in "
            f"test, and the same of {len(crossing)} groups in all: correct the column split, or pass --rotate to do "
            "without it"
        )


def embed_rows(
    rows: Sequence[Row], folder: Path, encoder: Encoder, cache_dir: Path, max_pixels: int, *, progress: Progress
) -> tuple[FloatArray, dict[int, str]]:
    """Embeddings ``(N, D)`` of the rows' photos, and position -> why a photo cannot be read.

    Raises:
        LabelTableError: not one photo is there.
    """
    embedded = embed_files(encoder, find_photos(rows, folder), cache_dir, max_pixels, progress)
    return embedded.embeddings, embedded.problems
