"""Connecting a project that is there already: exactly what its plan says, all of it or nothing."""

import logging

from backend.backend_address import BackendAddress
from backend.connection.changes import MODEL_VERSION, close_record, keep_record
from backend.connection.disconnecting import take_back
from backend.connection.plan import ConnectionPlan
from backend.jobs import JobQueue, turns_held
from backend.labelstudio import LabelStudioApi
from backend.ml_backends import BACKEND_TITLE, find_ours, read_backends, save_backend
from backend.provision import WANTED_SETTINGS
from backend.services import Services
from backend.webhooks import ensure_webhook
from carcond.errors import CarcondError, ConnectionRecordError, LabelStudioError, QueueUnavailableError

logger = logging.getLogger(__name__)


def connect(services: Services, queue: JobQueue, backend: BackendAddress, plan: ConnectionPlan, by: str) -> bool:
    """Carry out a plan, keep its record, and have the labels that are there learnt from.

    Args:
        services: of this process.
        queue: of jobs.
        backend: what the plan was made for. It has to be up.
        plan: without obstacles.
        by: who asked for it.

    Returns:
        Whether a turn of the loop was asked for; without Redis it comes when Redis and worker are there.

    Raises:
        ConnectionRecordError: the plan has obstacles.
        LabelStudioError: Label Studio refused; what had been changed by then was taken back.
    """
    if plan.obstacles:
        raise ConnectionRecordError("; ".join(plan.obstacles))
    project_id = plan.project.id
    with turns_held(queue, project_id):
        if plan.changes:
            _apply_all_or_nothing(services, backend, plan, by)
        services.store.add_project(project_id)
    try:
        queue.nudge(project_id)
    except QueueUnavailableError as error:
        logger.warning("connected, but nothing is learnt until Redis and a worker run: %s", error)
        return False
    return True


def _apply_all_or_nothing(services: Services, backend: BackendAddress, plan: ConnectionPlan, by: str) -> None:
    project_id, store = plan.project.id, services.store
    was_served = project_id in store.project_ids()
    record = keep_record(store, project_id, plan.changes, by)
    try:
        _apply(services.api, backend, plan)
    except CarcondError:
        take_back(services.api, project_id, plan.changes)
        close_record(store, record, by)
        if not was_served:
            store.retire_project(project_id)  # Label Studio has called the backend, which has begun to serve it
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


def _leave_version(api: LabelStudioApi, project_id: int, before: str) -> None:
    """Label Studio may serve a new backend at once: until there is a queue, all stays as it was.

    Served by its title, a backend is asked anew for every photo that somebody opens.
    """
    if api.project(project_id).model_version == BACKEND_TITLE != before:
        try:
            api.update_project(project_id, **{MODEL_VERSION: before})
        except LabelStudioError as error:
            logger.warning("project %d: model_version %r could not be kept: %s", project_id, before, error)
