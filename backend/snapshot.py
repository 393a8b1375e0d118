"""Snapshot of a project's data in the store."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from carcond.arrays import FloatArray, IntArray
from carcond.data.annotations import ConsensusLabel
from carcond.data.dataset import merge_annotations
from carcond.data.split import HOLDOUT, photo_draw
from carcond.query.live_queue import Pool
from carcond.registry.registry import is_ours
from carcond.store.store import Store
from carcond.store.tables import Photo


@dataclass(frozen=True)
class Snapshot:
    """A project's photos, labels and embeddings.

    Attributes:
        encoder_id: of the encoder that made the embeddings.
        photos: the deleted ones too: a group keeps its split when its labelled photos are gone.
        labels: task id -> merged label.
        skipped: task ids that were skipped and not labelled.
        task_ids: ``(P,)`` of the embeddings, ascending.
        embeddings: ``(P, D)``.
    """

    encoder_id: str
    photos: Sequence[Photo]
    labels: Mapping[int, ConsensusLabel]
    skipped: set[int]
    task_ids: IntArray
    embeddings: FloatArray

    @classmethod
    def take(cls, store: Store, project_id: int, encoder_id: str) -> "Snapshot":
        """Read it from the store."""
        annotations = store.annotations(project_id)
        labels = merge_annotations(annotations)
        skipped = {row.task_id for row in annotations if row.cancelled} - labels.keys()
        task_ids, embeddings = store.embeddings(project_id, encoder_id)
        return cls(encoder_id, store.known_photos(project_id), labels, skipped, task_ids, embeddings)

    @property
    def unlabelled(self) -> set[int]:
        """Task ids that have an embedding and no label. Skipped ones go to the end of the queue."""
        return set(self.task_ids.tolist()) - self.labels.keys() - self.skipped

    def pool(self, kept_slots: Mapping[int, int] | None = None) -> Pool:
        """The photos as the live queue ranks them, in the order of `task_ids`.

        Args:
            kept_slots: task id -> slot 1..C that its photo has to stay in; None for no such photo.
        """
        photos = {photo.task_id: photo for photo in self.photos}
        rows = [photos[task_id] for task_id in self.task_ids.tolist()]
        unlabelled, kept = self.unlabelled, kept_slots or {}
        return Pool(
            self.embeddings,
            np.array([row.task_id in unlabelled for row in rows], dtype=bool),
            np.array([row.side == HOLDOUT for row in rows], dtype=bool),
            np.array([photo_draw(row.project_id, row.task_id) for row in rows], dtype=np.float32),
            np.array([kept.get(row.task_id, 0) for row in rows], dtype=np.int64),
        )


def model_selected_tasks(store: Store, project_id: int) -> set[int]:
    """Task ids with a prediction of ours in Label Studio: a model may have selected them for labelling."""
    rows = store.predictions(project_id)
    return {row.task_id for row in rows if is_ours(row.model_version)}
