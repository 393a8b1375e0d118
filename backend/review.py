"""Writing suspected labels back, so that people see in Label Studio which photos to look at again.

Each suspected photo's prediction gets the suspicion as its `mislabeling`, the field that Label Studio has for it.
Its Data Manager can neither show nor order by that field, but it can order by when a task changed, and writing the
field changes the task. So the least suspicious photo is written first, and the tab shows those first that changed
last. A photo that anybody labels anew has changed since: it leaves the tab at once, and is not shown again.

Nothing else of a prediction is touched, and none is made or removed: version, score and slot, by which Label Studio
serves the queue, stay as they are. Predictions of other models are left alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import httpx

from backend.labelstudio import LabelStudioApi, LabelStudioTask, StoredPrediction
from backend.services import Services
from backend.tabs import put_tab, remove_tab
from carcond.errors import LabelStudioError
from carcond.examples import LabelledSet, labelled_set, merge_annotations
from carcond.images import Look
from carcond.labels import MergedLabel
from carcond.quality import RatedPhoto, quality_report, suspect_facts
from carcond.registry import is_ours
from carcond.suspects import Suspect, TaskSuspicion, rank_suspects, suspect_labels
from carcond.tables import Photo

TAB = "Look again"
"""Title of the tab."""


@dataclass(frozen=True)
class DoubtfulPhoto:
    """A photo to look at again.

    Attributes:
        task_id: its id in Label Studio.
        doubts: its suspected labels, most suspicious first.
    """

    task_id: int
    doubts: Sequence[Suspect]

    @property
    def suspicion(self) -> float:
        """That of its most suspicious label, 0..1."""
        return self.doubts[0].suspicion


@dataclass(frozen=True)
class Review:
    """What is to be thought of a project's labels.

    Attributes:
        labelled: the labels.
        suspicions: task key -> what is thought of them.
        photos: those with a suspected label, most suspicious first.
    """

    labelled: LabelledSet
    suspicions: dict[str, TaskSuspicion]
    photos: Sequence[DoubtfulPhoto]


def review_labels(services: Services, project_id: int) -> Review:
    """Judge the labels of a project, as far as the store knows them, the hold-out's too: it changes no training."""
    version = services.registry(project_id).current()
    encoder_id = version.heads.encoder_id if version else services.encoder_id()
    labels = merge_annotations(services.store.annotations(project_id))
    labelled = labelled_set(
        services.store.photos(project_id), labels, *services.store.embeddings(project_id, encoder_id)
    )
    suspicions = suspect_labels(labelled.embeddings, labelled.classes, labelled.groups)
    doubts: dict[int, list[Suspect]] = {}
    usable = labelled.usable
    for suspect in rank_suspects(suspicions.values(), labelled.classes):
        doubts.setdefault(usable[suspect.position].task_id, []).append(suspect)
    return Review(labelled, suspicions, [DoubtfulPhoto(task_id, found) for task_id, found in doubts.items()])


def review_facts(
    services: Services, project_id: int, review: Review, shown: Sequence[DoubtfulPhoto], tab: int | None
) -> dict[str, Any]:
    """What `carcond review` tells, JSON-ready.

    Args:
        services: whose Label Studio is linked to.
        project_id: the project.
        review: of the project.
        shown: the photos to tell of.
        tab: id of the tab, None when there is none.

    Returns:
        `judged`, see `carcond.quality.suspect_facts`; `photos`: each with its id `photo`, `suspicion`, `link`, and
        `doubts`: `task`, `given`, `likely`, `suspicion`; and the address of the `tab`, or None.
    """
    facts = suspect_facts(review.suspicions, review.labelled.classes, [e.task_id for e in review.labelled.usable])
    base = services.settings.label_studio_host or services.settings.label_studio_url
    page = f"{base.rstrip('/')}/projects/{project_id}/data"
    photos = [
        {
            "photo": photo.task_id,
            "suspicion": round(photo.suspicion, 4),
            "link": f"{page}?task={photo.task_id}",
            "doubts": [
                {k: row[k] for k in row if k != "photo"} for row in facts["suspects"] if row["photo"] == photo.task_id
            ],
        }
        for photo in shown
    ]
    return {"judged": facts["judged"], "photos": photos, "tab": f"{page}?tab={tab}" if tab else None}


def project_facts(services: Services, project_id: int) -> dict[str, Any]:
    """What `carcond quality` tells of a project, as far as the store knows it, JSON-ready; photos by task id.

    See `carcond.quality.quality_report` and `carcond.quality.suspect_facts`.
    """
    labels = merge_annotations(services.store.annotations(project_id))
    rated = [_rated(photo, labels.get(photo.task_id)) for photo in services.store.photos(project_id)]
    review = review_labels(services, project_id)
    names = [example.task_id for example in review.labelled.usable]
    return quality_report(rated) | suspect_facts(review.suspicions, review.labelled.classes, names)


