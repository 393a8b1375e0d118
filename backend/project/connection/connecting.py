"""Connecting an existing project: exactly what its plan says, all of it or nothing."""

import logging
from contextlib import suppress

from backend.jobs.queue import JobQueue, turns_held
from backend.label_studio.backend_address import BackendAddress
from backend.label_studio.client import LabelStudioApi
from backend.label_studio.data_manager import NEXT_TO_LABEL, put_first_tab
from backend.label_studio.ml_backends import BACKEND_TITLE, find_ours, read_backends, save_backend
from backend.label_studio.provision import WANTED_SETTINGS
from backend.label_studio.webhooks import ensure_webhook
from backend.project.connection.changes import MODEL_VERSION, close_record, keep_record
from backend.project.connection.disconnecting import take_back
from backend.project.connection.plan import ConnectionPlan
from backend.services import Services
from carcond.errors import CarcondError, ConnectionRecordError, LabelStudioError, QueueUnavailableError

logger = logging.getLogger(__name__)


def connect(services: Services, queue: JobQueue, backend: BackendAddress, plan: ConnectionPlan, by: str) -> bool:
    """Carry out a plan, keep its record, and request a turn that learns from the existing labels.

    Args:
        services: of this process.
        queue: of jobs.
        backend: what the plan was made for. It has to be up.
        plan: without obstacles.
        by: who requested it.

    Returns:
        Whether a turn of the loop was requested; without Redis it comes when Redis and worker run.

    Raises:
        ConnectionRecordError: the plan has obstacles.
        LabelStudioError: Label Studio refused; what had been changed by then was taken back.
    """
    if plan.obstacles:
        raise ConnectionRecordError("; ".join(plan.obstacles))
    project_id = plan.project.id
    with turns_held(queue, project_id):
        if plan.changes:
            _apply_all_or_nothing(services, queue, backend, plan, by)
        services.store.add_project(project_id)
    try:
        queue.request_turn(project_id)
    except QueueUnavailableError as error:
        logger.warning("connected, but nothing is learnt until Redis and a worker run: %s", error)
        return False
    return True


def _apply_all_or_nothing(
    services: Services, queue: JobQueue, backend: BackendAddress, plan: ConnectionPlan, by: str
) -> None:
    project_id, store = plan.project.id, services.store
    record = keep_record(store, project_id, plan.changes, by)
    try:
        _apply(services.api, backend, plan)
    except CarcondError:
        take_back(services.api, project_id, plan.changes)
        close_record(store, record, by)
        with suppress(QueueUnavailableError):
            queue.end_admission(project_id)  # Label Studio has called the backend, which would begin to serve it
        raise


def _apply(api: LabelStudioApi, backend: BackendAddress, plan: ConnectionPlan) -> None:
    project_id = plan.project.id
    kinds = {change.kind for change in plan.changes}
    if "backend" in kinds:
        save_backend(api, backend, project_id, find_ours(read_backends(api, project_id)))
        _leave_version(api, project_id, plan.project.model_version)
    ensure_webhook(api, backend, project_id)
    settings = {name: value for name, value in WANTED_SETTINGS.items() if plan.project.raw.get(name) != value}
    if settings:
        api.update_project(project_id, **settings)
    if "tab" in kinds:
        put_first_tab(api, project_id, NEXT_TO_LABEL)


def _leave_version(api: LabelStudioApi, project_id: int, before: str) -> None:
    """Restore the served version, as Label Studio may serve a new backend at once: it stays until there is a queue.

    Served by its title, a backend gets a new request for every photo that somebody opens.
    """
    if api.project(project_id).model_version == BACKEND_TITLE != before:
        try:
            api.update_project(project_id, **{MODEL_VERSION: before})
        except LabelStudioError as error:
            logger.warning("project %d: model_version %r could not be kept: %s", project_id, before, error)
