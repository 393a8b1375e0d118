"""The queue of a project: which photos Label Studio serves next, and why these."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from backend.pool import chosen_classes
from backend.services import Services
from backend.snapshot import Snapshot
from carcond.acquisition import margin
from carcond.heads import FloatArray
from carcond.registry import COLD_START_VERSION
from carcond.selection import EXPLORATION_SLOT
from carcond.tables import PredictionRow
from carcond.taxonomy import TASK_BY_KEY


@dataclass(frozen=True)
class QueuedPhoto:
    """One photo of the queue.

    Attributes:
        task_id: its id in Label Studio.
        url: where the photo is.
        slot: see docs/queue.md.
        confidence: joint confidence that its pre-labels are right, 0..1; None before the first version.
        answers: task key -> (class key, its probability): what annotators find chosen.
        reason: why it is asked for, in words.
    """

    task_id: int
    url: str
    slot: int
    confidence: float | None
    answers: Mapping[str, tuple[str, float]]
    reason: str


def queued_photos(services: Services, project_id: int, limit: int) -> list[QueuedPhoto]:
    """The first photos of the queue: the slots in turn, and in each slot the lowest score first.

    Where an annotator begins is up to Label Studio: in the slot of which that person has labelled fewest photos.

    Args:
        services: where it is read from. No photo is looked at: heads answer for kept embeddings.
        project_id: the project.
        limit: at most so many.
    """
    version = services.registry(project_id).current()
    encoder_id = version.heads.encoder_id if version else services.encoder_id()
    name = version.name if version else COLD_START_VERSION
    snapshot = Snapshot.take(services.store, project_id, encoder_id)
    unlabelled = snapshot.unlabelled
    rows = [
        row
        for row in services.store.predictions(project_id)
        if row.model_version == name and row.slot is not None and row.task_id in unlabelled
    ]
    first = _in_turn(rows)[:limit]
    at = {task_id: i for i, task_id in enumerate(snapshot.task_ids.tolist())}
    embeddings = snapshot.embeddings[[at[row.task_id] for row in first]]
    probabilities = version.heads.probabilities(embeddings) if version and first else {}
    answers = chosen_classes(probabilities) if probabilities else [{} for _ in first]
    typical = not version or len(snapshot.labels) < services.settings.typical_photos
    urls = {photo.task_id: photo.url for photo in snapshot.photos}
    return [
        QueuedPhoto(
            row.task_id,
            urls[row.task_id],
            row.slot or EXPLORATION_SLOT,
            row.score if version else None,
            answers[i],
            _reason(row, {task: p[i] for task, p in probabilities.items()}, typical),
        )
        for i, row in enumerate(first)
    ]


def _in_turn(rows: list[PredictionRow]) -> list[PredictionRow]:
    """One photo of each slot, then the second of each, and so on."""
    ahead: dict[int, int] = {}
    ranked = []
    for row in sorted(rows, key=lambda row: (row.score or 0, row.task_id)):
        slot = row.slot or EXPLORATION_SLOT
        ranked.append((ahead.get(slot, 0), slot, row))
        ahead[slot] = ahead.get(slot, 0) + 1
    return [row for _, _, row in sorted(ranked, key=lambda each: each[:2])]


def _reason(row: PredictionRow, probabilities: Mapping[str, FloatArray], typical: bool) -> str:
    if (row.slot or EXPLORATION_SLOT) == EXPLORATION_SLOT:
        return "Drawn at random for the hold-out: the model is measured on it and never learns from it."
    if typical:
        return "Typical of many photos of the pool."
    leads = {task: 1 - float(margin(p[np.newaxis, np.newaxis])[0]) for task, p in probabilities.items()}
    task = min(leads, key=lambda key: leads[key])
    first, second = np.argsort(-probabilities[task], kind="stable")[:2]
    classes = TASK_BY_KEY[task].classes
    return (
        f"{TASK_BY_KEY[task].en} is unsure: {classes[first].en} {probabilities[task][first]:.0%}, "
        f"{classes[second].en} {probabilities[task][second]:.0%}."
    )
