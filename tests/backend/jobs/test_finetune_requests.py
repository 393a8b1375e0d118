from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from redis import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from rq import SimpleWorker
from rq.serializers import JSONSerializer

from backend.jobs.finetune_record import FinetuneRecord
from backend.jobs.finetune_requests import begin_if_grown, cancel_finetuning, resume_finetunings, start_finetuning
from backend.jobs.queue import FINETUNES, JobQueue, get_job_queue
from backend.worker.finetuning import FineTuning
from backend.worker.jobs import run_finetuning
from carcond.errors import OutOfMemoryError, QueueUnavailableError, TrainingCancelledError, TrainingError
from carcond.settings import Settings
from tests.backend.conftest import MakeSettings
from tests.backend.http_server import free_port

PROJECT = 1
FACTS: dict[str, Any] = {
    "best_epoch": 1,
    "epochs": 2,
    "measured_on": "validation",
    "against_frozen": {},
    "train_accuracy": {},
    "seconds": 3.0,
    "peak_memory_mb": 900,
    "tasks": {},
}

Ends = Callable[[Any], None]


class Killed(BaseException):
    """Nothing catches it."""


@pytest.fixture
def record(job_queue: JobQueue) -> FinetuneRecord:
    return FinetuneRecord(job_queue.redis, PROJECT)


@pytest.fixture
def training_ends(monkeypatch: pytest.MonkeyPatch) -> Ends:
    """Call with an encoder's id, or with what is raised: so ends each training from then on."""

    def use(end: Any) -> None:
        def run(self: FineTuning, note_labels: Callable[[int], None]) -> dict[str, Any]:
            note_labels(40)
            self.tell({"stage": "training", "done": 1, "total": 2, "epoch": 1, "epochs": 2, "seconds_left": 5.0})
            if isinstance(end, BaseException):
                raise end
            return {"encoder_id": end, "facts": FACTS}

        monkeypatch.setattr(FineTuning, "run", run)

    return use


def waiting(queue: JobQueue) -> int:
    return len(queue.queues([FINETUNES])[0])


def test_one_at_a_time_is_asked_for(job_queue: JobQueue, record: FinetuneRecord) -> None:
    assert start_finetuning(job_queue, PROJECT, "anna")
    assert not start_finetuning(job_queue, PROJECT, "ben")
    assert start_finetuning(job_queue, PROJECT + 1, "ben")
    assert waiting(job_queue) == 2
    assert (record.read()["state"], record.read()["who"]) == ("waiting", "anna")


def test_a_worker_of_the_loop_leaves_it_alone(job_queue: JobQueue) -> None:
    start_finetuning(job_queue, PROJECT, "anna")
    assert FINETUNES not in [queue.name for queue in job_queue.queues()]
    SimpleWorker(job_queue.queues(), connection=job_queue.redis, serializer=JSONSerializer).work(burst=True)
    assert waiting(job_queue) == 1


def test_what_was_made_is_recorded_and_the_loop_is_nudged(
    job_queue: JobQueue, record: FinetuneRecord, training_ends: Ends
) -> None:
    training_ends("tiny-00000001")
    start_finetuning(job_queue, PROJECT, "anna")
    assert run_finetuning(PROJECT) == "done"
    told = record.read()
    assert (told["state"], told["encoder_id"], told["labels"], told["who"]) == ("done", "tiny-00000001", 40, "anna")
    assert told["facts"]["peak_memory_mb"] == 900
    assert "tasks" not in told["facts"]
    assert told["ended"] >= told["began"] >= told["asked"]
    assert len(job_queue.queues()[0]) == 1
    assert run_finetuning(PROJECT) == "not wanted any more"
    assert start_finetuning(job_queue, PROJECT, "ben")


@pytest.mark.parametrize(
    ("end", "out_of_memory"), [(TrainingError("too few"), False), (OutOfMemoryError("out of memory: 9 MB"), True)]
)
def test_a_failure_is_recorded_with_its_reason_and_does_not_fail_the_worker(
    record: FinetuneRecord, job_queue: JobQueue, training_ends: Ends, end: TrainingError, out_of_memory: bool
) -> None:
    training_ends(end)
    start_finetuning(job_queue, PROJECT, "anna")
    assert run_finetuning(PROJECT) == "failed"
    told = record.read()
    assert (told["state"], told["reason"], told["out_of_memory"]) == ("failed", str(end), out_of_memory)
    assert len(job_queue.queues()[0]) == 0


def test_one_that_waits_is_cancelled_at_once(job_queue: JobQueue, record: FinetuneRecord, training_ends: Ends) -> None:
    assert not cancel_finetuning(job_queue, PROJECT)
    training_ends(AssertionError("it must not run"))
    start_finetuning(job_queue, PROJECT, "anna")
    assert cancel_finetuning(job_queue, PROJECT)
    assert record.read()["state"] == "cancelled"
    assert run_finetuning(PROJECT) == "not wanted any more"


def test_one_that_runs_is_told_and_what_it_has_is_removed(
    job_queue: JobQueue, record: FinetuneRecord, training_ends: Ends, monkeypatch: pytest.MonkeyPatch
) -> None:
    removed: list[Path] = []
    monkeypatch.setattr(FineTuning, "remove", lambda self: removed.append(self.directory))
    training_ends(TrainingCancelledError("cancelled"))
    start_finetuning(job_queue, PROJECT, "anna")
    with job_queue.lock(PROJECT, FINETUNES):
        assert cancel_finetuning(job_queue, PROJECT)
        assert record.is_cancelled
        assert record.is_under_way  # until its worker has seen it
    assert run_finetuning(PROJECT) == "cancelled"
    assert record.read()["state"] == "cancelled"
    assert [directory.name for directory in removed] == [str(PROJECT)]


