from datetime import UTC, datetime, timedelta

import pytest
from redis import Redis
from rq import SimpleWorker, get_current_job
from rq.serializers import JSONSerializer

from backend.dashboard.job_facts import Jobs, RunningJob, job_sentence, read_jobs
from backend.jobs.queue import REFRESHES, TURNS, JobQueue, get_job_queue
from backend.jobs.turn_log import record_turn
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
    job_queue.request_turn(1)
    job_queue.request_turn(2)
    record_turn(redis, 1, {"read": 0.5})
    jobs = read_jobs(job_queue)
    assert (jobs.running, jobs.waiting[TURNS], jobs.failed, jobs.workers) == ([], 2, 0, 0)
    assert (jobs.turns[1].count, jobs.turns[1].seconds) == (1, {"read": 0.5})


def test_without_redis_it_says_so(make_settings: MakeSettings) -> None:
    make_settings()
    with pytest.raises(QueueUnavailableError, match="REDIS_URL"):
        read_jobs(get_job_queue())


NOW = datetime(2026, 5, 4, tzinfo=UTC)


@pytest.mark.parametrize(
    ("queue", "stage", "words"),
    [
        (
            REFRESHES,
            "refreshing predictions",
            "Refresh of project 3: moves the pre-labels behind the queue to the serving version, for 46 s",
        ),
        (TURNS, "reading labels", "Turn of project 3: reads what changed in Label Studio, for 46 s"),
        (TURNS, "", "Turn of project 3: begins, for 46 s"),
        ("others", "sweeping", "others of project 3: sweeping, for 46 s"),
    ],
)
def test_a_running_job_is_told_in_words(queue: str, stage: str, words: str) -> None:
    assert job_sentence(RunningJob(queue, 3, stage, 0, 0, NOW - timedelta(seconds=46)), NOW) == words
