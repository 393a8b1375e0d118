"""Reading Label Studio's news into the store. Label Studio is the truth; an event is only a nudge."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial

from backend.label_config import LabelBinding
from backend.labelstudio import LabelStudioApi, LabelStudioTask, ProjectInfo, StoredPrediction
from carcond.settings import Settings
from carcond.store import Store, TaskMirror
from carcond.tables import AnnotationRow, PredictionRow

# A change is stamped before it can be seen: read a little of the past again, so that a slow
# transaction is not passed by.
_OVERLAP = timedelta(seconds=5)
_BATCH = 500


@dataclass(frozen=True)
class SyncReport:
    """What was read: how many tasks had news, and how many were found deleted."""

    changed: int
    deleted: int


def sync_project(
    api: LabelStudioApi, store: Store, project: ProjectInfo, binding: LabelBinding, settings: Settings
) -> SyncReport:
    """Bring the store's mirror of one project up to date.

    Reads the tasks that changed since the last time; a change includes annotations made, changed or
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
        unseen = present - {photo.task_id for photo in store.photos(project.id)}
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
    """Mirror the tasks that changed since then, all when it is None. Returns how many."""
    newest = since or ""
    changed = 0
    for batch in _batches(api.tasks(project.id, changed_since=since)):
        store.mirror_tasks(project.id, [mirror(task) for task in batch])
        changed += len(batch)
        newest = max([newest, *(task.updated_at for task in batch)])
    if newest != since:
        store.mark_read(project.id, max(_before(newest), since or "") if newest else None, project.label_config)
    return changed


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
            )
            for annotation in task.annotations
        ],
        predictions=[prediction_row(project_id, prediction) for prediction in task.predictions],
    )


def _text(value: object) -> str | None:
    """A name or a number of a task's data as text; anything else names nothing."""
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
