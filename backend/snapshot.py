"""Snapshot of a project's data in the store."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from backend.pool.facts import SIDES, PoolFacts, is_among
from backend.services import Services
from carcond.arrays import BoolArray, FloatArray, IntArray
from carcond.data.annotations import ConsensusLabel
from carcond.data.dataset import merge_annotations
from carcond.data.split import HOLDOUT
from carcond.query.live_queue import Pool
from carcond.registry.registry import is_ours
from carcond.store.embedding_matrix import EmbeddingMatrix
from carcond.store.store import Store
from carcond.store.tables import AnnotationRow


@dataclass(frozen=True)
class Snapshot:
    """A project's photos, labels and embeddings.

    Attributes:
        encoder_id: of the encoder that made the embeddings.
        annotations: all, skipped ones too, in order of id.
        labels: task id -> merged label.
        skipped: task ids that were skipped and not labelled.
        facts: of all photos, the deleted ones too: a group keeps its split when its labelled photos are gone.
        positions: ``(P,)`` in the facts, of the photos in Label Studio that have an embedding.
        embeddings: ``(P, D)`` of these.
    """

    encoder_id: str
    annotations: Sequence[AnnotationRow]
    labels: Mapping[int, ConsensusLabel]
    skipped: set[int]
    facts: PoolFacts
    positions: IntArray
    embeddings: EmbeddingMatrix

    @classmethod
    def take(cls, services: Services, project_id: int, encoder_id: str) -> "Snapshot":
        """Read it from the store, photos that have not changed since the last time from the files of the pool."""
        annotations = services.store.annotations(project_id)
        labels = merge_annotations(annotations)
        skipped = {row.task_id for row in annotations if row.cancelled} - labels.keys()
        pool = services.pool(project_id, encoder_id).read()
        return cls(encoder_id, annotations, labels, skipped, *pool)

    @cached_property
    def task_ids(self) -> IntArray:
        """``(P,)`` of the embeddings, ascending."""
        return self.facts.task_ids[self.positions]

    @cached_property
    def unlabelled(self) -> BoolArray:
        """``(P,)``, True for photos that want a label. Skipped ones go to the end of the queue."""
        wanted = np.ones(len(self.task_ids), dtype=np.bool_)
        wanted[self.rows([*self.labels, *self.skipped])] = False
        return wanted

    def rows(self, task_ids: Collection[int]) -> IntArray:
        """Positions in `task_ids` of some tasks, ascending; those without an embedding are left out."""
        wanted = np.array(sorted(task_ids), dtype=np.int64)
        return np.searchsorted(self.task_ids, wanted[is_among(wanted, self.task_ids)])

    def labelled_embeddings(self) -> tuple[IntArray, FloatArray]:
        """Task ids ``(L,)`` of the labelled photos, ascending, and their embeddings ``(L, D)``."""
        rows = self.rows(self.labels)
        return self.task_ids[rows], self.embeddings[rows]

    def pool(self, kept_slots: Mapping[int, int] | None = None) -> Pool:
        """The photos as the live queue ranks them, in the order of `task_ids`.

        Args:
            kept_slots: task id -> slot 1..C that its photo has to stay in; None for no such photo.
        """
        kept = kept_slots or {}
        slots = np.zeros(len(self.task_ids), dtype=np.int64)
        rows = self.rows(kept)
        slots[rows] = [kept[task_id] for task_id in self.task_ids[rows].tolist()]
        return Pool(
            self.embeddings,
            self.unlabelled,
            self.facts.sides[self.positions] == SIDES.index(HOLDOUT),
            self.facts.draws[self.positions],
            slots,
        )


def model_selected_tasks(store: Store, project_id: int) -> set[int]:
    """Task ids with a prediction of ours in Label Studio: a model may have selected them for labelling."""
    rows = store.predictions(project_id)
    return {row.task_id for row in rows if is_ours(row.model_version)}
