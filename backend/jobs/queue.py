"""RQ: what is enqueued, and how it is kept from piling up.

A request (by an event, or by the periodic reconcile) makes sure that one turn of a project is waiting. A turn removes
the waiting mark before it reads anything, so a request that comes while it runs makes one further turn wait: no label
is missed, and a burst of events makes one turn, not many.
"""

import logging
import threading
from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import cache
from typing import Any, Final

from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import LockError, RedisError
from redis.retry import Retry
from rq import Queue
from rq.exceptions import DeserializationError
from rq.job import Job
from rq.serializers import JSONSerializer

from carcond.errors import CarcondError, QueueUnavailableError
from carcond.settings import Settings, get_settings

logger = logging.getLogger(__name__)

TURNS: Final = "turns"
"""The queue of turns."""
REFRESHES: Final = "refreshes"
"""The queue of refreshes, which give way to turns. Workers look here only when no turn waits."""
EMBEDDINGS: Final = "embeddings"
"""The queue of re-embeddings with an encoder that may take over. They give way to turns too."""
FINETUNES: Final = "finetune"
"""The queue of fine-tunings, which take minutes to hours: only a worker that was started for it listens here."""
LOOP_QUEUES: Final = (TURNS, REFRESHES, EMBEDDINGS)
"""Queues that a worker listens to by default, most urgent first."""
ALL_QUEUES: Final = (*LOOP_QUEUES, FINETUNES)

# Jobs by their dotted names: the worker imports them, and no process that only asks for them does.
_RUN_TURN, _RUN_REFRESH, _RUN_EMBEDDING, _RUN_FINETUNING, _RUN_ADMISSIONS = (
    f"backend.worker.jobs.run_{name}" for name in ("turn", "refresh", "embedding", "finetuning", "admissions")
)
JOBS: Final = frozenset({_RUN_TURN, _RUN_REFRESH, _RUN_EMBEDDING, _RUN_FINETUNING, _RUN_ADMISSIONS})
"""All that a worker runs."""

SHARDS: Final = 8
"""Shards per re-embedding of the pool; the maximum number of workers that can share it."""

# A waiting mark without a job (its process died in between) is forgotten after this long.
_WAITING_SECONDS = 60
# A lock of a killed worker is free again after this long.
_LOCK_SECONDS = 10
_RESULT_SECONDS = 3600
# Set of the projects that are to be served and have not been looked at, and the mark of the job that does.
_NEW_PROJECTS = "carcond:new-projects"
_ADMISSIONS = "admissions"
_ADMITTED_AT_ONCE = 100


