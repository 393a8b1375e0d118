"""RQ: what is enqueued, and how it is kept from piling up.

A nudge (an event, or the periodic reconcile) makes sure that one turn of a project is waiting. A
turn takes the waiting mark away before it reads anything, so a nudge that comes while it runs makes
one further turn wait: nothing that was labelled is missed, and bursts make one turn, not many.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
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
from carcond.errors import CarcondError, ProjectGoneError, QueueUnavailableError
from carcond.settings import Settings, get_settings

logger = logging.getLogger(__name__)

TURNS: Final = "turns"
"""The queue of turns."""
REFRESHES: Final = "refreshes"
"""The queue of refreshes, which give way to turns. Workers look here only when no turn waits."""
EMBEDDINGS: Final = "embeddings"
"""The queue of those that show the pool to an encoder that may take over. They give way to turns too."""
FINETUNES: Final = "finetune"
"""The queue of fine-tunings, which take minutes to hours: only a worker that was told to looks here."""
LOOP_QUEUES: Final = (TURNS, REFRESHES, EMBEDDINGS)
"""What a worker listens to unless it was told otherwise, most urgent first."""
ALL_QUEUES: Final = (*LOOP_QUEUES, FINETUNES)

SHARES: Final = 8
"""In so many jobs the pool is shown to an encoder; so many workers can help."""

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
            for name in ALL_QUEUES
        }

    def queues(self, names: Sequence[str] = LOOP_QUEUES) -> list[Queue]:
        """The queues of these names, in their order."""
        return [self._queues[name] for name in names]

    def nudge(self, project_id: int) -> bool:
        """Make sure that a turn of the project is waiting.

        Returns:
            Whether one had to be enqueued; False when one was waiting already.

        Raises:
            QueueUnavailableError: Redis cannot be reached.
        """
        with redis_errors():
            self.redis.incr(_news_key(project_id))
            return self._enqueue(TURNS, str(project_id), run_turn, project_id)

    def enqueue_refresh(self, project_id: int) -> bool:
        """Make sure that a refresh of the project is waiting; see `nudge`."""
        with redis_errors():
            return self._enqueue(REFRESHES, str(project_id), run_refresh, project_id)

    def enqueue_embedding(self, project_id: int, encoder_id: str, share: int) -> bool:
        """Make sure that an encoder will be shown its share of the project's photos; see `nudge`."""
        with redis_errors():
            mark = _share_mark(project_id, encoder_id, share)
            return self._enqueue(EMBEDDINGS, mark, run_embedding, project_id, encoder_id, share)

    def enqueue_finetuning(self, project_id: int, job: Callable[[int], Any]) -> bool:
        """Make sure that a fine-tuning of the project is waiting; see `nudge`."""
        with redis_errors():
            # It ends when it ends: status shows how far it is, and whoever does not want to wait cancels it.
            return self._enqueue(FINETUNES, str(project_id), job, project_id, job_timeout=-1)

    def waiting_finetunings(self) -> set[int]:
        """The projects of which a fine-tuning waits for a worker."""
        with redis_errors():
            return {int(job.args[0]) for job in self._queues[FINETUNES].jobs}

    def _enqueue(self, queue: str, mark: str, job: Any, *arguments: Any, **options: Any) -> bool:
        if not self.redis.set(_waiting_key(queue, mark), 1, nx=True, ex=_WAITING_SECONDS):
            return False
        kept = {"result_ttl": _RESULT_SECONDS, "failure_ttl": _RESULT_SECONDS}
        self._queues[queue].enqueue(job, *arguments, **kept, **options)
        return True

    def begin(self, queue: str, project_id: int, mark: str = "") -> int:
        """Take the waiting mark away. Returns the count of nudges so far."""
        with redis_errors():
            self.redis.delete(_waiting_key(queue, mark or str(project_id)))
            return self._news(project_id)

    def has_waiting_turn(self) -> bool:
        """Whether a turn of any project waits."""
        with redis_errors():
            return len(self._queues[TURNS]) > 0

    def is_interrupted(self, project_id: int, news: int) -> bool:
        """Whether a turn waits, or the project was nudged since the count was `news`."""
        with redis_errors():
            return self._news(project_id) != news or self.has_waiting_turn()

    def _news(self, project_id: int) -> int:
        return int(self.redis.get(_news_key(project_id)) or 0)

    @contextmanager
    def lock(self, project_id: int, queue: str = TURNS, wait: bool = True, mark: str = "") -> Iterator[bool]:
        """One job at a time for each project, over all workers; a killed worker's lock runs out by itself.

        Args:
            project_id: of the job.
            queue: turns and refreshes share a lock, fine-tunings and embeddings have others.
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
        """Whether a job of the project runs, on any worker; see `lock`."""
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


def _share_mark(project_id: int, encoder_id: str, share: int) -> str:
    return f"{project_id}:{encoder_id}:{share}"


def _lock_key(mark: str, queue: str) -> str:
    return f"carcond:lock:{mark}" if queue in (TURNS, REFRESHES) else f"carcond:lock:{queue}:{mark}"


def _news_key(project_id: int) -> str:
    return f"carcond:news:{project_id}"


@cache
def get_job_queue() -> JobQueue:
    """The job queue of this process."""
    return JobQueue(get_settings())


def run_turn(project_id: int) -> dict[str, Any]:
    """RQ job: one turn of a project's loop. Returns its report, nothing for a project let go or gone."""
    from backend.connection.changes import is_released  # noqa: PLC0415
    from backend.finetune_jobs import begin_if_grown  # noqa: PLC0415
    from backend.loop import Loop  # noqa: PLC0415 - the web process enqueues turns and never runs one
    from backend.services import get_services  # noqa: PLC0415

    queue = get_job_queue()
    # The rest of a burst of labels arrives while we wait.
    time.sleep(queue.settings.debounce_s)
    with queue.lock(project_id):
        queue.begin(TURNS, project_id)
        if is_released(get_services().store, project_id):
            return {}
        try:
            report = Loop(get_services(), project_id, _write_progress).turn()
        except ProjectGoneError as error:
            logger.warning("project %d: its turn is dropped: %s", project_id, error)
            return {}
    if report.photos_left:
        queue.nudge(project_id)
    elif report.stale:
        queue.enqueue_refresh(project_id)
    if report.candidate_unseen:
        for share in range(SHARES):
            queue.enqueue_embedding(project_id, report.candidate, share)
    with redis_errors():
        record_turn(queue.redis, project_id, report.seconds)
    if not report.photos_left:  # labelled photos that nobody has looked at could teach nothing yet
        begin_if_grown(queue, project_id, report.labelled, report.learnt)
    logger.info("project %d: %s", project_id, asdict(report))
    return asdict(report)


