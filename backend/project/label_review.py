"""Writing suspected labels back, so that people see in Label Studio which photos to review.

Each suspected photo's prediction gets the suspicion as its `mislabeling`, the field that Label Studio has for it.
Its Data Manager can neither show nor order by that field, but it can order by when a task changed, and writing the
field changes the task. So the least suspicious photo is written first, and the tab shows those first that changed
last. A photo that anybody labels again has changed since: it leaves the tab at once, and is not shown again.

A separate prediction states the doubt: the name of its version is "doubt: labelled damaged but looks
intact", which Label Studio shows in the tab's list and as a tab of the opened photo, with the suspicion as its score.
It carries the slot of the photo's other predictions, of which Label Studio counts the greatest. Nothing else of these
is touched: version, score and slot, by which Label Studio serves the queue, stay as they are. Predictions of other
models are left alone.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import httpx

from backend.label_studio.annotator_names import annotators_of, known_names
from backend.label_studio.client import LabelStudioApi, LabelStudioTask, PredictionDraft, StoredPrediction
from backend.label_studio.data_manager import put_tab, remove_tab, unchanged_tasks
from backend.label_studio.label_config import LabelBinding, bind_label_config
from backend.label_studio.people import name_of
from backend.label_studio.way_in import browser_base, tab_url, task_url
from backend.services import Services
from carcond.analysis.anchoring import anchoring_facts
from carcond.analysis.label_errors import Suspect, TaskSuspicion, rank_suspects, suspect_labels
from carcond.analysis.label_quality import RatedPhoto, quality_report, suspect_facts
from carcond.data.annotations import ConsensusLabel
from carcond.data.dataset import LabelledSet, labelled_set, merge_annotations
from carcond.data.images import ImageStats
from carcond.data.split import HOLDOUT
from carcond.errors import LabelConfigError, LabelStudioError
from carcond.registry.registry import is_ours
from carcond.store.tables import Photo
from carcond.taxonomy import TASK_BY_KEY, name_in

TAB = "Look again"
"""Title of the tab."""

_DOUBT = {"en": "doubt: ", "ru": "сомнение: "}
# Without commas: Label Studio's list splits the names of versions at them.
_SENTENCES = {"en": "labelled {given} but looks {likely}", "ru": "отмечено «{given}» но похоже на «{likely}»"}


@dataclass(frozen=True)
class DoubtfulPhoto:
    """A photo to review.

    Attributes:
        task_id: its id in Label Studio.
        doubts: its suspected labels, most suspicious first.
    """

    task_id: int
    doubts: Sequence[Suspect]

    @property
    def suspicion(self) -> float:
        """Suspicion of its most suspicious label, 0..1."""
        return self.doubts[0].suspicion


@dataclass(frozen=True)
class Review:
    """Evaluation of a project's labels.

    Attributes:
        labelled: the labels.
        suspicions: task key -> their suspicions.
        photos: those with a suspected label, most suspicious first.
    """

    labelled: LabelledSet
    suspicions: dict[str, TaskSuspicion]
    photos: Sequence[DoubtfulPhoto]


def review_labels(services: Services, project_id: int) -> Review:
    """Evaluate the labels of a project that the store holds, the hold-out's too: it changes no training."""
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
    """Output of `carcond review`, JSON-ready.

    Args:
        services: whose Label Studio is linked to.
        project_id: the project.
        review: of the project.
        shown: the photos to report.
        tab: id of the tab, None when there is none.

    Returns:
        `judged`, see `carcond.analysis.label_quality.suspect_facts`; `photos`: each with its id `photo`, `suspicion`,
        `link`, and `doubts`: `task`, `given`, `by` (names of those who gave it), `likely`, `suspicion`; and the address
        of the `tab`, or None.
    """
    facts = _suspects(review, known_names(services.api))
    base = browser_base(services.settings)
    photos = [
        {
            "photo": photo.task_id,
            "suspicion": round(photo.suspicion, 4),
            # Who closes the photo is back in the tab that its address names.
            "link": task_url(base, project_id, photo.task_id, tab),
            "doubts": [
                {k: row[k] for k in row if k != "photo"} for row in facts["suspects"] if row["photo"] == photo.task_id
            ],
        }
        for photo in shown
    ]
    return {"judged": facts["judged"], "photos": photos, "tab": tab_url(base, project_id, tab) if tab else None}


