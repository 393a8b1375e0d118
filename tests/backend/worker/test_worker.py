import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from rq.worker_registration import clean_worker_registry

from backend.jobs.finetune_record import FinetuneRecord
from backend.jobs.finetune_requests import cancel_finetuning, start_finetuning
from backend.jobs.queue import TURNS, get_job_queue
from backend.jobs.queue_state import alive_workers
from backend.services import get_services
from backend.web.app import create_app
from backend.worker.__main__ import LoopWorker
from tests.backend.conftest import MakeSettings
from tests.backend.http_server import HttpServer, Reply, Request, free_port
from tests.backend.label_configs import ENGLISH
from tests.backend.label_studio.test_client import json_reply

pytestmark = pytest.mark.slow

PROJECT = 1
UNKNOWN = range(100, 400)
_WAIT_SECONDS = 60


class EmptyProject:
    """Label Studio with one project without tasks. `hold` seconds pass before it answers."""

    def __init__(self, server: HttpServer) -> None:
        self.hold = 0.0
        self.asked = 0
        self.asked_of_others = 0
        server.answers[f"/api/projects/{PROJECT}/"] = self.project
        server.answers |= {f"/api/projects/{i}/": self.no_project for i in UNKNOWN}
        server.answers["/api/tasks/"] = json_reply({"tasks": [], "total": 0})

    def project(self, _: Request) -> Reply:
        self.asked += 1
        time.sleep(self.hold)
        return json_reply({"id": PROJECT, "title": "cars", "label_config": ENGLISH, "task_number": 0})

    def no_project(self, _: Request) -> Reply:
        self.asked_of_others += 1
        return json_reply({"detail": "No Project matches the given query."}, status=404)


@pytest.fixture
def project(redis_url: str, server: HttpServer, make_settings: MakeSettings) -> EmptyProject:
    make_settings(REDIS_URL=redis_url, LABEL_STUDIO_URL=server.url, CARCOND_RECONCILE_EVERY_S="1")
    return EmptyProject(server)