class JobQueue:
    """The jobs of all projects in one Redis. Safe to shard between threads."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        # One try more, at once: Label Studio waits a second for a webhook, and the reconcile makes up for it.
        self.redis = Redis.from_url(settings.redis_url, socket_connect_timeout=0.5, retry=Retry(NoBackoff(), 1))
        self._queues = {
            name: Queue(name, connection=self.redis, serializer=JSONSerializer, default_timeout=settings.job_timeout_s)
            for name in ALL_QUEUES
        }

    def queues(self, names: Sequence[str] = LOOP_QUEUES) -> list[Queue]:
        """The queues of these names, in their order."""
        return [self._queues[name] for name in names]

    def request_turn(self, project_id: int) -> bool:
        """Make sure that a turn of the project is waiting.

        Returns:
            Whether one had to be enqueued; False when one was waiting already.

        Raises:
            QueueUnavailableError: Redis cannot be reached.
        """
        # In one exchange: Label Studio's annotator waits for it.
        with redis_errors(), self.redis.pipeline(transaction=False) as both:
            both.incr(_changes_key(project_id))
            both.set(_waiting_key(TURNS, str(project_id)), 1, nx=True, ex=_WAITING_SECONDS)
            _, is_first = both.execute()
            if is_first:
                self._put(TURNS, _RUN_TURN, project_id)
            return bool(is_first)

    def request_admission(self, project_id: int) -> None:
        """Have a worker begin to serve a new project, if Label Studio has it.

        One job is for all new projects: however many are named that do not exist, turns do not wait for them.

        Raises:
            QueueUnavailableError: Redis cannot be reached.
        """
        with redis_errors():
            self.redis.sadd(_NEW_PROJECTS, project_id)
        self.enqueue_admissions()

    def enqueue_admissions(self) -> None:
        """Make sure that a worker looks at the new projects, if there are any."""
        with redis_errors():
            if self.redis.exists(_NEW_PROJECTS):
                self._enqueue(TURNS, _ADMISSIONS, _RUN_ADMISSIONS)

    def begin_admissions(self) -> list[int]:
        """Remove the waiting mark. Returns some of the new projects."""
        with redis_errors():
            self.redis.delete(_waiting_key(TURNS, _ADMISSIONS))
            return [int(each) for each in self.redis.srandmember(_NEW_PROJECTS, _ADMITTED_AT_ONCE) or ()]

    def is_admission_asked(self, project_id: int) -> bool:
        """True while a project is new."""
        with redis_errors():
            return bool(self.redis.sismember(_NEW_PROJECTS, str(project_id)))

    def end_admission(self, project_id: int) -> bool:
        """Forget that a project is new. Returns False if that was done before."""
        with redis_errors():
            return bool(self.redis.srem(_NEW_PROJECTS, project_id))

    def enqueue_refresh(self, project_id: int) -> bool:
        """Make sure that a refresh of the project is waiting; see `request_turn`."""
        with redis_errors():
            return self._enqueue(REFRESHES, str(project_id), _RUN_REFRESH, project_id)

    def enqueue_embedding(self, project_id: int, encoder_id: str, shard: int) -> bool:
        """Make sure that an encoder will be shown its shard of the project's photos; see `request_turn`."""
        with redis_errors():
            mark = shard_mark(project_id, encoder_id, shard)
            return self._enqueue(EMBEDDINGS, mark, _RUN_EMBEDDING, project_id, encoder_id, shard)

    def enqueue_finetuning(self, project_id: int) -> bool:
        """Make sure that a fine-tuning of the project is waiting; see `request_turn`."""
        with redis_errors():
            # It ends when it ends: status shows how far it is, and whoever does not want to wait cancels it.
            return self._enqueue(FINETUNES, str(project_id), _RUN_FINETUNING, project_id, job_timeout=-1)

    def waiting_finetunings(self) -> set[int]:
        """The projects of which a fine-tuning waits for a worker."""
        return self._waiting(FINETUNES)

    def remove_lost_marks(self, project_ids: Collection[int]) -> None:
        """Remove waiting marks of turns that no queue holds: their worker was killed between taking and beginning them.

        A turn that is being begun loses its mark too; then one more turn is made, which changes nothing.
        """
        lost = set(project_ids) - self._waiting(TURNS)
        if lost:
            with redis_errors():
                self.redis.delete(*(_waiting_key(TURNS, str(project_id)) for project_id in lost))

    def _waiting(self, queue: str) -> set[int]:
        """The projects of the jobs in a queue, without jobs that are none of ours: the worker drops them."""
        with redis_errors():
            jobs = self._queues[queue].jobs
        return {project_id for project_id in map(_project_of, jobs) if project_id is not None}

    def _enqueue(self, queue: str, mark: str, job: str, *arguments: Any, **options: Any) -> bool:
        if not self.redis.set(_waiting_key(queue, mark), 1, nx=True, ex=_WAITING_SECONDS):
            return False
        self._put(queue, job, *arguments, **options)
        return True

    def _put(self, queue: str, job: str, *arguments: Any, **options: Any) -> None:
        kept = {"result_ttl": _RESULT_SECONDS, "failure_ttl": _RESULT_SECONDS}
        self._queues[queue].enqueue(job, *arguments, **kept, **options)

    def begin(self, queue: str, project_id: int, mark: str = "") -> int:
        """Remove the waiting mark. Returns the change counter: the number of requests so far."""
        with redis_errors():
            self.redis.delete(_waiting_key(queue, mark or str(project_id)))
            return self._changes(project_id)

    def has_waiting_turn(self) -> bool:
        """Return True if a turn of any project waits. The admission of new projects, one job at most, is none."""
        with redis_errors():
            waiting = len(self._queues[TURNS])
        return waiting > 1 or (waiting == 1 and bool(self._waiting(TURNS)))

    def is_interrupted(self, project_id: int, changes: int) -> bool:
        """Return True if a turn waits, or one was requested for the project since the counter was `changes`."""
        with redis_errors():
            return self._changes(project_id) != changes or self.has_waiting_turn()

    def rest(self, project_id: int, seconds: float) -> None:
        """Have the project's next turn begin no sooner than so many seconds from now."""
        if seconds > 0:
            with redis_errors():
                self.redis.set(_rest_key(project_id), 1, px=int(1000 * seconds) + 1)

    def rest_left(self, project_id: int) -> float:
        """Seconds until the project's next turn may begin."""
        with redis_errors():
            return max(0, int(self.redis.pttl(_rest_key(project_id)))) / 1000

    def changes(self, project_id: int) -> int:
        """Number of requests of the project's turn so far."""
        with redis_errors():
            return self._changes(project_id)

    def _changes(self, project_id: int) -> int:
        return int(self.redis.get(_changes_key(project_id)) or 0)

    @contextmanager
    def lock(self, project_id: int, queue: str = TURNS, wait: bool = True, mark: str = "") -> Iterator[bool]:
        """One job at a time for each project, over all workers; a killed worker's lock runs out by itself.

        Args:
            project_id: of the job.
            queue: turns and refreshes shard a lock, fine-tunings and embeddings have others.
            wait: until the lock is free.
            mark: of the job, where a project may have several at a time.

        Yields:
            Whether it is held: without waiting, it may be another's.
        """
        lock = self.redis.lock(_lock_key(mark or str(project_id), queue), timeout=_LOCK_SECONDS, thread_local=False)
        stop = threading.Event()

        def renew() -> None:
            while not stop.wait(_LOCK_SECONDS / 3):
                try:
                    lock.reacquire()
                except (LockError, RedisError) as error:
                    logger.warning("project %d: the lock could not be renewed: %s", project_id, error)

        with redis_errors():
            held = lock.acquire(blocking=wait)
        if not held:
            yield False
            return
        renewer = threading.Thread(target=renew, daemon=True)
        renewer.start()
        try:
            yield True
        finally:
            stop.set()
            renewer.join()
            try:
                lock.release()
            except (LockError, RedisError) as error:
                logger.warning("project %d: the lock ran out before its job ended: %s", project_id, error)

    def is_locked(self, project_id: int, queue: str) -> bool:
        """Return True if a job of the project runs, on any worker; see `lock`."""
        with redis_errors():
            return bool(self.redis.exists(_lock_key(str(project_id), queue)))


