"""The queue of a project: which photos Label Studio serves next, and why these."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from backend.loop.photo_predictions import PhotoPredictions
from backend.loop.predictions import chosen_classes, is_blank, queue_settings, suggested_classes
from backend.services import Services
from backend.snapshot import Snapshot
from carcond.arrays import FloatArray
from carcond.model.heads import joint_confidence
from carcond.model.inference import SURE
from carcond.query.live_queue import Reason, queue_reasons, served_order
from carcond.query.slots import EXPLORATION_SLOT
from carcond.registry.registry import COLD_START_VERSION
from carcond.taxonomy import TASK_BY_KEY


@dataclass(frozen=True)
class QueuedPhoto:
    """One photo of the queue.

    Attributes:
        task_id: its id in Label Studio.
        url: where the photo is.
        slot: see docs/queue.md.
        confidence: joint confidence that the answers of the version are right, 0..1; None before the first version, and
            in the exploration slot, whose order it does not decide.
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
    snapshot = Snapshot.take(services, project_id, encoder_id)
    published = PhotoPredictions(snapshot.task_ids, snapshot.facts.held)
    queued, slots, scores = published.published(name)
    wanted = snapshot.unlabelled[queued]
    first = served_order(queued[wanted], slots, scores)[:limit]
    probabilities = version.heads.probabilities(snapshot.embeddings) if version and len(first) else {}
    pool = snapshot.pool()
    reasons = queue_reasons(pool, probabilities, queue_settings(services.settings), first, slots[first])
    of_first = {task: p[first] for task, p in probabilities.items()}
    answers = chosen_classes(of_first) if probabilities else [{} for _ in first]
    blank = [is_blank(bool(pool.holdout[i]), float(pool.draws[i])) for i in first]
    joint = joint_confidence(of_first) if probabilities else None
    min_confidence = services.settings.prelabel_min_confidence
    task_ids = snapshot.task_ids[first].tolist()
    urls = services.store.photo_urls(project_id, task_ids)
    return [
        QueuedPhoto(
            task_id,
            urls[task_id],
            slot,
            float(joint[i]) if joint is not None and slot != EXPLORATION_SLOT else None,
            suggested_classes(answers[i], blank[i], min_confidence),
            _reason_sentence(reasons[i], {task: p[i] for task, p in of_first.items()}),
        )
        for i, (task_id, slot) in enumerate(zip(task_ids, slots[first].tolist(), strict=True))
    ]


def _reason_sentence(reason: Reason, probabilities: Mapping[str, FloatArray]) -> str:
    if reason.cause == "holdout":
        return "Sampled at random for the hold-out: the model is measured on it and never learns from it."
    if reason.cause == "representative":
        return "Representative of many photos of the pool."
    task = reason.task_key
    first, second = np.argsort(-probabilities[task], kind="stable")[:2]
    classes = TASK_BY_KEY[task].classes
    answers = ", ".join(f"{classes[i].en} {probabilities[task][i]:.0%}" for i in (first, second))
    if probabilities[task][first] < SURE:
        return f"{TASK_BY_KEY[task].en} is unsure: {answers}."
    return f"No photo left is much less sure. Its least sure answer is {TASK_BY_KEY[task].en.lower()}: {answers}."