@pytest.fixture
def start_worker(project: EmptyProject, tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Starts `python -m backend.worker` in this environment."""
    started: list[subprocess.Popen[bytes]] = []

    def start(*arguments: str) -> subprocess.Popen[bytes]:
        log = (tmp_path / f"worker-{len(started)}.log").open("wb")
        with log:
            started.append(
                subprocess.Popen([sys.executable, "-m", "backend.worker", *arguments], stdout=log, stderr=log)
            )
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _WAIT_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.05)


def serve_project() -> None:
    store = get_services().store
    store.add_project(PROJECT)
    store.close()


def test_a_worker_runs_turns_from_its_start_and_again_and_again(
    project: EmptyProject, start_worker: Callable[[], subprocess.Popen[bytes]], tmp_path: Path
) -> None:
    serve_project()
    process = start_worker()
    until(lambda: project.asked >= 3)
    process.send_signal(signal.SIGTERM)
    assert process.wait(_WAIT_SECONDS) == 0
    log = (tmp_path / "worker-0.log").read_text()
    assert "'version': 'carcond-0000'" in log
    assert "Traceback" not in log
    assert os.environ["LABEL_STUDIO_API_KEY"] not in log


def test_a_nudge_is_taken_up(project: EmptyProject, start_worker: Callable[[], subprocess.Popen[bytes]]) -> None:
    start_worker()
    get_job_queue().request_turn(PROJECT)
    until(lambda: project.asked >= 1)


def test_a_killed_worker_takes_its_job_along_and_another_goes_on(
    project: EmptyProject, start_worker: Callable[[], subprocess.Popen[bytes]]
) -> None:
    serve_project()
    project.hold = 5
    process = start_worker()
    until(lambda: project.asked == 1)
    (horse,) = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    process.kill()
    process.wait()
    until(lambda: not _runs(int(horse)))
    project.hold = 0
    start_worker()
    until(lambda: project.asked >= 2)


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_no_database_connection_is_open_when_a_job_is_forked(project: EmptyProject) -> None:
    serve_project()
    queue, services = get_job_queue(), get_services()
    LoopWorker(queue, services).run_maintenance_tasks()
    database = services.settings.database_url.removeprefix("sqlite:///")
    links = [os.readlink(link) for link in Path("/proc/self/fd").iterdir() if link.exists()]
    assert not [target for target in links if target.startswith(database)]
    assert len(queue.queues()[0]) == 1


@pytest.mark.parametrize("beats", [True, False], ids=["with a heartbeat since", "without one"])
def test_a_worker_whose_registration_ran_out_while_the_machine_slept_registers_again(
    beats: bool, project: EmptyProject
) -> None:
    queue = get_job_queue()
    worker = LoopWorker(queue, get_services())
    worker.register_birth()  # type: ignore[no-untyped-call]  # rq leaves it untyped
    queue.redis.delete(worker.key)
    assert alive_workers(queue, TURNS) == 0  # and whoever looked has struck it off the list
    for each in queue.queues():
        clean_worker_registry(each)
    if beats:
        worker.heartbeat()
    worker.run_maintenance_tasks()
    assert alive_workers(queue, TURNS) == 1
    born = queue.redis.hget(worker.key, "birth")
    assert born
    worker.run_maintenance_tasks()
    assert queue.redis.hget(worker.key, "birth") == born


def test_a_worker_without_redis_says_so_and_ends(
    start_worker: Callable[[], subprocess.Popen[bytes]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("REDIS_URL", f"redis://:s3cret@127.0.0.1:{free_port()}/0")
    process = start_worker()
    assert process.wait(_WAIT_SECONDS) == 1
    log = (tmp_path / "worker-0.log").read_text()
    assert "the worker cannot run" in log
    assert "Traceback" not in log
    assert "s3cret" not in log


def test_an_older_worker_refuses_to_start_on_a_newer_store_and_says_why(
    newer_store: str, models_dir: Path, redis_url: str
) -> None:
    settings = {
        "DATABASE_URL": newer_store,
        "CARCOND_MODELS_DIR": str(models_dir),
        "REDIS_URL": redis_url,
    }
    done = subprocess.run(
        [sys.executable, "-m", "backend.worker"],
        env=os.environ | settings,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("the worker cannot run: expected a store of revision")


def test_a_worker_for_fine_tunings_takes_no_turns(
    project: EmptyProject, start_worker: Callable[..., subprocess.Popen[bytes]]
) -> None:
    serve_project()
    queue = get_job_queue()
    start_worker("--queues", "finetune")
    start_finetuning(queue, PROJECT, "anna")
    record = FinetuneRecord(queue.redis, PROJECT)
    until(lambda: not record.is_under_way)
    told = record.read()
    assert told["state"] == "failed"  # nothing is labelled
    assert "got 0 that can be read" in told["reason"]
    assert project.asked == 0


def test_a_worker_that_is_told_to_stop_does_not_wait_for_a_fine_tuning_and_the_next_goes_on_with_it(
    project: EmptyProject,
    start_worker: Callable[..., subprocess.Popen[bytes]],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    serve_project()
    os.mkfifo(tmp_path / "training.yaml")  # settings for which it waits
    monkeypatch.setenv("CARCOND_FINETUNE_CONFIG", str(tmp_path / "training.yaml"))
    queue = get_job_queue()
    start_finetuning(queue, PROJECT, "anna")
    record = FinetuneRecord(queue.redis, PROJECT)
    process = start_worker("--queues", "finetune")
    until(lambda: record.read()["state"] == "running")
    process.send_signal(signal.SIGTERM)
    assert process.wait(_WAIT_SECONDS) == 0
    assert record.is_under_way
    start_worker("--queues", "finetune")
    until(lambda: record.read().get("starts") == 2)
    cancel_finetuning(queue, PROJECT)
    (tmp_path / "training.yaml").write_text("epochs: 1\n")
    until(lambda: not record.is_under_way)


def test_a_queue_that_is_none_is_refused(start_worker: Callable[..., subprocess.Popen[bytes]], tmp_path: Path) -> None:
    assert start_worker("--queues", "finetunes").wait(_WAIT_SECONDS) == 2
    assert "invalid choice: 'finetunes'" in (tmp_path / "worker-0.log").read_text()


@pytest.mark.parametrize("name", ["os.system", "backend.jobs.run_turn", "subprocess.getoutput\n\x1b[31m"])
def test_a_job_that_is_none_of_ours_is_dropped_and_the_next_one_runs(
    start_worker: Callable[..., subprocess.Popen[bytes]], project: EmptyProject, tmp_path: Path, name: str
) -> None:
    get_services().store.add_project(PROJECT)
    queue = get_job_queue()
    (turns,) = queue.queues([TURNS])
    turns.enqueue_call(name, args=[f"touch {tmp_path / 'ran'}"])
    garbage = turns.enqueue_call("os.getpid")
    queue.redis.hset(garbage.key, "data", b"no job")
    start_worker()
    until(lambda: project.asked > 0)
    until(lambda: len(turns) == 0)
    assert not (tmp_path / "ran").exists()
    log = (tmp_path / "worker-0.log").read_text()
    assert "no job of carcond" in log
    assert "\x1b" not in log
    assert turns.failed_job_registry.count == 0


def test_three_hundred_unknown_projects_do_not_delay_a_label(
    project: EmptyProject,
    start_worker: Callable[[], subprocess.Popen[bytes]],
    server: HttpServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CARCOND_DEBOUNCE_S", "0.3")
    monkeypatch.setenv("CARCOND_RECONCILE_EVERY_S", "600")
    serve_project()
    start_worker()
    until(lambda: project.asked == 1)
    client, new = create_app(get_services()).test_client(), PROJECT + 1
    server.answers[f"/api/projects/{new}/"] = json_reply(
        {"id": new, "title": "vans", "label_config": ENGLISH, "task_number": 0}
    )
    for unknown in (*UNKNOWN, new):
        client.post("/webhook", json={"action": "ANNOTATION_CREATED", "project": {"id": unknown}})
        assert client.post("/setup", json={"project": f"{unknown}.1"}).status_code == 200
    for labels in (2, 3):  # the first one as they are being looked at
        began = time.monotonic()
        client.post("/webhook", json={"action": "ANNOTATION_CREATED", "project": {"id": PROJECT}})
        until(lambda labels=labels: project.asked == labels)  # type: ignore[misc]
        assert time.monotonic() - began < 10
    # All were looked at, each once, and the one that exists is served.
    until(lambda: not get_job_queue().begin_admissions())
    assert project.asked_of_others == len(UNKNOWN)
    until(lambda: get_services().store.project_ids() == [PROJECT, new])
    get_services().store.close()


def test_a_new_project_is_served_once_label_studio_answers_again(
    project: EmptyProject, start_worker: Callable[[], subprocess.Popen[bytes]], server: HttpServer
) -> None:
    server.answers[f"/api/projects/{PROJECT}/"] = Reply(status=502)
    get_job_queue().request_admission(PROJECT)
    start_worker()
    until(lambda: len(server.requests) >= 3)
    assert get_services().store.project_ids() == []
    server.answers[f"/api/projects/{PROJECT}/"] = project.project
    until(lambda: get_services().store.project_ids() == [PROJECT])
    get_services().store.close()
