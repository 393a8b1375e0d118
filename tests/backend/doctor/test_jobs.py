"""Jobs that failed, and an odd address. The rest is in tests/e2e/test_doctor.py."""

from datetime import timedelta

from rq import SimpleWorker, Worker
from rq.serializers import JSONSerializer

from backend.doctor.jobs import check_queue, check_redis, check_workers
from backend.jobs.queue import FINETUNES, JobQueue
from tests.backend.doctor.conftest import Look


def test_an_option_in_the_address_that_means_nothing_is_told(look: Look) -> None:
    found = look(check_redis, REDIS_URL="redis://127.0.0.1/0?socket_timeout=soon")
    assert "ValueError" in found["redis-unreachable"].what


def test_jobs_that_failed_are_told_with_the_last_words(look: Look, job_queue: JobQueue, redis_url: str) -> None:
    job_queue.request_turn(1)  # there is no Label Studio
    worker = SimpleWorker(job_queue.queues(), connection=job_queue.redis, serializer=JSONSerializer)
    worker.work(burst=True, logging_level="ERROR")
    found = look(check_queue, REDIS_URL=redis_url)["jobs-failed"]
    assert "1 jobs failed" in found.what
    assert "Label Studio at http://127.0.0.1:1 could not be reached" in found.what


def test_turns_that_no_worker_takes_are_not_fine(look: Look, job_queue: JobQueue, redis_url: str) -> None:
    job_queue.request_turn(1)
    Worker(job_queue.queues(), connection=job_queue.redis).register_birth()  # type: ignore[no-untyped-call]
    assert set(look(check_queue, REDIS_URL=redis_url)) == {""}
    (job,) = job_queue.queues()[0].jobs
    assert job.enqueued_at
    job.enqueued_at -= timedelta(hours=1)
    job.save()
    assert set(look(check_queue, REDIS_URL=redis_url)) == {"queue-grows"}


def test_a_fine_tuning_that_no_worker_takes_is_told_with_the_command_of_one_that_does(
    look: Look, job_queue: JobQueue, redis_url: str
) -> None:
    job_queue.enqueue_finetuning(3)
    Worker(job_queue.queues(), connection=job_queue.redis).register_birth()  # type: ignore[no-untyped-call]
    found = look(check_workers, REDIS_URL=redis_url)
    assert found[""].what == "1 for the loop, 0 for fine-tuning"
    assert "of project 3," in found["no-finetune-worker"].what
    Worker(job_queue.queues([FINETUNES]), connection=job_queue.redis).register_birth()  # type: ignore[no-untyped-call]
    assert set(look(check_workers, REDIS_URL=redis_url)) == {""}
