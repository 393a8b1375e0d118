"""Undoing a connection: the changes of its record are reverted, unless somebody has changed them since."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, Literal
from urllib.parse import urlsplit

import httpx

from backend.jobs.queue import JobQueue, turns_held
from backend.label_studio.backend_address import BackendAddress
from backend.label_studio.client import LabelStudioApi, LabelStudioTask
from backend.label_studio.data_manager import order_tabs, read_tabs, remove_tab
from backend.label_studio.ml_backends import BACKEND_TITLE, find_ours, read_backends, remove_backend
from backend.label_studio.webhooks import read_webhooks, remove_webhook
from backend.project.connection.changes import (
    MODEL_VERSION,
    Change,
    Place,
    changes_of,
    close_record,
    is_as_changed,
    open_records,
    present_state,
)
from backend.project.label_review import TAB, clear_review
from backend.services import Services
from carcond.errors import ConnectionRecordError, LabelStudioError, QueueUnavailableError
from carcond.registry.registry import is_ours

Progress = Callable[[int, int], None]
_BATCH = 500


@dataclass(frozen=True)
class Step:
    """Undoing of one change.

    Attributes:
        change: as it was recorded.
        current: the present value; None for nothing.
        action: `restore` puts the old value back; `done`: it is there already; `leave`: somebody has changed it.
    """

    change: Change
    current: Any
    action: Literal["restore", "done", "leave"]

    def facts(self) -> dict[str, Any]:
        """JSON-ready."""
        return {**self.change.facts(), "current": self.current, "action": self.action}


@dataclass(frozen=True)
class UndoPlan:
    """Plan of undoing a connection.

    Attributes:
        project_id: the project.
        steps: in the order in which they are taken, last change first.
        emptied: unanswered tasks with predictions of ours alone: all of them are removed.
        single: ids of our predictions of other unanswered tasks: they are removed too.
        removed: number of predictions to remove.
        kept: our predictions of answered tasks, which record the pre-label shown to the annotator.
        review: whether there are marks or the tab of `carcond review` to be removed.
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
    """Compare the record with the present state.

    Args:
        services: of this process.
        project_id: the project.
        progress: receives the number of tasks read so far, and their total.

    Raises:
        ConnectionRecordError: there is no record, or it was undone already.
        LabelStudioError: Label Studio is unreachable.
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
    """Undo a connection, stop serving the project, and close its records. Labels, versions and photos stay.

    After an interruption, running it again finishes the rest.

    Args:
        services: of this process.
        queue: of jobs; without Redis no job can begin, and it continues.
        project_id: the project.
        by: who requested it.
        progress: receives the number of tasks read, then of predictions removed, and their total.

    Returns:
        The plan that was carried out, and the steps that Label Studio did not allow: the old value no longer exists.

    Raises:
        ConnectionRecordError: there is no record, or it was undone already.
        LabelStudioError: Label Studio refused or is unreachable.
    """
    with suppress(QueueUnavailableError):
        queue.request_turn(project_id)  # interrupts a long refresh; the turn finds the project retired
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
    """Revert changes that were made a moment ago."""
    steps = [step for step in _steps(api, project_id, changes) if step.action == "restore"]
    _restore(api, project_id, steps)


def _steps(api: LabelStudioApi, project_id: int, changes: Sequence[Change]) -> list[Step]:
    state: dict[Place, Any] = {}
    project = api.project(project_id)
    ours = find_ours(read_backends(api, project_id))
    changes = [_at_present_address(change, ours["url"]) if ours else change for change in changes]
    for url in {change.name for change in changes if change.kind == "backend"} or {""}:
        state |= present_state(api, project, url)
    steps = []
    for change in reversed(changes):
        current = state.get(change.place)
        action: Literal["restore", "done", "leave"]
        if current == change.before:
            action = "done"
        elif change.kind == "tab" and not is_as_changed(change, current):
            action = "leave"
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


def _at_present_address(change: Change, url: str) -> Change:
    """The change with the backend's present URL, where `scripts/up` has moved it from 127.0.0.1 to another loopback."""
    former = urlsplit(change.name)
    present = urlsplit(url)
    if change.kind not in ("backend", "webhook") or change.before is not None or former.hostname != "127.0.0.1":
        return change
    if former.port != present.port or not (present.hostname or "").startswith("127."):
        return change
    return replace(change, name=url if change.kind == "backend" else BackendAddress(url).webhook_url)


def _restore(api: LabelStudioApi, project_id: int, steps: Sequence[Step]) -> list[Step]:
    """Restore the old values, the webhook first: Label Studio must not call a backend that no longer exists.

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
    _remove_tabs(api, project_id, [change.name for change in changes if change.kind == "tab"])
    settings = {change.name: change.before for change in changes if change.kind == "setting"}
    version = settings.pop(MODEL_VERSION, None)
    if settings:
        api.update_project(project_id, **settings)
    if version is None or _serve(api, project_id, version):
        return []
    return [step for step in steps if step.change.name == MODEL_VERSION]


def _remove_tabs(api: LabelStudioApi, project_id: int, titles: Sequence[str]) -> None:
    """Remove tabs of ours; those of other people keep their order, and are numbered as before."""
    for title in titles:
        remove_tab(api, project_id, title)
    left = [tab.id for tab in read_tabs(api, project_id)] if titles else []
    if left:  # Label Studio refuses an order of nothing
        order_tabs(api, project_id, left)


def _remove_backend(api: LabelStudioApi, project_id: int, change: Change) -> None:
    for row in read_backends(api, project_id):
        if (row["title"], row["url"]) == (BACKEND_TITLE, change.name):
            remove_backend(api, row)


def _serve(api: LabelStudioApi, project_id: int, version: str) -> bool:
    """Serve the previous version, unless somebody has deleted its predictions: then there is none to serve."""
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
    """Remove by task where all predictions are ours, hundreds at once; else one by one."""
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