def _rated(photo: Photo, label: MergedLabel | None) -> RatedPhoto:
    measures = (photo.width, photo.height, photo.sharpness, photo.brightness)
    return RatedPhoto(
        photo.task_id,
        None if None in measures else Look(*measures),  # type: ignore[arg-type] # none of them is None
        int(photo.phash, 16) if photo.phash else None,
        photo.problem,
        label.classes if label else {},
        label.opinions if label else {},
    )


def photos_to_show(tasks: Sequence[LabelStudioTask], photos: Sequence[DoubtfulPhoto]) -> list[DoubtfulPhoto]:
    """Those of the photos that still have a label which nobody has looked at since it was marked."""
    by_id = {task.id: task for task in tasks}
    return [
        photo
        for photo in photos
        if photo.task_id in by_id and _answers(by_id[photo.task_id]) and not _looked_at(by_id[photo.task_id])
    ]


def _answers(task: LabelStudioTask) -> list[int]:
    """Ids of the annotations that were not skipped."""
    return [annotation.id for annotation in task.annotations if not annotation.cancelled]


def _looked_at(task: LabelStudioTask) -> bool:
    """Whether an annotation was written after the mark: whoever did that saw the photo, and was asked to look well."""
    marked = [datetime.fromisoformat(p.updated_at) for p in _our_predictions(task) if p.mislabeling]
    answered = [datetime.fromisoformat(annotation.updated_at) for annotation in task.annotations]
    return bool(marked and answered) and max(answered) > max(marked)


def write_review(
    api: LabelStudioApi, project_id: int, photos: Sequence[DoubtfulPhoto], top: int
) -> tuple[int | None, list[DoubtfulPhoto]]:
    """Mark the first photos to show, and show them in the tab; photos that are doubtful no longer lose their mark.

    Args:
        api: the way to Label Studio.
        project_id: whose photos.
        photos: the doubtful ones, most suspicious first.
        top: at most so many are shown.

    Returns:
        The tab's id, None when there is nothing to look at, and no tab; and the photos shown.

    Raises:
        LabelStudioError: Label Studio refused or is not there; running it again makes up for it.
    """
    tasks = {task.id: task for task in api.tasks(project_id)}
    shown = photos_to_show(list(tasks.values()), photos)[:top]
    written = {photo.task_id for photo in shown}
    # The mark of a photo that was looked at is what tells so, as long as it is doubtful.
    looked_at = {photo.task_id for photo in photos if photo.task_id in tasks and _looked_at(tasks[photo.task_id])}
    _unmark(api, list(tasks.values()), keep=written | looked_at)
    if not shown:
        remove_tab(api, project_id, TAB)
        return None, []
    before = max(task.updated_at for task in tasks.values())
    for photo in reversed(shown):
        _mark(api, tasks[photo.task_id], photo.suspicion)
    changed = [task.updated_at for task in api.tasks(project_id, changed_since=before) if task.id in written]
    # One annotation names a task; with all of them the tab would show it once for each.
    named = [_answers(tasks[photo.task_id])[-1] for photo in shown]
    return put_tab(api, project_id, TAB, named, max(changed, default=before)), shown


def clear_review(api: LabelStudioApi, project_id: int) -> None:
    """Take all marks and the tab back."""
    _unmark(api, list(api.tasks(project_id)), keep=set())
    remove_tab(api, project_id, TAB)


def _mark(api: LabelStudioApi, task: LabelStudioTask, suspicion: float) -> None:
    """Write the suspicion; a task without a prediction of ours is only made to look changed."""
    ours = _our_predictions(task)
    if ours:
        _patch(api, f"/api/predictions/{ours[0].id}/", {"mislabeling": round(suspicion, 4)})
    else:
        _patch(api, f"/api/tasks/{task.id}/", {})


def _our_predictions(task: LabelStudioTask) -> list[StoredPrediction]:
    return [prediction for prediction in task.predictions if is_ours(prediction.model_version)]


def _unmark(api: LabelStudioApi, tasks: Sequence[LabelStudioTask], keep: set[int]) -> None:
    for task in tasks:
        for prediction in _our_predictions(task):
            if prediction.mislabeling and task.id not in keep:
                _patch(api, f"/api/predictions/{prediction.id}/", {"mislabeling": 0.0})


def _patch(api: LabelStudioApi, path: str, change: dict[str, float]) -> None:
    try:
        api.request("PATCH", path, json=change)
    except LabelStudioError as error:
        if error.status != httpx.codes.NOT_FOUND:  # somebody deleted it a moment ago
            raise
