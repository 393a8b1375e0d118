"""What the store knows of a project at one moment."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from carcond.examples import merge_annotations
from carcond.heads import FloatArray, IntArray
from carcond.labels import MergedLabel
from carcond.registry import is_ours
from carcond.store import Store
from carcond.tables import Photo


@dataclass(frozen=True)
class Snapshot:
    """A project's photos, labels and embeddings.

    Attributes:
        encoder_id: whose embeddings these are.
        photos: the deleted ones too: a group keeps its side when its labelled photos are gone.
        labels: task id -> merged label.
        skipped: task ids that were skipped and not labelled.
        task_ids: ``(P,)`` of the embeddings, ascending.
        embeddings: ``(P, D)``.
    """

    encoder_id: str
    photos: Sequence[Photo]
    labels: Mapping[int, MergedLabel]
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
        """Task ids that have an embedding and want a label. Skipped ones go to the end of the line."""
        return set(self.task_ids.tolist()) - self.labels.keys() - self.skipped


def asked_for(store: Store, project_id: int) -> set[int]:
    """Task ids of which Label Studio holds a prediction of ours: their labels may have been chosen by a model."""
    rows = store.predictions(project_id)
    return {row.task_id for row in rows if is_ours(row.model_version)}
