"""Present state of the jobs: running ones with their progress, waiting ones, and live workers."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from redis.exceptions import RedisError
from rq.job import Job
from rq.serializers import JSONSerializer

from backend.jobs.queue import EMBEDDINGS, FINETUNES, REFRESHES, TURNS, JobQueue
from backend.jobs.queue_state import alive_workers
from backend.jobs.turn_log import Turns, read_turns
from carcond.errors import QueueUnavailableError
from carcond.json_fields import sanitize_line


@dataclass(frozen=True)
class RunningJob:
    """One running job.

    Attributes:
        queue: its queue's name.
        project_id: of its project; None when it does not say.
        stage: name of its stage; empty before the first one.
        done: number of items of the stage that are done.
        total: number of all items; 0 when it is unknown.
        since: when it began.
    """

    queue: str
    project_id: int | None
    stage: str
    done: int
    total: int
    since: datetime | None


_QUEUES = {TURNS: "Turn", REFRESHES: "Refresh", EMBEDDINGS: "Embedding", FINETUNES: "Fine-tuning"}
_STAGES = {
    "reading labels": "reads what changed in Label Studio",
    "embedding photos": "embeds new photos",
    "fitting heads": "fits the heads to the labels",
    "publishing": "writes the next queue into Label Studio",
    "refreshing predictions": "moves the pre-labels behind the queue to the serving version",
}
"""Stage of `backend.jobs.queue` -> its words; a stage that is not here is shown by its name."""


def job_sentence(job: RunningJob, now: datetime) -> str:
    """One job in words: its project, stage and duration."""
    of = f" of project {job.project_id}" if job.project_id else ""
    since = f", for {(now - job.since).total_seconds():.0f} s" if job.since else ""
    return f"{_QUEUES.get(job.queue, job.queue)}{of}: {_STAGES.get(job.stage, job.stage) or 'begins'}{since}"


@dataclass(frozen=True)
class Jobs:
    """All jobs of all projects.

    Attributes:
        running: those that a worker is running.
        waiting: queue -> number of waiting jobs.
        failed: number of jobs that failed within the last hour.
        workers: number of live workers that take turns.
        turns: project -> its successful turns.
    """

    running: list[RunningJob]
    waiting: Mapping[str, int]
    failed: int
    workers: int
    turns: Mapping[int, Turns]


def read_jobs(queue: JobQueue) -> Jobs:
    """Read the jobs from Redis.

    Raises:
        QueueUnavailableError: it cannot be reached.
    """
    try:
        queues = queue.queues()
        started = [(each.name, job_id) for each in queues for job_id in each.started_job_registry.get_job_ids()]
        found = Job.fetch_many([job_id for _, job_id in started], connection=queue.redis, serializer=JSONSerializer)
        return Jobs(
            [_running(name, job) for (name, _), job in zip(started, found, strict=True) if job],
            {each.name: each.count for each in queues},
            sum(each.failed_job_registry.get_job_count(cleanup=False) for each in queues),
            alive_workers(queue, TURNS),
            read_turns(queue.redis),
        )
    except RedisError as error:
        raise QueueUnavailableError(
            f"Redis, which holds the jobs, could not be reached ({type(error).__name__}): is it running at REDIS_URL?"
        ) from error


def _running(queue: str, job: Job) -> RunningJob:
    meta: Mapping[str, Any] = job.meta or {}
    first = job.args[0] if job.args else None
    return RunningJob(
        queue,
        first if isinstance(first, int) else None,
        sanitize_line(meta.get("stage") or ""),
        _whole(meta.get("done")),
        _whole(meta.get("total")),
        job.started_at.replace(tzinfo=UTC) if job.started_at else None,
    )


def _whole(value: object) -> int:
    return value if isinstance(value, int) and value > 0 else 0