@contextmanager
def turns_held(queue: JobQueue, project_id: int) -> Iterator[None]:
    """Keep workers from writing into a project. Without Redis they cannot begin to."""
    with ExitStack() as held:
        try:
            held.enter_context(queue.lock(project_id))
        except QueueUnavailableError as error:
            logger.warning("project %d: its jobs are not held: %s", project_id, error)
        yield


@contextmanager
def redis_errors() -> Iterator[None]:
    """Redis's own errors become `QueueUnavailableError`."""
    try:
        yield
    except RedisError as error:
        raise QueueUnavailableError(
            f"Redis, which holds the jobs, could not be reached ({type(error).__name__}): is it running at REDIS_URL?"
        ) from error


def _waiting_key(queue: str, mark: str) -> str:
    return f"carcond:waiting:{queue}:{mark}"


def shard_mark(project_id: int, encoder_id: str, shard: int) -> str:
    """Mark of the job that embeds one shard of a project's pool."""
    return f"{project_id}:{encoder_id}:{shard}"


def _project_of(job: Job) -> int | None:
    """The project of one of our jobs; None for one of all projects, and for a job that is none of ours."""
    try:
        first = job.args[0] if job.func_name in JOBS and job.args else None
    except DeserializationError:
        return None
    return first if isinstance(first, int) else None


def _lock_key(mark: str, queue: str) -> str:
    return f"carcond:lock:{mark}" if queue in (TURNS, REFRESHES) else f"carcond:lock:{queue}:{mark}"


def _rest_key(project_id: int) -> str:
    return f"carcond:rest:{project_id}"


def _changes_key(project_id: int) -> str:
    return f"carcond:changes:{project_id}"


@cache
def get_job_queue() -> JobQueue:
    """The job queue of this process."""
    return JobQueue(get_settings())


def reconcile(queue: JobQueue, project_ids: list[int]) -> None:
    """Request a turn of every project, and the admission of new ones: makes up for lost events and lost jobs."""
    try:
        queue.remove_lost_marks(project_ids)
        queue.enqueue_admissions()
    except CarcondError as error:
        logger.warning("lost turns and new projects have to wait: %s", error)
    for project_id in project_ids:
        try:
            queue.request_turn(project_id)
        except CarcondError as error:
            logger.warning("project %d: not reconciled: %s", project_id, error)
