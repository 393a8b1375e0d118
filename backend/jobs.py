"""RQ: what is enqueued, and how it is kept from piling up.

A nudge (an event, or the periodic reconcile) makes sure that one turn of a project is waiting. A
turn takes the waiting mark away before it reads anything, so a nudge that comes while it runs makes
one further turn wait: nothing that was labelled is missed, and bursts make one turn, not many.
"""

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from functools import cache
from typing import Any, Final

from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import LockError, RedisError
from redis.retry import Retry
from rq import Queue, get_current_job
from rq.serializers import JSONSerializer

from backend.turn_log import record_turn
from carcond.errors import CarcondError, QueueUnavailableError
from carcond.settings import Settings, get_settings

logger = logging.getLogger(__name__)

TURNS: Final = "turns"
"""The queue of turns."""
REFRESHES: Final = "refreshes"
"""The queue of refreshes, which give way to turns. Workers look here only when no turn waits."""

# A waiting mark without a job (its process died in between) is forgotten after this long.
_WAITING_SECONDS = 60
# A lock of a killed worker is free again after this long.
_LOCK_SECONDS = 10
_RESULT_SECONDS = 3600


class JobQueue:
    """The jobs of all projects in one Redis. Safe to share between threads."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        # One try more, at once: Label Studio waits a second for a webhook, and the reconcile makes up for it.
        self.redis = Redis.from_url(settings.redis_url, socket_connect_timeout=0.5, retry=Retry(NoBackoff(), 1))
        self._queues = {
            name: Queue(name, connection=self.redis, serializer=JSONSerializer, default_timeout=settings.job_timeout_s)
            for name in (TURNS, REFRESHES)
        }

    def queues(self) -> list[Queue]:
        """The queues a worker listens to, most urgent first."""
        return list(self._queues.values())

    def nudge(self, project_id: int) -> bool:
        """Make sure that a turn of the project is waiting.

        Returns:
            Whether one had to be enqueued; False when one was waiting already.

        Raises:
            QueueUnavailableError: Redis cannot be reached.
        """
        with _redis_errors():
            self.redis.incr(_news_key(project_id))
            return self._enqueue(TURNS, run_turn, project_id)

    def enqueue_refresh(self, project_id: int) -> bool:
        """Make sure that a refresh of the project is waiting; see `nudge`."""
        with _redis_errors():
            return self._enqueue(REFRESHES, run_refresh, project_id)

    def _enqueue(self, queue: str, job: Any, project_id: int) -> bool:
        if not self.redis.set(_waiting_key(queue, project_id), 1, nx=True, ex=_WAITING_SECONDS):
            return False
        self._queues[queue].enqueue(job, project_id, result_ttl=_RESULT_SECONDS, failure_ttl=_RESULT_SECONDS)
        return True

    def begin(self, queue: str, project_id: int) -> int:
        """Take the waiting mark away. Returns the count of nudges so far."""
        with _redis_errors():
            self.redis.delete(_waiting_key(queue, project_id))
            return self._news(project_id)

    def is_interrupted(self, project_id: int, news: int) -> bool:
        """Whether a turn waits, or the project was nudged since the count was `news`."""
        with _redis_errors():
            return self._news(project_id) != news or len(self._queues[TURNS]) > 0

    def _news(self, project_id: int) -> int:
        return int(self.redis.get(_news_key(project_id)) or 0)

    @contextmanager
    def lock(self, project_id: int) -> Iterator[None]:
        """One job at a time for each project, over all workers; a killed worker's lock runs out by itself."""
        lock = self.redis.lock(f"carcond:lock:{project_id}", timeout=_LOCK_SECONDS, thread_local=False)
        stop = threading.Event()

        def renew() -> None:
            while not stop.wait(_LOCK_SECONDS / 3):
                try:
                    lock.reacquire()
                except (LockError, RedisError) as error:
                    logger.warning("project %d: the lock could not be renewed: %s", project_id, error)

        with _redis_errors():
            lock.acquire()
        renewer = threading.Thread(target=renew, daemon=True)
        renewer.start()
        try:
            yield
        finally:
            stop.set()
            renewer.join()
            try:
                lock.release()
            except (LockError, RedisError) as error:
                logger.warning("project %d: the lock ran out before its job ended: %s", project_id, error)


@contextmanager
def _redis_errors() -> Iterator[None]:
    try:
        yield
    except RedisError as error:
        raise QueueUnavailableError(
            f"Redis, which holds the jobs, could not be reached ({type(error).__name__}): is it running at REDIS_URL?"
        ) from error


def _waiting_key(queue: str, project_id: int) -> str:
    return f"carcond:waiting:{queue}:{project_id}"


def _news_key(project_id: int) -> str:
    return f"carcond:news:{project_id}"


@cache
def get_job_queue() -> JobQueue:
    """The job queue of this process."""
    return JobQueue(get_settings())


def run_turn(project_id: int) -> dict[str, Any]:
    """RQ job: one turn of a project's loop. Returns the turn's report."""
    from backend.loop import Loop  # noqa: PLC0415 - the web process enqueues turns and never runs one
    from backend.services import get_services  # noqa: PLC0415

    queue = get_job_queue()
    # The rest of a burst of labels arrives while we wait.
    time.sleep(queue.settings.debounce_s)
    with queue.lock(project_id):
        queue.begin(TURNS, project_id)
        report = Loop(get_services(), project_id, _write_progress).turn()
    if report.photos_left:
        queue.nudge(project_id)
    elif report.stale:
        queue.enqueue_refresh(project_id)
    with _redis_errors():
        record_turn(queue.redis, project_id, report.seconds)
    logger.info("project %d: %s", project_id, asdict(report))
    return asdict(report)


def run_refresh(project_id: int) -> int:
    """RQ job: move the other predictions of a project to the serving version. Returns how many are left."""
    from backend.loop import Loop  # noqa: PLC0415
    from backend.services import get_services  # noqa: PLC0415

    queue = get_job_queue()
    with queue.lock(project_id):
        news = queue.begin(REFRESHES, project_id)
        left = Loop(get_services(), project_id, _write_progress).refresh(lambda: queue.is_interrupted(project_id, news))
    if left:
        queue.enqueue_refresh(project_id)
    return left


def _write_progress(stage: str, done: int, total: int) -> None:
    job = get_current_job()
    if job:
        job.meta.update(stage=stage, done=done, total=total)
        job.save_meta()  # type: ignore[no-untyped-call]  # rq leaves it untyped


def reconcile(queue: JobQueue, project_ids: list[int]) -> None:
    """Nudge every project: makes up for events that were lost."""
    for project_id in project_ids:
        try:
            queue.nudge(project_id)
        except CarcondError as error:
            logger.warning("project %d: not reconciled: %s", project_id, error)