def project_facts(services: Services, project_id: int) -> dict[str, Any]:
    """Output of `carcond quality` for a project, from the store's data, JSON-ready; photos by task id.

    See `carcond.analysis.label_quality.quality_report` and `carcond.analysis.label_quality.suspect_facts`, of which
    each suspect has `by`: names of those who gave the label; `annotators`: id -> name, of everybody in the
    agreement; and `anchoring`, see `carcond.analysis.anchoring.anchoring_facts`, with names as `annotator`.
    """
    annotations, photos = services.store.annotations(project_id), services.store.photos(project_id)
    labels = merge_annotations(annotations)
    rated = [_rated(photo, labels.get(photo.task_id)) for photo in photos]
    known = known_names(services.api)
    report = quality_report(rated)
    suspects = _suspects(review_labels(services, project_id), known)
    found = anchoring_facts(annotations, {photo.task_id for photo in photos if photo.side == HOLDOUT})
    anchoring = {
        task: [
            {**row, "annotator": None if row["annotator"] is None else name_of(known, row["annotator"])} for row in rows
        ]
        for task, rows in found.items()
    }
    return report | suspects | {"annotators": annotators_of(report["agreement"], known), "anchoring": anchoring}


def _suspects(review: Review, known: Mapping[int, str]) -> dict[str, Any]:
    """Facts of suspected labels, see `suspect_facts`, with the names of those who gave them."""
    by_photo = {example.task_id: example for example in review.labelled.usable}
    facts = suspect_facts(review.suspicions, review.labelled.classes, list(by_photo))
    suspects = []
    for row in facts["suspects"]:
        said = by_photo[row["photo"]].label.opinions
        by = [name_of(known, user) for user, classes in said.items() if classes.get(row["task"]) == row["given"]]
        suspects.append({**row, "by": by})
    return {**facts, "suspects": suspects}


def _rated(photo: Photo, label: ConsensusLabel | None) -> RatedPhoto:
    measures = (photo.width, photo.height, photo.sharpness, photo.brightness)
    return RatedPhoto(
        photo.task_id,
        None if None in measures else ImageStats(*measures),  # type: ignore[arg-type] # none of them is None
        int(photo.phash, 16) if photo.phash else None,
        photo.problem,
        label.classes if label else {},
        label.opinions if label else {},
    )


def photos_to_show(tasks: Sequence[LabelStudioTask], photos: Sequence[DoubtfulPhoto]) -> list[DoubtfulPhoto]:
    """Photos that still have a label which nobody has reviewed since it was marked."""
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
    """True if an annotation was written after the mark: its author has reviewed the photo."""
    marks = [*_doubts(task), *(prediction for prediction in _our_predictions(task) if prediction.mislabeling)]
    marked = [datetime.fromisoformat(prediction.updated_at) for prediction in marks]
    answered = [datetime.fromisoformat(annotation.updated_at) for annotation in task.annotations]
    return bool(marked and answered) and max(answered) > max(marked)


def write_review(
    api: LabelStudioApi, project_id: int, photos: Sequence[DoubtfulPhoto], top: int
) -> tuple[int | None, list[DoubtfulPhoto]]:
    """Mark the first photos to show, and show them in the tab; photos that are doubtful no longer lose their mark.

    Args:
        api: Label Studio's client.
        project_id: whose photos.
        photos: the doubtful ones, most suspicious first.
        top: maximum number of photos shown.

    Returns:
        The tab's id, None when there is nothing to review, and no tab; and the photos shown.

    Raises:
        LabelStudioError: Label Studio refused or is unreachable; running it again repairs the state.
    """
    tasks = {task.id: task for task in api.tasks(project_id)}
    shown = photos_to_show(list(tasks.values()), photos)[:top]
    written = {photo.task_id for photo in shown}
    # The mark of a reviewed photo shows that it was reviewed, as long as it is doubtful.
    looked_at = {photo.task_id for photo in photos if photo.task_id in tasks and _looked_at(tasks[photo.task_id])}
    _unmark(api, list(tasks.values()), keep=written | looked_at)
    if not shown:
        remove_tab(api, project_id, TAB)
        return None, []
    before = max(task.updated_at for task in tasks.values())
    binding = _binding(api, project_id)
    for photo in reversed(shown):
        _mark(api, tasks[photo.task_id], photo, binding)
    changed = [task.updated_at for task in api.tasks(project_id, changed_since=before) if task.id in written]
    # One annotation names a task; with all of them the tab would show it once for each.
    named = [_answers(tasks[photo.task_id])[-1] for photo in shown]
    return put_tab(api, project_id, unchanged_tasks(TAB, named, max(changed, default=before))), shown


