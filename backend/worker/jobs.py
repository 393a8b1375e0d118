"""RQ jobs: what a worker runs, by the names that `backend.jobs.queue` enqueues."""

import logging
import time
from collections.abc import Mapping
from dataclasses import asdict
from http import HTTPStatus
from typing import Any

from redis.exceptions import RedisError
from rq import get_current_job

from backend.jobs.finetune_record import UNDER_WAY, FinetuneRecord
from backend.jobs.finetune_requests import begin_if_grown
from backend.jobs.label_latency import newest_counted, record_labels
from backend.jobs.queue import (
    EMBEDDINGS,
    FINETUNES,
    REFRESHES,
    SHARDS,
    TURNS,
    JobQueue,
    get_job_queue,
    redis_errors,
    shard_mark,
)
from backend.jobs.turn_log import forget_turns, record_turn
from backend.loop.embedding import embed_shard
from backend.loop.turn import Loop
from backend.loop.waiting_photos import Shard, unseen_photos
from backend.services import get_services
from backend.worker.finetuning import FineTuning
from carcond.errors import CarcondError, LabelStudioError, OutOfMemoryError, ProjectGoneError, TrainingCancelledError
from carcond.fault_points import reach

logger = logging.getLogger(__name__)

# So often in a row it is begun again without an epoch in between: what kills it each time would never let it end.
_MAX_STARTS = 5
# More events than this in a step are no people who label, but an import, a bulk action or a repeating sender.
_FLOOD, _FLOOD_STEP_S, _FLOOD_SECONDS = 20, 0.3, 10.0
# A turn waits no longer for new projects, however many there are.
_ADMISSION_SECONDS = 0.5
# Stages of every turn before it writes into Label Studio.
_BEFORE_WRITING = ("read", "refit", "rank")
_KEPT_FACTS = ("best_epoch", "epochs", "measured_on", "against_frozen", "train_accuracy", "seconds", "peak_memory_mb")


def run_turn(project_id: int) -> dict[str, Any]:
    """RQ job: one turn of a project's loop. Returns its report, nothing for a project let go or gone."""
    queue = get_job_queue()
    _let_burst_arrive(queue, project_id)
    with queue.lock(project_id):
        queue.begin(TURNS, project_id)
        reach("turn.begun")
        if get_services().store.is_released(project_id):
            return {}
        try:
            report = Loop(get_services(), project_id, _write_progress).turn()
        except ProjectGoneError as error:
            logger.warning("project %d: its turn is dropped: %s", project_id, error)
            with redis_errors():
                forget_turns(queue.redis, project_id)
            return {}
        _record_labels(queue, project_id)  # while no other job reads further ones into the store
    # People who label without pause wait for Label Studio: it is free of our writing for as long as it was written to.
    # The next turn takes about as long as this one until it writes, which is part of that.
    queue.rest(project_id, report.seconds["publish"] - sum(report.seconds[stage] for stage in _BEFORE_WRITING))
    if report.photos_left:
        queue.request_turn(project_id)
    elif report.stale:
        queue.enqueue_refresh(project_id)
    if report.candidate_unseen:
        for shard in range(SHARDS):
            queue.enqueue_embedding(project_id, report.candidate, shard)
    with redis_errors():
        record_turn(queue.redis, project_id, report.seconds, report.unlearned)
    if not report.photos_left:  # labelled photos that nobody has looked at could teach nothing yet
        begin_if_grown(queue, project_id, report.labelled, report.learnt)
    logger.info("project %d: %s", project_id, asdict(report))
    return asdict(report)


def _let_burst_arrive(queue: JobQueue, project_id: int) -> None:
    """Wait for the rest of a burst of labels, and of a flood of events unless another project's turn waits."""
    until = time.monotonic() + _FLOOD_SECONDS
    changes = queue.changes(project_id)
    time.sleep(max(queue.settings.debounce_s, queue.rest_left(project_id)))
    while (now := queue.changes(project_id)) - changes >= _FLOOD and not queue.has_waiting_turn():
        if time.monotonic() > until:
            return
        changes = now
        time.sleep(_FLOOD_STEP_S)


def _record_labels(queue: JobQueue, project_id: int) -> None:
    published = time.time()
    with redis_errors():
        newest = newest_counted(queue.redis, project_id)
        arrived = get_services().store.labels_since(project_id, newest or "")
        record_labels(queue.redis, project_id, arrived, published)


