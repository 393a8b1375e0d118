import json
import signal
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from redis import Redis
from rq import Queue, SimpleWorker
from rq.job import Job
from rq.serializers import JSONSerializer

from backend.jobs import queue as jobs
from backend.jobs.queue import EMBEDDINGS, REFRESHES, SHARDS, TURNS, JobQueue, get_job_queue, reconcile
from backend.loop.waiting_photos import unseen_photos
from backend.project.connection.changes import close_record, keep_record
from backend.services import get_services
from backend.worker.jobs import run_embedding
from carcond.errors import LabelStudioError, QueueUnavailableError
from carcond.settings import Settings
from tests.backend.conftest import MakeSettings
from tests.backend.fake_label_studio import PROJECT
from tests.backend.garage import Garage
from tests.backend.http_server import HttpServer, free_port
from tests.conftest import MakeEncoder

_HOLD_A_LOCK = """
import sys, time
from backend.jobs import queue as jobs
from carcond.settings import Settings
jobs._LOCK_SECONDS = 1
with jobs.JobQueue(Settings(redis_url=sys.argv[1])).lock(1):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def working_garage(redis_url: str, server: HttpServer, make_settings: MakeSettings) -> Iterator[Garage]:
    """A garage that the jobs of this process work on."""
    make_settings(REDIS_URL=redis_url, LABEL_STUDIO_URL=server.url)
    made = Garage(get_services(), server)
    yield made
    made.services.store.close()
    made.services.photos.close()


def named(queue: JobQueue) -> dict[str, Queue]:
    return {q.name: q for q in queue.queues()}


def waiting(queue: JobQueue) -> tuple[int, int]:
    """How many turns and refreshes wait."""
    return len(named(queue)[TURNS]), len(named(queue)[REFRESHES])


def take_turns(queue: JobQueue) -> None:
    """Take the waiting turns off the queue, as a worker does."""
    named(queue)[TURNS].empty()  # type: ignore[no-untyped-call]  # rq leaves it untyped


def take_refreshes(queue: JobQueue) -> None:
    """Take the waiting refreshes off the queue."""
    named(queue)[REFRESHES].empty()  # type: ignore[no-untyped-call]  # rq leaves it untyped


def work(queue: JobQueue, max_jobs: int | None = None) -> None:
    """Run the waiting jobs in this process."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    worker = SimpleWorker(queue.queues(), connection=queue.redis, serializer=JSONSerializer)
    try:
        worker.work(burst=True, max_jobs=max_jobs)
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def finished(queue: JobQueue, name: str) -> list[Any]:
    """Results of the jobs that ended well."""
    registry = named(queue)[name].finished_job_registry
    fetched = Job.fetch_many(registry.get_job_ids(), connection=queue.redis, serializer=JSONSerializer)
    return [job.return_value() for job in fetched if job]


# Nudging


def test_a_burst_of_nudges_makes_one_waiting_job(job_queue: JobQueue) -> None:
    assert [job_queue.request_turn(PROJECT) for _ in range(20)] == [True] + [False] * 19
    assert waiting(job_queue) == (1, 0)


