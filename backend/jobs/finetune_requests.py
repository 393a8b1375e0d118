"""Fine-tunings as jobs: at most one a project, requested by the loop or by a person, cancelled, and resumed."""

import logging
from collections.abc import Sequence

from backend.jobs.finetune_record import FinetuneRecord
from backend.jobs.queue import FINETUNES, JobQueue, redis_errors
from carcond.errors import CarcondError

logger = logging.getLogger(__name__)

LOOP = "loop"
"""Name of the requester when labels have grown."""


def start_finetuning(queue: JobQueue, project_id: int, who: str) -> bool:
    """Request a fine-tuning of a project.

    Returns:
        False if one was under way already.

    Raises:
        QueueUnavailableError: Redis cannot be reached.
    """
    with redis_errors():
        record = FinetuneRecord(queue.redis, project_id)
        if record.is_under_way or queue.is_locked(project_id, FINETUNES):
            return False
        record.begin(who)
        queue.enqueue_finetuning(project_id)
        return True


def cancel_finetuning(queue: JobQueue, project_id: int) -> bool:
    """Cancel a fine-tuning; its checkpoints are discarded.

    Returns:
        True if there was one under way.

    Raises:
        QueueUnavailableError: Redis cannot be reached.
    """
    with redis_errors():
        record = FinetuneRecord(queue.redis, project_id)
        if not record.is_under_way:
            return False
        record.write(cancel=True)
        if not queue.is_locked(project_id, FINETUNES):  # it waits: no worker would check
            record.end("cancelled")
        return True


def resume_finetunings(queue: JobQueue, project_ids: Sequence[int]) -> None:
    """Enqueue fine-tunings again whose worker was killed, or whose job was lost."""
    for project_id in project_ids:
        try:
            with redis_errors():
                record = FinetuneRecord(queue.redis, project_id)
                lost = record.is_under_way and not queue.is_locked(project_id, FINETUNES)
                if lost and project_id not in queue.waiting_finetunings():
                    queue.enqueue_finetuning(project_id)
        except CarcondError as error:
            logger.warning("project %d: its fine-tuning was not resumed: %s", project_id, error)


def begin_if_grown(queue: JobQueue, project_id: int, labels: int, learnt: int) -> bool:
    """Request a fine-tuning when labels have grown by the configured factor since the last one.

    Args:
        queue: of the jobs.
        project_id: of the loop.
        labels: photos with a label now.
        learnt: photos that had one when the last encoder was made, 0 without one.

    Returns:
        True if it was requested.
    """
    settings = queue.settings
    if not settings.finetune_growth or labels < settings.finetune_min_labels:
        return False
    with redis_errors():
        # A fine-tuning that failed or taught nothing counts too: the next try waits for further labels.
        last = max(learnt, FinetuneRecord(queue.redis, project_id).read().get("labels") or 0)
    return labels >= settings.finetune_growth * last and start_finetuning(queue, project_id, LOOP)
