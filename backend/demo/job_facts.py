"""The jobs as they are now: what runs and how far it is, what waits, who works."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from redis.exceptions import RedisError
from rq.job import Job
from rq.serializers import JSONSerializer

from backend.jobs import TURNS, JobQueue
from backend.queue_metrics import alive_workers
from backend.turn_log import Turns, read_turns
from carcond.card_values import plain
from carcond.errors import QueueUnavailableError


@dataclass(frozen=True)
class RunningJob:
    """One job that a worker is at.

    Attributes:
        queue: its queue's name.
        project_id: whose job it is; None when it does not say.
        stage: what it is doing, in words; empty before it says so.
        done: how much of the stage is done.
        total: of how much; 0 when that is not known.
        since: when it began.
    """

    queue: str
    project_id: int | None
    stage: str
    done: int
    total: int
    since: datetime | None


@dataclass(frozen=True)
class Jobs:
    """All jobs of all projects.

    Attributes:
        running: those that a worker is at.
        waiting: queue -> how many wait in it.
        failed: how many failed within the last hour.
        workers: how many that take turns are alive.
        turns: project -> its turns that ended well.
    """

    running: list[RunningJob]
    waiting: Mapping[str, int]
    failed: int
    workers: int
    turns: Mapping[int, Turns]


def read_jobs(queue: JobQueue) -> Jobs:
    """Ask Redis.

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
        plain(meta.get("stage") or ""),
        _whole(meta.get("done")),
        _whole(meta.get("total")),
        job.started_at.replace(tzinfo=UTC) if job.started_at else None,
    )


def _whole(value: object) -> int:
    return value if isinstance(value, int) and value > 0 else 0