def clear_review(api: LabelStudioApi, project_id: int) -> None:
    """Remove all marks and the tab."""
    _unmark(api, list(api.tasks(project_id)), keep=set())
    remove_tab(api, project_id, TAB)


def _binding(api: LabelStudioApi, project_id: int) -> LabelBinding | None:
    try:
        return bind_label_config(api.project(project_id).label_config)
    except LabelConfigError:  # it asks for neither task any more: the doubts are shown without answers
        return None


def _mark(api: LabelStudioApi, task: LabelStudioTask, photo: DoubtfulPhoto, binding: LabelBinding | None) -> None:
    """Write the doubts and the suspicion. Either makes the task look changed."""
    ours, doubts = _our_predictions(task), _doubts(task)
    draft = _doubt_draft(photo, binding, max((p.slot for p in ours if p.slot is not None), default=None))
    try:
        if doubts:
            api.update_prediction(doubts[0].id, draft)
        else:
            api.create_prediction(draft)
    except LabelStudioError as error:
        if error.status not in (httpx.codes.NOT_FOUND, httpx.codes.BAD_REQUEST):  # the photo was deleted a moment ago
            raise
    if ours:
        _patch(api, f"/api/predictions/{ours[0].id}/", {"mislabeling": round(photo.suspicion, 4)})


def _doubt_draft(photo: DoubtfulPhoto, binding: LabelBinding | None, slot: int | None) -> PredictionDraft:
    """Prediction that states the doubt; its answers are the model's."""
    language = binding.language if binding else "en"
    told = []
    for doubt in photo.doubts:
        task = TASK_BY_KEY[doubt.task]
        given, likely = (name_in(language, task.condition(key)) for key in (doubt.given, doubt.likely))
        told.append(_SENTENCES[language].format(given=given, likely=likely))
    answers = {doubt.task: (doubt.likely, round(doubt.suspicion, 4)) for doubt in photo.doubts}
    words = " / ".join(told)
    result = binding.result(answers) if binding else []
    if binding and binding.confidence_to:
        result += binding.confidence_regions(words)
    return PredictionDraft(photo.task_id, result, round(photo.suspicion, 4), _DOUBT[language] + words, slot)


def _doubts(task: LabelStudioTask) -> list[StoredPrediction]:
    return [p for p in task.predictions if p.model_version.startswith(tuple(_DOUBT.values()))]


def _our_predictions(task: LabelStudioTask) -> list[StoredPrediction]:
    return [prediction for prediction in task.predictions if is_ours(prediction.model_version)]


def _unmark(api: LabelStudioApi, tasks: Sequence[LabelStudioTask], keep: set[int]) -> None:
    for task in tasks:
        if task.id in keep:
            continue
        for prediction in _our_predictions(task):
            if prediction.mislabeling:
                _patch(api, f"/api/predictions/{prediction.id}/", {"mislabeling": 0.0})
        # The open page of an unlabelled photo submits the id of a prediction, which then has to be there.
        for prediction in _doubts(task) if _answers(task) else ():
            _delete(api, prediction.id)


def _delete(api: LabelStudioApi, prediction_id: int) -> None:
    try:
        api.delete_prediction(prediction_id)
    except LabelStudioError as error:
        if error.status != httpx.codes.NOT_FOUND:  # somebody deleted it a moment ago
            raise


def _patch(api: LabelStudioApi, path: str, change: dict[str, float]) -> None:
    try:
        api.request("PATCH", path, json=change)
    except LabelStudioError as error:
        if error.status != httpx.codes.NOT_FOUND:  # somebody deleted it a moment ago
            raise