def run_refresh(project_id: int) -> int:
    """RQ job: move the other predictions of a project to the serving version. Returns how many are left."""
    from backend.connection.changes import is_released  # noqa: PLC0415
    from backend.loop import Loop  # noqa: PLC0415
    from backend.services import get_services  # noqa: PLC0415

    queue = get_job_queue()
    with queue.lock(project_id):
        news = queue.begin(REFRESHES, project_id)
        if is_released(get_services().store, project_id):
            return 0
        try:
            loop = Loop(get_services(), project_id, _write_progress)
            left = loop.refresh(lambda: queue.is_interrupted(project_id, news))
        except ProjectGoneError as error:
            logger.warning("project %d: its refresh is dropped: %s", project_id, error)
            return 0
    if left:
        queue.enqueue_refresh(project_id)
    return left


def run_embedding(project_id: int, encoder_id: str, share: int) -> int:
    """RQ job: show a share of the pool to an encoder that may take over. Returns how many photos it has yet to see.

    A turn need not wait for it, and workers do several shares at once, each of them one worker.
    """
    from backend.connection.changes import is_released  # noqa: PLC0415
    from backend.embedding import Share, embed_share, unseen_photos  # noqa: PLC0415
    from backend.services import get_services  # noqa: PLC0415

    queue, services = get_job_queue(), get_services()
    mark = _share_mark(project_id, encoder_id, share)
    queue.begin(EMBEDDINGS, project_id, mark)
    if is_released(services.store, project_id) or not unseen_photos(services.store, project_id, encoder_id):
        return 0  # a share that waits for long is asked for again: who showed the last photo has asked for the turn
    services.pull_models(project_id)
    left_of_share = 0
    with queue.lock(project_id, EMBEDDINGS, wait=False, mark=mark) as held:
        if held:
            left_of_share = embed_share(
                services,
                project_id,
                encoder_id,
                Share(share, SHARES),
                interrupted=queue.has_waiting_turn,
                progress=_write_progress,
            )
    if left_of_share:
        queue.enqueue_embedding(project_id, encoder_id, share)
    left = unseen_photos(services.store, project_id, encoder_id)
    if not left:
        queue.nudge(project_id)  # it can take over
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
