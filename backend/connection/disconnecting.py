"""Taking a connection back: what its record says is put as it was, unless somebody has changed it since."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal

import httpx

from backend.connection.changes import (
    MODEL_VERSION,
    Change,
    Place,
    changes_of,
    close_record,
    is_as_changed,
    open_records,
    present_state,
)
from backend.jobs import JobQueue, turns_held
from backend.labelstudio import LabelStudioApi, LabelStudioTask
from backend.ml_backends import BACKEND_TITLE, read_backends, remove_backend
from backend.review import TAB, clear_review
from backend.services import Services
from backend.tabs import read_tabs
from backend.webhooks import read_webhooks, remove_webhook
from carcond.errors import ConnectionRecordError, LabelStudioError, QueueUnavailableError
from carcond.registry import is_ours

Progress = Callable[[int, int], None]
_BATCH = 500


@dataclass(frozen=True)
class Step:
    """What becomes of one change.

    Attributes:
        change: as it was recorded.
        current: what is there now; None for nothing.
        action: `restore` puts back what was before; `done`: that is there already; `leave`: somebody has changed it.
    """

    change: Change
    current: Any
    action: Literal["restore", "done", "leave"]

    def facts(self) -> dict[str, Any]:
        """JSON-ready."""
        return {**self.change.facts(), "current": self.current, "action": self.action}


@dataclass(frozen=True)
class UndoPlan:
    """What undoing would do.

    Attributes:
        project_id: the project.
        steps: in the order in which they are taken, last change first.
        emptied: tasks that nobody has answered with predictions of ours alone: all of them are removed.
        single: ids of our predictions of other unanswered tasks: they are removed too.
        removed: how many predictions that are.
        kept: our predictions of answered tasks, which tell what the annotator was shown.
        review: whether there are marks or the tab of `carcond review` to be taken back.
    """

    project_id: int
    steps: tuple[Step, ...]
    emptied: tuple[int, ...]
    single: tuple[int, ...]
    removed: int
    kept: int
    review: bool

    def facts(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "project": self.project_id,
            "steps": [step.facts() for step in self.steps],
            "predictions_removed": self.removed,
            "predictions_kept": self.kept,
            "review_cleared": self.review,
        }


def plan_undo(services: Services, project_id: int, progress: Progress) -> UndoPlan:
    """Compare the record with what is there.

    Args:
        services: of this process.
        project_id: the project.
        progress: told how many tasks have been read, of how many.

    Raises:
        ConnectionRecordError: there is no record, or it was undone already.
        LabelStudioError: Label Studio cannot be asked.
    """
    found = open_records(services.store, project_id)
    if not found:
        raise ConnectionRecordError(
            f"project {project_id} was not connected by `carcond connect` as far as the store knows, or that was "
            "undone already: there is nothing to take back. Is DATABASE_URL that of the backend?"
        )
    project = services.api.project(project_id)
    changes = [change for record in found for change in changes_of(record)]
    tasks = []
    for task in services.api.tasks(project_id):
        tasks.append(task)
        progress(len(tasks), project.task_count)
    unanswered = [task for task in tasks if not task.annotations and _ours(task)]
    alone = [task for task in unanswered if len(_ours(task)) == len(task.predictions)]
    mixed = [task for task in unanswered if len(_ours(task)) < len(task.predictions)]
    return UndoPlan(
        project_id,
        tuple(_steps(services.api, project_id, changes)),
        tuple(task.id for task in alone),
        tuple(number for task in mixed for number in _ours(task)),
        sum(len(_ours(task)) for task in unanswered),
        sum(len(_ours(task)) for task in tasks if task.annotations),
        any(p.mislabeling for task in tasks for p in task.predictions if is_ours(p.model_version))
        or any(tab.title == TAB for tab in read_tabs(services.api, project_id)),
    )


def _ours(task: LabelStudioTask) -> list[int]:
    return [prediction.id for prediction in task.predictions if is_ours(prediction.model_version)]


def disconnect(
    services: Services, queue: JobQueue, project_id: int, by: str, progress: Progress
) -> tuple[UndoPlan, list[Step]]:
    """Take a connection back, serve the project no longer, and close its records. Labels, versions and photos stay.

    What it was cut off in is finished by doing it again.

    Args:
        services: of this process.
        queue: of jobs; without Redis no job can begin, and it goes on.
        project_id: the project.
        by: who asked for it.
        progress: told how much is read, and then removed, of how much.

    Returns:
        What was done, and the steps that Label Studio did not allow: what was there before is gone.

    Raises:
        ConnectionRecordError: there is no record, or it was undone already.
        LabelStudioError: Label Studio refused or is not there.
    """
    with suppress(QueueUnavailableError):
        queue.nudge(project_id)  # a long refresh gives way; the turn finds the project let go
    with turns_held(queue, project_id):
        plan = plan_undo(services, project_id, progress)
        if plan.review:
            clear_review(services.api, project_id)
        refused = _restore(services.api, project_id, [step for step in plan.steps if step.action == "restore"])
        _remove_predictions(services.api, plan, progress)
        for record in open_records(services.store, project_id):
            close_record(services.store, record, by)
        services.store.retire_project(project_id)
    return plan, refused


def take_back(api: LabelStudioApi, project_id: int, changes: Sequence[Change]) -> None:
    """Take changes back that were made a moment ago."""
    steps = [step for step in _steps(api, project_id, changes) if step.action == "restore"]
    _restore(api, project_id, steps)


def _steps(api: LabelStudioApi, project_id: int, changes: Sequence[Change]) -> list[Step]:
    state: dict[Place, Any] = {}
    project = api.project(project_id)
    for url in {change.name for change in changes if change.kind == "backend"} or {""}:
        state |= present_state(api, project, url)
    steps = []
    for change in reversed(changes):
        current = state.get(change.place)
        action: Literal["restore", "done", "leave"]
        if current == change.before:
            action = "done"
        elif change.kind != "setting" and change.before is None:
            action = "restore"  # what points at our backend is ours
        elif change.kind == "backend":
            action = "leave"  # what it had for a password is not known
        else:
            action = "restore" if is_as_changed(change, current) else "leave"
        steps.append(Step(change, current, action))
        if action == "restore":
            state[change.place] = change.before
    return steps


def _restore(api: LabelStudioApi, project_id: int, steps: Sequence[Step]) -> list[Step]:
    """Put back what was there, the webhook first: nothing shall be called that is not there any more.

    Returns:
        The steps that could not be taken.
    """
    changes = [step.change for step in steps]
    for change in changes:
        if change.kind == "webhook":
            _restore_webhook(api, project_id, change)
    for change in changes:
        if change.kind == "backend" and change.before is None:
            _remove_backend(api, project_id, change)
    settings = {change.name: change.before for change in changes if change.kind == "setting"}
    version = settings.pop(MODEL_VERSION, None)
    if settings:
        api.update_project(project_id, **settings)
    if version is None or _serve(api, project_id, version):
        return []
    return [step for step in steps if step.change.name == MODEL_VERSION]


def _remove_backend(api: LabelStudioApi, project_id: int, change: Change) -> None:
    for row in read_backends(api, project_id):
        if (row["title"], row["url"]) == (BACKEND_TITLE, change.name):
            remove_backend(api, row)


def _serve(api: LabelStudioApi, project_id: int, version: str) -> bool:
    """Serve the version of before; without its predictions, which somebody may have deleted, there is none to serve."""
    try:
        api.update_project(project_id, **{MODEL_VERSION: version})
    except LabelStudioError as error:
        if error.status != httpx.codes.BAD_REQUEST:
            raise
        api.update_project(project_id, **{MODEL_VERSION: ""})
        return False
    return True


def _restore_webhook(api: LabelStudioApi, project_id: int, change: Change) -> None:
    for hook in read_webhooks(api, project_id):
        if hook["url"] != change.name:
            continue
        if change.before is None:
            remove_webhook(api, hook)
        else:
            fields: Mapping[str, Any] = {k: v for k, v in change.before.items() if k != "carries_password"}
            api.request("PATCH", f"/api/webhooks/{hook['id']}/", json={"url": hook["url"], **fields})


def _remove_predictions(api: LabelStudioApi, plan: UndoPlan, progress: Progress) -> None:
    """By task where all are ours, hundreds at once; else one by one."""
    total = len(plan.emptied) + len(plan.single)
    action = {"id": "delete_tasks_predictions", "project": plan.project_id}
    for start in range(0, len(plan.emptied), _BATCH):
        batch = list(plan.emptied[start : start + _BATCH])
        selected = {"selectedItems": {"all": False, "included": batch}}
        api.request("POST", "/api/dm/actions/", json=selected, params=action)
        progress(start + len(batch), total)
    for done, prediction_id in enumerate(plan.single, start=1):
        try:
            api.delete_prediction(prediction_id)
        except LabelStudioError as error:
            if error.status != httpx.codes.NOT_FOUND:  # somebody was faster
                raise
        progress(len(plan.emptied) + done, total)
