"""What the loop knows of a project's photos, as arrays: a million photos are a few dozen megabytes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from carcond.arrays import BoolArray, DoubleArray, FloatArray, IntArray
from carcond.data.split import HOLDOUT, TRAIN, photo_draw
from carcond.registry.version_names import is_ours
from carcond.store.changes import PhotoRows, PredictionRows

NONE = -1
"""Group, slot, or row of an embedding, where there is none."""

SIDES: Sequence[str | None] = (None, TRAIN, HOLDOUT)
"""Splits by their codes."""


@dataclass(frozen=True)
class HeldPredictions:
    """Our predictions as Label Studio holds them, in no order.

    Attributes:
        task_ids: ``(P,)``.
        versions: ``(P,)`` positions in `names`.
        slots: ``(P,)``, `NONE` for none.
        scores: ``(P,)``, 0 for none.
        names: of the versions ``(V,)``.
    """

    task_ids: IntArray
    versions: IntArray
    slots: IntArray
    scores: DoubleArray
    names: npt.NDArray[np.str_]

    @classmethod
    def of(cls, rows: PredictionRows) -> Self:
        """Our predictions among those that the store has read."""
        ours = np.array([is_ours(version) for version in rows.versions], dtype=np.bool_)
        kept = np.flatnonzero(ours).tolist()
        named = np.array([rows.versions[i] for i in kept], dtype=np.str_)
        names, versions = np.unique(named, return_inverse=True)
        slots = [rows.slots[i] for i in kept]
        return cls(
            rows.task_ids[ours],
            versions.astype(np.int64),
            np.array([NONE if slot is None else slot for slot in slots], dtype=np.int64),
            rows.scores[ours],
            names,
        )

    @classmethod
    def joined(cls, parts: "Sequence[HeldPredictions]") -> Self:
        """Predictions of several parts, at least one."""
        names = np.unique(np.concatenate([part.names[np.unique(part.versions)] for part in parts]))  # those in use
        versions = [np.searchsorted(names, part.names)[part.versions] for part in parts]
        return cls(
            np.concatenate([part.task_ids for part in parts]),
            np.concatenate(versions),
            np.concatenate([part.slots for part in parts]),
            np.concatenate([part.scores for part in parts]),
            names,
        )

    def replaced(self, task_ids: IntArray, new: "HeldPredictions") -> "HeldPredictions":
        """These, but of some tasks ``(T,)``, in ascending order, the new ones."""
        kept = ~is_among(self.task_ids, task_ids)
        left = replace(
            self,
            task_ids=self.task_ids[kept],
            versions=self.versions[kept],
            slots=self.slots[kept],
            scores=self.scores[kept],
        )
        return HeldPredictions.joined([left, new])

    def of_version(self, version: str) -> BoolArray:
        """``(P,)``, True for predictions of a version."""
        return np.asarray((self.names == version)[self.versions], dtype=np.bool_)


@dataclass(frozen=True)
class PoolFacts:
    """A project's photos, the deleted ones too, in order of task id.

    Attributes:
        task_ids: ``(N,)``.
        changes: ``(N,)``, see `carcond.store.changes`.
        places: ``(N,)`` rows of their embeddings, `NONE` without one.
        groups: ``(N,)``, `NONE` for none.
        sides: ``(N,)`` codes of the splits, see `SIDES`.
        drawn: ``(N,)``, True for photos that were sampled for the hold-out.
        gone: ``(N,)``, True for photos that are not in Label Studio any more.
        has_problem: ``(N,)``, True for photos that cannot be used.
        draws: ``(N,)``, see `carcond.data.split.photo_draw`.
        held: our predictions.
    """

    task_ids: IntArray
    changes: IntArray
    places: IntArray
    groups: IntArray
    sides: npt.NDArray[np.int8]
    drawn: BoolArray
    gone: BoolArray
    has_problem: BoolArray
    draws: FloatArray
    held: HeldPredictions

    @classmethod
    def empty(cls) -> Self:
        """No photo."""
        numbers, flags = np.empty(0, dtype=np.int64), np.empty(0, dtype=np.bool_)
        names = np.empty(0, dtype="<U1")
        held = HeldPredictions(numbers, numbers, numbers, np.empty(0, dtype=np.float64), names)
        draws = np.empty(0, dtype=np.float32)
        return cls(numbers, numbers, numbers, numbers, flags.astype(np.int8), flags, flags, flags, draws, held)

    @classmethod
    def of(cls, project_id: int, photos: PhotoRows, places: IntArray, held: HeldPredictions) -> Self:
        """What the store says of some photos.

        Args:
            project_id: of the photos.
            photos: in order of task id.
            places: rows of their embeddings.
            held: our predictions of theirs.
        """
        draws = [photo_draw(project_id, task_id) for task_id in photos.task_ids.tolist()]
        return cls(
            photos.task_ids,
            photos.changes,
            places,
            photos.groups,
            np.array([SIDES.index(side) for side in photos.sides], dtype=np.int8),
            photos.drawn,
            photos.gone,
            photos.has_problem,
            np.array(draws, dtype=np.float32),
            held,
        )

    @classmethod
    def joined(cls, parts: "Sequence[PoolFacts]") -> Self:
        """Facts of several parts, at least one, each with greater task ids than the one before."""
        columns = {name: np.concatenate([getattr(part, name) for part in parts]) for name in _COLUMNS}
        return cls(**columns, held=HeldPredictions.joined([part.held for part in parts]))

    def merged(self, changed: "PoolFacts") -> "PoolFacts":
        """These, with other facts of the photos that are new or have changed."""
        new = changed.task_ids[~is_among(changed.task_ids, self.task_ids)]
        task_ids = np.sort(np.concatenate([self.task_ids, new]), kind="stable")
        old_at, changed_at = np.searchsorted(task_ids, self.task_ids), np.searchsorted(task_ids, changed.task_ids)
        columns = {}
        for name in _COLUMNS:
            column = np.empty(len(task_ids), dtype=getattr(self, name).dtype)
            column[old_at] = getattr(self, name)
            column[changed_at] = getattr(changed, name)
            columns[name] = column
        return replace(self, **columns, held=self.held.replaced(changed.task_ids, changed.held))

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """All arrays by name."""
        held = {f"held_{name}": getattr(self.held, name) for name in _HELD_COLUMNS}
        return {name: getattr(self, name) for name in _COLUMNS} | held

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, npt.NDArray[Any]]) -> Self:
        """The inverse of `arrays`.

        Raises:
            KeyError: one is missing.
        """
        held = HeldPredictions(*(arrays[f"held_{name}"] for name in _HELD_COLUMNS))
        return cls(**{name: arrays[name] for name in _COLUMNS}, held=held)


_HELD_COLUMNS = [field.name for field in fields(HeldPredictions)]
_COLUMNS = [field.name for field in fields(PoolFacts) if field.name != "held"]


def is_among(values: IntArray, ascending: IntArray) -> BoolArray:
    """``(N,)``, True for values ``(N,)`` that are among others, which are in ascending order."""
    if not len(ascending):
        return np.zeros(len(values), dtype=np.bool_)
    place = np.minimum(np.searchsorted(ascending, values), len(ascending) - 1)
    return np.asarray(ascending[place] == values, dtype=np.bool_)
