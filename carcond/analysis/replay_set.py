"""A labelled set with embeddings, for simulations to replay."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from carcond.arrays import FloatArray, IntArray
from carcond.data.label_studio_export import find_photo
from carcond.data.label_table import BoolArray, Row, TaskLabels, column_values, measured_rows, task_labels
from carcond.errors import LabelTableError
from carcond.model.embedding_cache import Progress, embed_files
from carcond.model.encoder import Encoder


@dataclass(frozen=True)
class ReplayDataset:
    """A labelled set to be replayed.

    Attributes:
        embeddings: ``(N, D)``.
        labels: task key -> classes of the N photos; all tasks are learnt from the same batches.
        test: ``(N,)``, True for photos that are only measured on.
        slices: name -> ``(N,)``, True for photos that are also measured by themselves.
    """

    embeddings: FloatArray
    labels: Mapping[str, TaskLabels]
    test: BoolArray
    slices: Mapping[str, BoolArray] = field(default_factory=dict)

    def pool(self) -> IntArray:
        """Photos that can be labelled: those outside the test split with a known class."""
        known = np.any([labels.known for labels in self.labels.values()], axis=0)
        return np.flatnonzero(known & ~self.test)

    def check(self) -> None:
        """Make sure that each task can be learnt and measured.

        Raises:
            LabelTableError: a task has fewer than two classes to be labelled, or no test photo.
        """
        pool = self.pool()
        for key, labels in self.labels.items():
            known = labels.indices[pool][labels.known[pool]]
            tested = int((self.test & labels.known).sum())
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


def load_dataset(
    rows: Sequence[Row], columns: Columns, embeddings: FloatArray, unreadable: Sequence[int] = ()
) -> ReplayDataset:
    """Join labels and embeddings.

    Args:
        rows: from `carcond.data.label_table.read_rows`.
        columns: their roles.
        embeddings: ``(N, D)`` of the rows' photos.
        unreadable: positions of rows whose photo cannot be read; they are left out.

    Raises:
        LabelTableError: the rows cannot be used.
    """
    kept = np.setdiff1d(np.arange(len(rows)), np.array(unreadable, dtype=np.int64))
    rows = [rows[i] for i in kept]
    labels = task_labels(rows, columns.stand_ins)
    slices = {}
    if columns.slices:
        values = np.array(column_values(rows, columns.slices))
        slices = {str(value): values == value for value in np.unique(values[values != ""])}
    dataset = ReplayDataset(embeddings[kept], labels, measured_rows(rows, labels), slices)
    dataset.check()
    return dataset


def embed_rows(
    rows: Sequence[Row], folder: Path, encoder: Encoder, cache_dir: Path, max_pixels: int, *, progress: Progress
) -> tuple[FloatArray, dict[int, str]]:
    """Embeddings ``(N, D)`` of the rows' photos, and position -> why a photo cannot be read.

    Raises:
        LabelTableError: not one photo is there.
    """
    embedded = embed_files(encoder, find_photos(rows, folder), cache_dir, max_pixels, progress)
    return embedded.embeddings, embedded.problems