def run_admissions() -> int:
    """RQ job: begin to serve new projects that Label Studio has, for a moment. Returns the number looked at."""
    queue = get_job_queue()
    until = time.monotonic() + _ADMISSION_SECONDS
    looked_at = 0
    for project_id in queue.begin_admissions():
        if time.monotonic() > until:
            break
        try:
            _admit(project_id)
        except LabelStudioError as error:
            # It stays among the new ones, for the next reconcile.
            logger.warning("project %d: not served yet: %s", project_id, error)
            return looked_at
        looked_at += 1
    queue.enqueue_admissions()  # of those that are left, behind the turns that wait by now
    return looked_at


def _admit(project_id: int) -> None:
    """Begin to serve a project, and request its first turn.

    Raises:
        LabelStudioError: Label Studio cannot say whether it has the project.
    """
    queue, services = get_job_queue(), get_services()
    with queue.lock(project_id):  # a connection that fails takes its request back
        try:
            services.api.project(project_id)
        except LabelStudioError as error:
            if error.status is None or error.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
                raise
            logger.warning("project %d: not served: %s", project_id, error)
            queue.end_admission(project_id)
            return
        if not queue.is_admission_asked(project_id):
            return
        if services.store.add_project(project_id):
            # It may have photos and labels already, for which no event will come.
            queue.request_turn(project_id)
        queue.end_admission(project_id)


def run_refresh(project_id: int) -> int:
    """RQ job: move the other predictions of a project to the serving version. Returns how many are left."""
    queue = get_job_queue()
    with queue.lock(project_id):
        changes = queue.begin(REFRESHES, project_id)
        if get_services().store.is_released(project_id):
            return 0
        try:
            loop = Loop(get_services(), project_id, _write_progress)
            left = loop.refresh(lambda: queue.is_interrupted(project_id, changes))
        except ProjectGoneError as error:
            logger.warning("project %d: its refresh is dropped: %s", project_id, error)
            return 0
    if left:
        queue.enqueue_refresh(project_id)
    return left


def run_embedding(project_id: int, encoder_id: str, shard: int) -> int:
    """RQ job: show a shard of the pool to an encoder that may take over. Returns how many photos it has yet to see.

    A turn need not wait for it, and workers do several shares at once, each of them one worker.
    """
    queue, services = get_job_queue(), get_services()
    mark = shard_mark(project_id, encoder_id, shard)
    queue.begin(EMBEDDINGS, project_id, mark)
    if services.store.is_released(project_id) or not unseen_photos(services.store, project_id, encoder_id):
        return 0  # a shard that waits for long is asked for again: who showed the last photo has asked for the turn
    services.pull_models(project_id)
    left_of_shard = 0
    with queue.lock(project_id, EMBEDDINGS, wait=False, mark=mark) as held:
        if held:
            left_of_shard = embed_shard(
                services,
                project_id,
                encoder_id,
                Shard(shard, SHARDS),
                interrupted=queue.has_waiting_turn,
                progress=_write_progress,
            )
    if left_of_shard:
        queue.enqueue_embedding(project_id, encoder_id, shard)
    left = unseen_photos(services.store, project_id, encoder_id)
    if not left:
        queue.request_turn(project_id)  # it can take over
    return left


def _write_progress(stage: str, done: int, total: int) -> None:
    job = get_current_job()
    if job:
        job.meta.update(stage=stage, done=done, total=total)
        job.save_meta()  # type: ignore[no-untyped-call]  # rq leaves it untyped


def run_finetuning(project_id: int) -> str:
    """RQ job: fine-tune a project's encoder, in a process of its own. Returns how it ended."""
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
        tuning = FineTuning(get_services(), project_id, _ProgressWriter(record), lambda: _is_cancelled(record))
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
    queue.request_turn(project_id)  # the turn has the pool shown to the new encoder
    return "done"


def _is_cancelled(record: FinetuneRecord) -> bool:
    """Asked while it trains: hours of work are not to be lost by a Redis that is away for a moment."""
    try:
        return record.is_cancelled
    except RedisError:  # the progress, which cannot be written either, has told of it
        return False


class _ProgressWriter:
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