def test_nudges_from_many_threads_make_one_waiting_job(job_queue: JobQueue) -> None:
    threads = [threading.Thread(target=job_queue.request_turn, args=(PROJECT,)) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert waiting(job_queue) == (1, 0)


def test_each_project_has_a_job_of_its_own(job_queue: JobQueue) -> None:
    reconcile(job_queue, [1, 2, 3, 1])
    assert [job.args for job in named(job_queue)[TURNS].jobs] == [[1], [2], [3]]


def test_a_turn_whose_worker_was_killed_before_it_began_is_asked_for_again(job_queue: JobQueue) -> None:
    job_queue.request_turn(PROJECT)
    take_turns(job_queue)
    assert not job_queue.request_turn(PROJECT)
    reconcile(job_queue, [PROJECT])
    assert waiting(job_queue) == (1, 0)


def test_new_projects_have_one_job_together_and_it_comes_behind_the_turns_that_wait(job_queue: JobQueue) -> None:
    job_queue.request_turn(PROJECT)
    for project_id in (7, 8, 9, 7):
        job_queue.request_admission(project_id)
    assert [job.args for job in named(job_queue)[TURNS].jobs] == [[PROJECT], []]
    assert sorted(job_queue.begin_admissions()) == [7, 8, 9]
    assert [job_queue.end_admission(7) for _ in range(2)] == [True, False]
    assert sorted(job_queue.begin_admissions()) == [8, 9]


def test_new_projects_that_wait_interrupt_no_refresh(job_queue: JobQueue) -> None:
    job_queue.request_admission(7)
    assert not job_queue.has_waiting_turn()
    job_queue.request_turn(PROJECT)
    assert job_queue.has_waiting_turn()


def test_the_reconcile_makes_up_for_a_lost_admission_and_makes_none_without_a_new_project(job_queue: JobQueue) -> None:
    reconcile(job_queue, [])
    assert waiting(job_queue) == (0, 0)
    job_queue.request_admission(7)
    take_turns(job_queue)
    job_queue.begin_admissions()  # the worker was killed right after
    reconcile(job_queue, [])
    assert waiting(job_queue) == (1, 0)


def test_a_nudge_while_a_turn_runs_makes_one_more_wait(job_queue: JobQueue) -> None:
    job_queue.request_turn(PROJECT)
    take_turns(job_queue)
    job_queue.begin(TURNS, PROJECT)
    assert [job_queue.request_turn(PROJECT) for _ in range(5)] == [True, False, False, False, False]
    assert waiting(job_queue) == (1, 0)


def test_a_waiting_mark_without_a_job_expires(
    job_queue: JobQueue, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "_WAITING_SECONDS", 1)
    job_queue.request_turn(PROJECT)
    take_turns(job_queue)  # lost
    assert not job_queue.request_turn(PROJECT)
    time.sleep(1.1)
    assert job_queue.request_turn(PROJECT)


def test_a_projects_rest_is_over_by_itself_and_holds_no_other_project(job_queue: JobQueue) -> None:
    assert job_queue.rest_left(1) == 0
    job_queue.rest(1, 30)
    assert 29 < job_queue.rest_left(1) <= 30.001
    assert job_queue.rest_left(2) == 0
    job_queue.rest(2, 0.001)
    time.sleep(0.05)
    assert job_queue.rest_left(2) == 0


def test_after_a_turn_label_studio_rests_as_long_as_it_was_written_to(
    working_garage: Garage, monkeypatch: pytest.MonkeyPatch
) -> None:
    slept: list[float] = []
    rested: list[tuple[int, float]] = []
    monkeypatch.setattr("backend.worker.jobs.time.sleep", slept.append)
    monkeypatch.setattr(JobQueue, "rest", lambda _, project_id, seconds: rested.append((project_id, seconds)))
    working_garage.add_photos(3)
    queue = get_job_queue()
    queue.request_turn(PROJECT)
    work(queue, max_jobs=1)
    (report,) = finished(queue, TURNS)
    assert slept[0] == queue.settings.debounce_s
    seconds = report["seconds"]
    # The next turn takes time too until it writes.
    assert rested == [(PROJECT, seconds["publish"] - (seconds["read"] + seconds["refit"] + seconds["rank"]))]
    monkeypatch.undo()
    queue.rest(PROJECT, 20)
    monkeypatch.setattr("backend.worker.jobs.time.sleep", slept.append)
    queue.request_turn(PROJECT)
    take_refreshes(queue)
    work(queue, max_jobs=1)
    assert 19 < slept[-1] <= 20.001


@pytest.mark.parametrize(("others", "steps"), [(False, 4), (True, 1)])
def test_a_turn_waits_for_the_end_of_a_flood_of_events_unless_another_project_waits(
    working_garage: Garage, monkeypatch: pytest.MonkeyPatch, *, others: bool, steps: int
) -> None:
    queue = get_job_queue()
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        for _ in range(30 if len(slept) < 4 else 3):
            queue.request_turn(PROJECT)
        if others:
            queue.request_turn(PROJECT + 1)

    monkeypatch.setattr("backend.worker.jobs.time.sleep", sleep)
    working_garage.add_photos(3)
    queue.request_turn(PROJECT)
    work(queue, max_jobs=1)
    assert len(finished(queue, TURNS)) == 1
    assert len(slept) == steps


def test_jobs_hold_json_and_no_pickle(job_queue: JobQueue, redis: Redis) -> None:
    """Whoever can write to Redis could otherwise run code in the worker."""
    job_queue.request_turn(PROJECT)
    (job_id,) = named(job_queue)[TURNS].job_ids
    data = redis.hget(f"rq:job:{job_id}", "data")
    assert isinstance(data, bytes)
    assert json.loads(zlib.decompress(data)) == ["backend.worker.jobs.run_turn", None, [PROJECT], {}]


def test_a_nudge_without_redis_fails_soon_and_says_why() -> None:
    queue = JobQueue(Settings(redis_url=f"redis://:s3cret@127.0.0.1:{free_port()}/0"))
    with pytest.raises(QueueUnavailableError, match="REDIS_URL") as caught:
        queue.request_turn(PROJECT)
    assert "s3cret" not in str(caught.value)


def test_a_reconcile_without_redis_is_logged_and_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    reconcile(JobQueue(Settings(redis_url=f"redis://127.0.0.1:{free_port()}/0")), [1, 2])
    assert "project 1: not reconciled" in caplog.text
    assert "project 2: not reconciled" in caplog.text


def test_a_refresh_is_interrupted_by_news_and_by_any_waiting_turn(job_queue: JobQueue) -> None:
    job_queue.request_turn(PROJECT)
    take_turns(job_queue)
    job_queue.begin(TURNS, PROJECT)
    news = job_queue.begin(REFRESHES, PROJECT)
    assert not job_queue.is_interrupted(PROJECT, news)
    job_queue.request_turn(2)
    assert job_queue.is_interrupted(PROJECT, news)
    take_turns(job_queue)
    assert not job_queue.is_interrupted(PROJECT, news)
    job_queue.request_turn(PROJECT)
    take_turns(job_queue)
    assert job_queue.is_interrupted(PROJECT, news)


# The lock


def test_a_lock_keeps_two_jobs_of_a_project_apart(job_queue: JobQueue) -> None:
    events: list[str] = []

    def job(name: str) -> None:
        with job_queue.lock(PROJECT):
            events.append(f"{name} begins")
            time.sleep(0.1)
            events.append(f"{name} ends")

    threads = [threading.Thread(target=job, args=(name,)) for name in "abc"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(events) == 6
    assert all(begin[0] == end[0] for begin, end in zip(events[::2], events[1::2], strict=True))


def test_locks_of_two_projects_do_not_wait_for_each_other(job_queue: JobQueue) -> None:
    with job_queue.lock(1), job_queue.lock(2):
        pass


def test_a_lock_is_kept_for_as_long_as_its_job_runs(
    job_queue: JobQueue, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "_LOCK_SECONDS", 1)
    with job_queue.lock(PROJECT):
        time.sleep(2)
        assert not redis.lock(f"carcond:lock:{PROJECT}").acquire(blocking=False)


def test_a_lock_is_free_after_an_error(job_queue: JobQueue) -> None:
    with pytest.raises(LabelStudioError), job_queue.lock(PROJECT):
        raise LabelStudioError("gone")
    with job_queue.lock(PROJECT):
        pass


@pytest.mark.slow
def test_a_lock_is_free_again_after_its_holder_was_killed(job_queue: JobQueue, redis_url: str) -> None:
    holder = subprocess.Popen([sys.executable, "-c", _HOLD_A_LOCK, redis_url], stdout=subprocess.PIPE)
    assert holder.stdout
    assert holder.stdout.readline() == b"held\n"
    assert not job_queue.redis.lock(f"carcond:lock:{PROJECT}").acquire(blocking=False)
    holder.kill()
    holder.communicate()
    with job_queue.lock(PROJECT):
        pass


def test_a_lock_that_was_lost_is_a_line_in_the_log(
    job_queue: JobQueue, redis: Redis, caplog: pytest.LogCaptureFixture
) -> None:
    with job_queue.lock(PROJECT):
        redis.flushall()
    assert "the lock ran out before its job ended" in caplog.text


# The jobs


def test_a_nudged_turn_and_its_refresh_run_and_leave_nothing(working_garage: Garage) -> None:
    queue = get_job_queue()
    ids = working_garage.add_photos(30)
    working_garage.label(*ids[:6])
    queue.request_turn(PROJECT)
    work(queue)
    assert waiting(queue) == (0, 0)
    (report,) = finished(queue, TURNS)
    assert (report["version"], report["refitted"], report["labelled"]) == ("carcond-0001", True, 6)
    assert finished(queue, REFRESHES) == [0]
    assert {working_garage.studio.prediction(i).model_version for i in ids[6:]} == {"carcond-0001"}


def test_a_turn_writes_its_progress(working_garage: Garage) -> None:
    queue = get_job_queue()
    working_garage.add_photos(12)
    queue.request_turn(PROJECT)
    (job,) = named(queue)[TURNS].jobs
    work(queue)
    job.refresh()  # type: ignore[no-untyped-call]
    assert job.meta["stage"] == "publishing"


def test_a_label_that_comes_during_a_turn_is_learned_in_the_next(
    working_garage: Garage, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue = get_job_queue()
    ids = working_garage.add_photos(20)
    working_garage.label(*ids[:6])
    publish = working_garage.studio.update_project

    def label_meanwhile(project_id: int, **changes: Any) -> None:
        if changes["model_version"] == "carcond-0001":
            working_garage.label(ids[6])
            assert queue.request_turn(PROJECT)
            assert not queue.request_turn(PROJECT)
        publish(project_id, **changes)

    monkeypatch.setattr(working_garage.studio, "update_project", label_meanwhile)
    queue.request_turn(PROJECT)
    work(queue)
    assert sorted(report["labelled"] for report in finished(queue, TURNS)) == [6, 7]
    assert working_garage.studio.model_version == "carcond-0002"


def test_a_refresh_gives_way_to_a_turn_and_goes_on_after_it(
    working_garage: Garage, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue = get_job_queue()
    ids = working_garage.add_photos(40)
    working_garage.label(*ids[:6])
    queue.request_turn(PROJECT)
    work(queue, max_jobs=1)
    assert waiting(queue) == (0, 1)
    create = working_garage.studio.create_prediction
    order: list[str] = []

    def news_at_the_third(draft: Any) -> Any:
        order.append("write")
        if len(order) == 3:
            queue.request_turn(PROJECT)
        return create(draft)

    monkeypatch.setattr(working_garage.studio, "create_prediction", news_at_the_third)
    work(queue, max_jobs=1)
    assert len(order) == 3
    assert waiting(queue) == (1, 1)
    work(queue)
    assert waiting(queue) == (0, 0)
    assert all(len(working_garage.studio.predictions_of(task_id)) == 1 for task_id in ids[6:])


def test_photos_that_are_left_make_a_further_turn(working_garage: Garage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("backend.loop.turn._EMBEDDING_SECONDS", 0.001)
    queue = get_job_queue()
    working_garage.add_photos(40)
    queue.request_turn(PROJECT)
    work(queue)
    left = sorted(report["photos_left"] for report in finished(queue, TURNS))
    assert len(left) > 1
    assert left[0] == 0


def test_jobs_show_the_pool_to_another_encoder_which_then_takes_over(
    working_garage: Garage, models_dir: Path, make_tiny_encoder: MakeEncoder
) -> None:
    queue = get_job_queue()
    working_garage.label(*working_garage.add_photos(40)[:12])
    queue.request_turn(PROJECT)
    work(queue)
    make_tiny_encoder(models_dir, 1)
    queue.request_turn(PROJECT)
    work(queue, max_jobs=1)
    assert len(named(queue)[EMBEDDINGS]) == SHARDS
    assert working_garage.studio.model_version == "carcond-0001"
    work(queue)
    version = working_garage.services.registry(PROJECT).current()
    assert version
    assert (version.name, version.heads.encoder_id) == ("carcond-0002", "tiny-00000001")
    assert working_garage.studio.model_version == "carcond-0002"
    assert len(named(queue)[EMBEDDINGS]) == 0


def test_jobs_of_a_project_that_label_studio_does_not_have_are_dropped_with_a_line_each(
    working_garage: Garage, caplog: pytest.LogCaptureFixture
) -> None:
    queue, missing = get_job_queue(), PROJECT + 1
    queue.request_turn(missing)
    queue.enqueue_refresh(missing)
    work(queue)
    assert (finished(queue, TURNS), finished(queue, REFRESHES)) == ([{}], [0])
    dropped = [record.getMessage() for record in caplog.records if record.name == "backend.worker.jobs"]
    assert [line.partition(" is dropped: ")[0] for line in dropped] == [
        f"project {missing}: its turn",
        f"project {missing}: its refresh",
    ]
    assert waiting(queue) == (0, 0)


def test_a_share_that_was_asked_for_twice_makes_no_further_turn(working_garage: Garage) -> None:
    queue = get_job_queue()
    working_garage.add_photos(20)
    working_garage.turn()
    assert run_embedding(PROJECT, "tiny-00000000", 0) == 0
    assert waiting(queue) == (0, 0)


def test_a_share_that_a_worker_is_at_is_left_to_it(
    working_garage: Garage, models_dir: Path, make_tiny_encoder: MakeEncoder
) -> None:
    queue = get_job_queue()
    working_garage.add_photos(20)
    working_garage.turn()
    make_tiny_encoder(models_dir, 1)
    with queue.lock(PROJECT, EMBEDDINGS, mark=f"{PROJECT}:tiny-00000001:0"):
        assert run_embedding(PROJECT, "tiny-00000001", 0) == 20
        assert run_embedding(PROJECT, "tiny-00000001", 1) < 20
    assert len(named(queue)[EMBEDDINGS]) == 0
    assert waiting(queue) == (0, 0)


def test_the_pool_of_a_project_that_was_let_go_is_not_shown(
    working_garage: Garage, models_dir: Path, make_tiny_encoder: MakeEncoder
) -> None:
    working_garage.add_photos(20)
    working_garage.turn()
    make_tiny_encoder(models_dir, 1)
    store = working_garage.services.store
    close_record(store, keep_record(store, PROJECT, [], "anna"), "anna")
    store.retire_project(PROJECT)
    assert run_embedding(PROJECT, "tiny-00000001", 0) == 0
    assert unseen_photos(store, PROJECT, "tiny-00000001") == 20


def test_the_pool_is_not_shown_while_a_turn_waits(
    working_garage: Garage, models_dir: Path, make_tiny_encoder: MakeEncoder
) -> None:
    queue = get_job_queue()
    working_garage.add_photos(20)
    make_tiny_encoder(models_dir, 1)
    working_garage.turn()
    make_tiny_encoder(models_dir, 2)
    queue.request_turn(PROJECT)
    assert run_embedding(PROJECT, "tiny-00000002", 0) == 20
    assert named(queue)[EMBEDDINGS].jobs[0].args == [PROJECT, "tiny-00000002", 0]  # it goes on after the turn


def test_a_failed_turn_is_no_obstacle_to_the_next(working_garage: Garage) -> None:
    queue = get_job_queue()
    working_garage.add_photos(12)
    working_garage.studio.writes_until_failure = 0
    queue.request_turn(PROJECT)
    work(queue)
    (job_id,) = named(queue)[TURNS].failed_job_registry.get_job_ids()
    outcome = Job.fetch(job_id, queue.redis, serializer=JSONSerializer).latest_result()
    assert outcome
    assert "LabelStudioError" in str(outcome.exc_string)
    working_garage.studio.writes_until_failure = None
    assert queue.request_turn(PROJECT)
    work(queue)
    assert len(finished(queue, TURNS)) == 1
