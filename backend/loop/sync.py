"""Sync of Label Studio's changes into the store. Label Studio is the source of truth; an event only requests a turn."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial

import httpx

from backend.label_studio.client import LabelStudioApi, LabelStudioTask, ProjectInfo, StoredPrediction
from backend.label_studio.label_config import LabelBinding
from backend.label_studio.prelabels import read_prelabels
from carcond.errors import LabelStudioError
from carcond.registry.version_names import COLD_START_VERSION, SUPERSEDED_VERSION, is_ours
from carcond.settings import Settings
from carcond.store.store import Store, TaskMirror
from carcond.store.tables import AnnotationRow, PredictionRow

REFUSED = (httpx.codes.BAD_REQUEST, httpx.codes.NOT_FOUND)
"""Label Studio's answers to a change of what was deleted a moment ago."""

# A change is stamped before it becomes visible: read the last seconds again, so that a slow
# transaction is not missed.
_OVERLAP = timedelta(seconds=5)
_BATCH = 500


@dataclass(frozen=True)
class SyncReport:
    """Number of tasks that had changed, and number of tasks found deleted."""

    changed: int
    deleted: int


def sync_project(
    api: LabelStudioApi, store: Store, project: ProjectInfo, binding: LabelBinding, settings: Settings
) -> SyncReport:
    """Bring the store's mirror of one project up to date.

    Reads the tasks that changed since the last sync; a change includes annotations made, changed or
    deleted. Three things leave no trace in that, and show in the project's counts: deleted tasks, for
    which all ids are compared; tasks of an import that ended long after its tasks were stamped, and
    predictions deleted in bulk, for both of which all tasks are read again.
    """
    state = store.project(project.id)
    mirror = partial(_mirror, project.id, binding, settings)
    # A changed label config can give every old annotation another meaning: read them all again.
    since = state.watermark if state.label_config == project.label_config else None
    changed = _read(api, store, project, mirror, since)
    deleted, unseen = 0, set[int]()
    if store.photo_count(project.id) != project.task_count:
        present = api.task_ids(project.id)
        deleted = store.mark_gone(project.id, present)
        unseen = present - store.task_ids(project.id)
    if since and (unseen or store.prediction_count(project.id) != project.prediction_count):
        changed = _read(api, store, project, mirror, None)
    return SyncReport(changed, deleted)


def _read(
    api: LabelStudioApi,
    store: Store,
    project: ProjectInfo,
    mirror: Callable[[LabelStudioTask], TaskMirror],
    since: str | None,
) -> int:
    """Mirror the tasks that changed since then, all when it is None. Returns their number."""
    newest = since or ""
    changed = 0
    for batch in _batches(api.tasks(project.id, changed_since=since)):
        store.mirror_tasks(project.id, _without_outdated(api, store, project.id, [mirror(task) for task in batch]))
        changed += len(batch)
        newest = max([newest, *(task.updated_at for task in batch)])
    if newest != since:
        store.mark_read(project.id, max(_before(newest), since or "") if newest else None, project.label_config)
    return changed


def _without_outdated(
    api: LabelStudioApi, store: Store, project_id: int, tasks: Sequence[TaskMirror]
) -> list[TaskMirror]:
    """The tasks, after predictions of photos that were exchanged have been taken out of their version.

    In Label Studio before in the store: a process killed in between finds the other address once more.
    """
    known = store.photo_urls(project_id, [task.task_id for task in tasks])
    return [
        replace(task, predictions=[kept for row in task.predictions for kept in _superseded(api, row)])
        if known.get(task.task_id, task.url) != task.url
        else task
        for task in tasks
    ]


def _superseded(api: LabelStudioApi, row: PredictionRow) -> list[PredictionRow]:
    """The prediction as it is afterwards: never deleted, see `backend.loop.publishing`; none when somebody has."""
    if not is_ours(row.model_version) or row.model_version in (COLD_START_VERSION, SUPERSEDED_VERSION):
        return [row]
    try:
        return [prediction_row(row.project_id, api.set_version(row.prediction_id, SUPERSEDED_VERSION))]
    except LabelStudioError as error:
        if error.status not in REFUSED:
            raise
        return []


def _mirror(project_id: int, binding: LabelBinding, settings: Settings, task: LabelStudioTask) -> TaskMirror:
    return TaskMirror(
        task_id=task.id,
        url=str(task.data.get(binding.image_key) or ""),
        source=_text(task.data.get(settings.source_field)),
        car=_text(task.data.get(settings.car_field)),
        annotations=[
            AnnotationRow(
                project_id=project_id,
                annotation_id=annotation.id,
                task_id=task.id,
                annotator=annotation.annotator,
                updated_at=annotation.updated_at,
                cancelled=annotation.cancelled,
                classes=binding.labels(annotation.result),
                prelabels=read_prelabels(binding, annotation.result, task.predictions),
            )
            for annotation in task.annotations
        ],
        predictions=[prediction_row(project_id, prediction) for prediction in task.predictions],
    )


def _text(value: object) -> str | None:
    """A name or a number of a task's data as text; None for any other value."""
    if isinstance(value, bool) or not isinstance(value, str | int):
        return None
    return str(value).strip() or None


def prediction_row(project_id: int, prediction: StoredPrediction) -> PredictionRow:
    """The store's mirror of a prediction that Label Studio holds."""
    return PredictionRow(
        project_id=project_id,
        prediction_id=prediction.id,
        task_id=prediction.task_id,
        model_version=prediction.model_version,
        score=prediction.score,
        slot=prediction.slot,
    )


def _before(stamp: str) -> str:
    moment = datetime.fromisoformat(stamp) - _OVERLAP
    return moment.isoformat().replace("+00:00", "Z")


def _batches(tasks: Iterator[LabelStudioTask]) -> Iterator[list[LabelStudioTask]]:
    batch: list[LabelStudioTask] = []
    for task in tasks:
        batch.append(task)
        if len(batch) == _BATCH:
            yield batch
            batch = []
    if batch:
        yield batch
