"""Fine-tunings as jobs: at most one a project, begun by the loop or by a person, cancelled, and gone on with."""

import logging
import time
from collections.abc import Mapping, Sequence
from typing import Any

from redis.exceptions import RedisError

from backend.finetune_record import UNDER_WAY, FinetuneRecord
from backend.jobs import FINETUNES, JobQueue, get_job_queue, redis_errors
from carcond.errors import CarcondError, OutOfMemoryError, TrainingCancelledError

logger = logging.getLogger(__name__)

LOOP = "loop"
"""Who asks for a fine-tuning that begins because labels have grown."""

# So often in a row it is begun again without an epoch in between: what kills it each time would never let it end.
_MAX_STARTS = 5
_KEPT_FACTS = ("best_epoch", "epochs", "measured_on", "against_frozen", "train_accuracy", "seconds", "peak_memory_mb")


def start_finetuning(queue: JobQueue, project_id: int, who: str) -> bool:
    """Ask for a fine-tuning of a project.

    Returns:
        Whether it was not under way already.

    Raises:
        QueueUnavailableError: Redis cannot be reached.
    """
    with redis_errors():
        record = FinetuneRecord(queue.redis, project_id)
        if record.is_under_way or queue.is_locked(project_id, FINETUNES):
            return False
        record.begin(who)
        queue.enqueue_finetuning(project_id, run_finetuning)
        return True


def cancel_finetuning(queue: JobQueue, project_id: int) -> bool:
    """End a fine-tuning; what it has learnt is thrown away.

    Returns:
        Whether there was one under way.

    Raises:
        QueueUnavailableError: Redis cannot be reached.
    """
    with redis_errors():
        record = FinetuneRecord(queue.redis, project_id)
        if not record.is_under_way:
            return False
        record.write(cancel=True)
        if not queue.is_locked(project_id, FINETUNES):  # it waits: nobody would look
            record.end("cancelled")
        return True


def resume_finetunings(queue: JobQueue, project_ids: Sequence[int]) -> None:
    """Ask again for fine-tunings whose worker was killed, or whose job was lost."""
    for project_id in project_ids:
        try:
            with redis_errors():
                record = FinetuneRecord(queue.redis, project_id)
                lost = record.is_under_way and not queue.is_locked(project_id, FINETUNES)
                if lost and project_id not in queue.waiting_finetunings():
                    queue.enqueue_finetuning(project_id, run_finetuning)
        except CarcondError as error:
            logger.warning("project %d: its fine-tuning is not gone on with: %s", project_id, error)


def begin_if_grown(queue: JobQueue, project_id: int, labels: int, learnt: int) -> bool:
    """Ask for a fine-tuning when labels have grown by the set factor since the last one.

    Args:
        queue: of the jobs.
        project_id: of the loop.
        labels: photos with a label now.
        learnt: photos that had one when the last encoder was made, 0 without one.

    Returns:
        Whether it was asked for.
    """
    settings = queue.settings
    if not settings.finetune_growth or labels < settings.finetune_min_labels:
        return False
    with redis_errors():
        # A fine-tuning that failed or taught nothing counts too: the next try waits for further labels.
        last = max(learnt, FinetuneRecord(queue.redis, project_id).read().get("labels") or 0)
    return labels >= settings.finetune_growth * last and start_finetuning(queue, project_id, LOOP)


def run_finetuning(project_id: int) -> str:
    """RQ job: fine-tune a project's encoder, in a process of its own. Returns how it ended."""
    from backend.finetuning import FineTuning  # noqa: PLC0415 - the web process never runs one
    from backend.services import get_services  # noqa: PLC0415

    queue = get_job_queue()
    record = FinetuneRecord(queue.redis, project_id)
    with queue.lock(project_id, FINETUNES, wait=False) as held:
        if not held:
            return "under way elsewhere"
        queue.begin(FINETUNES, project_id)
        told = record.read()
        if told.get("state") not in UNDER_WAY:
            return "not wanted any more"
        starts = int(told.get("starts") or 0) + 1
        tuning = FineTuning(get_services(), project_id, _Teller(record), lambda: _is_cancelled(record))
        if told.get("afresh") and "began" not in told:
            tuning.remove()  # of one that was cancelled while no worker was at it
        try:
            if record.is_cancelled:
                raise TrainingCancelledError("cancelled")
            if starts > _MAX_STARTS:
                record.end("failed", reason=f"begun {_MAX_STARTS} times and ended each time without a completed epoch")
                return "failed"
            record.write(state="running", began=told.get("began") or time.time(), starts=starts)
            outcome = tuning.run(lambda labels: record.write(labels=labels))
        except TrainingCancelledError:
            tuning.remove()
            record.end("cancelled")
            return "cancelled"
        except CarcondError as error:
            logger.error("project %d: not fine-tuned: %s", project_id, error)
            record.end("failed", reason=str(error), out_of_memory=isinstance(error, OutOfMemoryError))
            return "failed"
        record.end(
            "done", encoder_id=outcome["encoder_id"], facts={name: outcome["facts"][name] for name in _KEPT_FACTS}
        )
    queue.nudge(project_id)  # the turn has the pool shown to the new encoder
    return "done"


def _is_cancelled(record: FinetuneRecord) -> bool:
    """Asked while it trains: hours of work are not to be lost by a Redis that is away for a moment."""
    try:
        return record.is_cancelled
    except RedisError:  # the progress, which cannot be written either, has told of it
        return False


class _Teller:
    """Writes into the record how far a fine-tuning is."""

    def __init__(self, record: FinetuneRecord) -> None:
        self._record = record
        self._epoch = 0

    def __call__(self, progress: Mapping[str, Any]) -> None:
        epoch = progress.get("epoch") or 0
        if epoch > self._epoch:
            self._epoch = epoch
            progress = {**progress, "starts": 0}
        try:
            self._record.write(**progress)
        except RedisError as error:  # the training goes on without a word
            logger.warning("the progress of a fine-tuning cannot be written: %s", type(error).__name__)
