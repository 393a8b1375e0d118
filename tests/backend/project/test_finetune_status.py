import getpass
import json
from typing import Any

import pytest
from rq import Worker
from rq.serializers import JSONSerializer
from typer.testing import CliRunner, Result

from backend.cli.main import app
from backend.jobs.finetune_record import FinetuneRecord
from backend.jobs.queue import FINETUNES, JobQueue, get_job_queue
from backend.project.finetune_status import finetune_facts, finetune_text
from backend.services import get_services
from carcond.errors import StoreError, TrainingError
from tests.backend.conftest import MakeSettings
from tests.carcond.made_cards import HOSTILE

PROJECT = 1


@pytest.fixture
def served(job_queue: JobQueue) -> FinetuneRecord:
    """A project that the loop serves, with no fine-tuning so far."""
    get_services().store.add_project(PROJECT)
    return FinetuneRecord(job_queue.redis, PROJECT)


def run(*more: str) -> Result:
    return CliRunner().invoke(app, ["finetune", "--project", str(PROJECT), *more], catch_exceptions=False)


def facts(*more: str) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(run("--json", *more).stdout)
    return told


def text() -> str:
    return finetune_text(finetune_facts(get_services(), get_job_queue(), PROJECT))


def test_it_is_asked_for_once_seen_and_cancelled(served: FinetuneRecord) -> None:
    told = facts()
    assert (told["state"], told["who"], told["has_worker"], told["encoder"]) == (
        "waiting", getpass.getuser(), False, None
    )  # fmt: skip
    with pytest.raises(TrainingError, match="under way: see it with --status, or end it with --cancel"):
        run()
    assert facts("--status") == told
    assert facts("--cancel")["state"] == "cancelled"
    with pytest.raises(TrainingError, match="no fine-tuning under way"):
        run("--cancel")


def test_status_asks_for_nothing(served: FinetuneRecord) -> None:
    assert facts("--status")["state"] == "never"
    assert served.read() == {}


def test_two_wishes_at_once_are_refused(served: FinetuneRecord) -> None:
    assert run("--cancel", "--status").exit_code == 2


def test_a_project_that_is_not_served_is_named(served: FinetuneRecord) -> None:
    with pytest.raises(StoreError, match="project 9 is not known here"):
        CliRunner().invoke(app, ["finetune", "--project", "9"], catch_exceptions=False)


def test_that_nobody_takes_it_is_said_with_what_to_do(served: FinetuneRecord, job_queue: JobQueue) -> None:
    served.begin("anna")
    assert "no worker takes it: start one with python -m backend.worker --queues finetune" in text()
    worker = Worker(job_queue.queues([FINETUNES]), connection=job_queue.redis, serializer=JSONSerializer)
    worker.register_birth()  # type: ignore[no-untyped-call]  # rq leaves it untyped
    assert text().endswith("asked for by anna")
    job_queue.redis.hset(worker.key, "last_heartbeat", "2020-01-01T00:00:00.0Z")  # it was killed
    assert "no worker takes it" in text()
    worker.register_death()  # type: ignore[no-untyped-call]


def test_progress_and_the_time_left_are_told(served: FinetuneRecord) -> None:
    served.begin("loop")
    served.write(state="running")
    assert text().startswith("begins")
    served.write(stage="training", done=30, total=60, epoch=2, epochs=4, seconds_left=3725.4)
    assert text().startswith("training 30 of 60, 2 of 4 epochs, 1:02:05 left, asked for by loop")
    served.write(cancel=True)
    assert text().startswith("is being cancelled")


def test_the_end_is_told(served: FinetuneRecord) -> None:
    served.begin("anna")
    served.end("failed", reason="out of memory: it took 9000 MB", out_of_memory=True)
    assert text().startswith("failed 20")
    assert "out of memory: it took 9000 MB" in text()
    served.end("done", encoder_id=None)
    assert text().endswith("no epoch was better than the encoder as it was, which stays")


@pytest.mark.parametrize(
    ("encoder", "words"),
    [
        ({"verdict": "waits", "photos_left": 300}, "tiny has yet to see 300 photos"),
        ({"verdict": "waits", "photos_left": 0}, "tiny waits for its trial"),
        ({"verdict": "accepted", "version": "carcond-0007"}, "tiny was accepted with carcond-0007"),
        (
            {"verdict": "refused", "version": "carcond-0007", "reason": "worse, damage"},
            "tiny was refused with carcond-0007, the old encoder stays: worse, damage",
        ),
    ],
)
def test_what_became_of_the_encoder_is_told(encoder: dict[str, Any], words: str) -> None:
    assert finetune_text({"state": "unknown", "encoder": {"encoder_id": "tiny", **encoder}}).splitlines() == [
        "not known: Redis cannot be reached",
        words,
    ]


def test_without_redis_it_is_not_known(make_settings: MakeSettings) -> None:
    make_settings()
    get_services().store.add_project(PROJECT)
    assert finetune_facts(get_services(), get_job_queue(), PROJECT) == {"state": "unknown", "encoder": None}


def test_names_cannot_rewrite_the_terminal() -> None:
    told = finetune_text({"state": "failed", "ended": HOSTILE, "reason": HOSTILE, "encoder": {"encoder_id": HOSTILE}})
    assert "\x1b" not in told
    assert "\u202e" not in told
