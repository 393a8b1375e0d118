"""Learning curve, forecast and labels saved of a project, measured on the labels that the store has now."""

from typing import Any

from backend.services import Services
from backend.snapshot import model_selected_tasks
from carcond.analysis.forecast import forecast
from carcond.analysis.holdout_curve import holdout_curve
from carcond.analysis.labels_saved import labels_saved
from carcond.analysis.learning_curve import Origin, label_histories
from carcond.data.annotations import ConsensusLabel
from carcond.data.dataset import LabelledSet, labelled_set, merge_annotations
from carcond.errors import EncoderError
from carcond.store.tables import AnnotationRow, Photo


def learning_facts(services: Services, project_id: int) -> dict[str, Any]:
    """Learning curve, forecast and labels saved, JSON-ready; takes seconds with a thousand labels.

    Returns:
        - `labels`: photos in `train` and `holdout`, and those `unusable`, now: newer than a card's may be.
        - `curve`: task -> see `carcond.analysis.holdout_curve.holdout_curve`.
        - `forecast`: task -> see `carcond.analysis.forecast.Forecast.as_json`.
        - `labels_saved`: task -> see `carcond.analysis.labels_saved.LabelsSaved.as_json`.
    """
    annotations, photos = services.store.annotations(project_id), services.store.photos(project_id)
    merged = merge_annotations(annotations)
    labelled = _labelled(services, project_id, photos, merged)
    labels = _label_counts(labelled, len(merged))
    if labelled is None:
        return {"labels": labels, "curve": {}, "forecast": {}, "labels_saved": {}}
    histories = label_histories(labelled, _origins(services, project_id, photos, annotations, labelled))
    return {
        "labels": labels,
        "curve": {task: holdout_curve(history) for task, history in histories.items()},
        "forecast": {task: forecast(history).as_json() for task, history in histories.items()},
        "labels_saved": {task: labels_saved(history).as_json() for task, history in histories.items()},
    }


def _labelled(
    services: Services, project_id: int, photos: list[Photo], labels: dict[int, ConsensusLabel]
) -> LabelledSet | None:
    """Labelled photos; None when there is no encoder yet."""
    version = services.registry(project_id).current()
    try:
        encoder_id = version.heads.encoder_id if version else services.encoder_id()
    except EncoderError:
        return None
    task_ids, embeddings = services.store.embeddings(project_id, encoder_id)
    return labelled_set(photos, labels, task_ids, embeddings)


def _label_counts(labelled: LabelledSet | None, total: int) -> dict[str, int]:
    held = int(labelled.holdout.sum()) if labelled else 0
    usable = len(labelled.holdout) if labelled else 0
    return {"train": usable - held, "holdout": held, "unusable": total - usable}


def _origins(
    services: Services,
    project_id: int,
    photos: list[Photo],
    annotations: list[AnnotationRow],
    labelled: LabelledSet,
) -> dict[int, Any]:
    asked = model_selected_tasks(services.store, project_id)
    # Annotations are numbered as they are made; their times move when one is corrected.
    made: dict[int, int] = {}
    for row in annotations:
        if not row.cancelled:
            made.setdefault(row.task_id, row.annotation_id)
    # One photo of each group, the first that was labelled: two of one car tell less than two random photos.
    first: dict[int | None, int] = {}
    for photo in sorted((p for p in photos if p.drawn and p.task_id in made), key=lambda p: made[p.task_id]):
        first.setdefault(photo.group, photo.task_id)
    drawn = set(first.values())
    return {
        e.task_id: Origin(made[e.task_id], drawn=e.task_id in drawn, imported=e.task_id not in asked)
        for e in labelled.usable
    }
