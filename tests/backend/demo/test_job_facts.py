import pytest
from redis import Redis
from rq import SimpleWorker, get_current_job
from rq.serializers import JSONSerializer

from backend.demo.job_facts import Jobs, read_jobs
from backend.jobs import TURNS, JobQueue, get_job_queue
from backend.turn_log import record_turn
from carcond.errors import QueueUnavailableError
from tests.backend.conftest import MakeSettings

_seen: list[Jobs] = []


def tell_progress(project_id: int, stage: object, done: object, total: object) -> None:
    """A job that says how far it is, and is looked at then."""
    job = get_current_job()
    assert job
    job.meta.update(stage=stage, done=done, total=total)
    job.save_meta()  # type: ignore[no-untyped-call]
    _seen.append(read_jobs(get_job_queue()))


def watch(queue: JobQueue, *arguments: object) -> Jobs:
    """What is read while a job of these arguments runs."""
    (turns,) = (each for each in queue.queues() if each.name == TURNS)
    turns.enqueue(tell_progress, *arguments)
    SimpleWorker([turns], connection=queue.redis, serializer=JSONSerializer).work(burst=True)
    return _seen.pop()


def test_a_running_job_tells_whose_it_is_and_how_far(job_queue: JobQueue) -> None:
    jobs = watch(job_queue, 3, "embedding", 40, 160)
    (job,) = jobs.running
    assert (job.queue, job.project_id, job.stage, job.done, job.total) == (TURNS, 3, "embedding", 40, 160)
    assert job.since
    assert jobs.workers == 1


def test_progress_that_is_none_is_left_out(job_queue: JobQueue) -> None:
    (job,) = watch(job_queue, 3, "a\nb", "many", -1).running
    assert (job.stage, job.done, job.total) == ("a\N{REPLACEMENT CHARACTER}b", 0, 0)


def test_waiting_and_failed_jobs_are_counted_and_turns_told(job_queue: JobQueue, redis: Redis) -> None:
    job_queue.nudge(1)
    job_queue.nudge(2)
    record_turn(redis, 1, {"read": 0.5})
    jobs = read_jobs(job_queue)
    assert (jobs.running, jobs.waiting[TURNS], jobs.failed, jobs.workers) == ([], 2, 0, 0)
    assert (jobs.turns[1].count, jobs.turns[1].seconds) == (1, {"read": 0.5})


def test_without_redis_it_says_so(make_settings: MakeSettings) -> None:
    make_settings()
    with pytest.raises(QueueUnavailableError, match="REDIS_URL"):
        read_jobs(get_job_queue())