def test_what_was_cancelled_while_no_worker_was_at_it_is_not_gone_on_with(
    job_queue: JobQueue, record: FinetuneRecord, training_ends: Ends, monkeypatch: pytest.MonkeyPatch
) -> None:
    removed: list[Path] = []
    monkeypatch.setattr(FineTuning, "remove", lambda self: removed.append(self.directory))
    training_ends(Killed())
    start_finetuning(job_queue, PROJECT, "anna")
    with pytest.raises(Killed):
        run_finetuning(PROJECT)
    assert cancel_finetuning(job_queue, PROJECT)
    start_finetuning(job_queue, PROJECT, "ben")
    for _ in range(2):  # it may be killed itself, and then goes on from what it had
        with pytest.raises(Killed):
            run_finetuning(PROJECT)
    assert [directory.name for directory in removed] == [str(PROJECT)]


def test_a_redis_that_is_away_for_a_moment_cancels_nothing(
    job_queue: JobQueue, record: FinetuneRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(self: FineTuning, _note_labels: Callable[[int], None]) -> dict[str, Any]:
        with monkeypatch.context() as away:
            away.setattr(Redis, "execute_command", _refuse)
            assert not self.is_cancelled()
        return {"encoder_id": None, "facts": FACTS}

    monkeypatch.setattr(FineTuning, "run", run)
    start_finetuning(job_queue, PROJECT, "anna")
    assert run_finetuning(PROJECT) == "done"


def _refuse(*_: Any, **__: Any) -> None:
    raise RedisConnectionError


def test_two_workers_do_not_train_for_one_project(job_queue: JobQueue, training_ends: Ends) -> None:
    training_ends(AssertionError("it must not run"))
    start_finetuning(job_queue, PROJECT, "anna")
    with job_queue.lock(PROJECT, FINETUNES):
        assert run_finetuning(PROJECT) == "under way elsewhere"


def test_turns_do_not_wait_for_it(job_queue: JobQueue) -> None:
    with job_queue.lock(PROJECT, FINETUNES), job_queue.lock(PROJECT, wait=False) as held:
        assert held


def test_one_whose_worker_was_killed_is_asked_for_again_once(job_queue: JobQueue, record: FinetuneRecord) -> None:
    start_finetuning(job_queue, PROJECT, "anna")
    resume_finetunings(job_queue, [PROJECT])
    assert waiting(job_queue) == 1  # it waits already
    job_queue.queues([FINETUNES])[0].empty()  # type: ignore[no-untyped-call]  # rq leaves it untyped
    job_queue.begin(FINETUNES, PROJECT)
    record.write(state="running")
    with job_queue.lock(PROJECT, FINETUNES):
        resume_finetunings(job_queue, [PROJECT])
        assert waiting(job_queue) == 0  # it runs
    resume_finetunings(job_queue, [PROJECT, PROJECT + 1])
    resume_finetunings(job_queue, [PROJECT])
    assert job_queue.waiting_finetunings() == {PROJECT}
    assert waiting(job_queue) == 1


def test_what_kills_it_each_time_is_not_tried_for_ever(
    job_queue: JobQueue, record: FinetuneRecord, training_ends: Ends
) -> None:
    start_finetuning(job_queue, PROJECT, "anna")
    training_ends("tiny-00000001")
    record.write(state="running", starts=5)
    assert run_finetuning(PROJECT) == "failed"
    assert "begun 5 times" in record.read()["reason"]


def test_a_completed_epoch_counts_as_getting_on(
    job_queue: JobQueue, record: FinetuneRecord, training_ends: Ends
) -> None:
    start_finetuning(job_queue, PROJECT, "anna")
    training_ends(Killed())
    for _ in range(7):
        with pytest.raises(Killed):
            run_finetuning(PROJECT)
    assert (record.read()["state"], record.read()["starts"]) == ("running", 0)


def grown(make_settings: MakeSettings, redis_url: str, growth: str) -> JobQueue:
    make_settings(REDIS_URL=redis_url, CARCOND_FINETUNE_GROWTH=growth, CARCOND_FINETUNE_MIN_LABELS="100")
    return get_job_queue()


def test_it_never_begins_by_itself_unless_told_to(make_settings: MakeSettings, redis_url: str) -> None:
    assert not begin_if_grown(grown(make_settings, redis_url, "0"), PROJECT, 10_000, 0)


@pytest.mark.parametrize(
    ("labels", "learnt", "begins"), [(99, 0, False), (100, 0, True), (399, 200, False), (400, 200, True)]
)
def test_it_begins_when_labels_have_grown_by_the_factor(
    make_settings: MakeSettings, redis_url: str, labels: int, learnt: int, begins: bool
) -> None:
    queue = grown(make_settings, redis_url, "2")
    assert begin_if_grown(queue, PROJECT, labels, learnt) == begins
    assert waiting(queue) == begins


def test_one_that_failed_counts_as_the_last(make_settings: MakeSettings, redis: Redis, redis_url: str) -> None:
    queue = grown(make_settings, redis_url, "2")
    record = FinetuneRecord(redis, PROJECT)
    record.begin("loop")
    record.end("failed", labels=150)
    assert not begin_if_grown(queue, PROJECT, 299, 0)
    assert begin_if_grown(queue, PROJECT, 300, 0)
    assert record.read()["labels"] == 150  # remembered until it is known of the new one


def test_without_redis_it_is_said() -> None:
    queue = JobQueue(Settings(redis_url=f"redis://127.0.0.1:{free_port()}/0"))
    with pytest.raises(QueueUnavailableError):
        start_finetuning(queue, PROJECT, "anna")
