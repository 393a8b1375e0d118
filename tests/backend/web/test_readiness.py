import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient
from rq import SimpleWorker
from rq.serializers import JSONSerializer

from backend.jobs.queue import get_job_queue
from backend.services import get_services
from backend.web import readiness
from backend.web.app import create_app
from carcond.registry.registry import Registry
from scripts.redis_server import answers, find_server
from tests.backend.conftest import API_KEY, MakeSettings
from tests.backend.http_server import HttpServer, Reply, free_port

PASSWORD = "basic-password-never-to-be-told"
CREDENTIALS = ("label-studio", PASSWORD)
NAMES = {"worker", "redis", "store", "registry", "label_studio"}
WHOAMI = "/api/current-user/whoami"


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """A Redis of the test's own, which it may stop: its address and its process."""
    port = free_port()
    command = [str(find_server()), "--bind", "127.0.0.1", "--port", str(port), "--save", "", "--dir", str(tmp_path)]
    url = f"redis://127.0.0.1:{port}/0"
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        while not answers(url):
            time.sleep(0.02)
        yield url, process
        process.kill()


@pytest.fixture
def client(
    own_redis: tuple[str, subprocess.Popen[bytes]],
    server: HttpServer,
    make_settings: MakeSettings,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[FlaskClient]:
    """The application of a stack in which all is well; answers are kept for no time."""
    monkeypatch.setattr(readiness, "_KEPT_S", 0.0)
    server.answers[WHOAMI] = Reply(b"{}")
    make_settings(
        REDIS_URL=own_redis[0],
        LABEL_STUDIO_URL=server.url,
        CARCOND_BASIC_AUTH_USER=CREDENTIALS[0],
        CARCOND_BASIC_AUTH_PASSWORD=PASSWORD,
    )
    get_services().store  # noqa: B018 - made before the first request, as the server does
    queue = get_job_queue()
    worker = SimpleWorker(queue.queues(), connection=queue.redis, serializer=JSONSerializer)
    worker.register_birth()  # type: ignore[no-untyped-call]  # rq leaves it untyped
    yield create_app().test_client()
    get_services().store.close()


def problems(client: FlaskClient) -> dict[str, str]:
    """The checks that are not ok, with what is wrong; makes sure that status and flags say the same."""
    response = client.get("/ready", auth=CREDENTIALS)
    body: dict[str, Any] = response.get_json()
    wrong = {name: check for name, check in body["checks"].items() if not check["ok"]}
    assert body["checks"].keys() == NAMES
    assert (response.status_code, body["ready"]) == ((503, False) if wrong else (200, True))
    assert all(check == {"ok": True} for name, check in body["checks"].items() if name not in wrong)
    return {name: check["problem"] for name, check in wrong.items()}


def test_a_whole_stack_is_ready(client: FlaskClient, server: HttpServer) -> None:
    assert problems(client) == {}
    assert server.tokens == [f"Token {API_KEY}"]


def test_without_a_living_worker_it_is_not_ready(client: FlaskClient) -> None:
    get_job_queue().redis.flushall()
    assert problems(client) == {"worker": "no worker is alive: labels are kept, none is learnt"}


def test_without_redis_neither_redis_nor_a_worker_is_ready(
    client: FlaskClient, own_redis: tuple[str, subprocess.Popen[bytes]]
) -> None:
    assert problems(client) == {}
    own_redis[1].kill()
    own_redis[1].wait()
    found = problems(client)
    assert found.keys() == {"redis", "worker"}
    assert "Redis, which holds the jobs, could not be reached" in found["redis"]


def test_a_redis_that_hangs_costs_a_second_and_one_thread_a_check(
    client: FlaskClient, own_redis: tuple[str, subprocess.Popen[bytes]]
) -> None:
    own_redis[1].send_signal(signal.SIGSTOP)
    began = time.monotonic()
    assert problems(client) == dict.fromkeys(["redis", "worker"], "no answer within 1 s")
    assert time.monotonic() - began < 1.5
    assert problems(client).keys() == {"redis", "worker"}
    own_redis[1].send_signal(signal.SIGCONT)
    assert problems(client) == {}


def test_a_broken_store_is_named(client: FlaskClient, tmp_path: Path) -> None:
    assert problems(client) == {}
    get_services().store.close()
    for file in tmp_path.glob("store.sqlite3*"):
        file.write_bytes(b"no database" * 1000)
    found = problems(client)
    assert found.keys() == {"store"}
    assert found["store"].startswith("the store cannot be read")


def test_a_project_of_which_no_version_can_be_read_is_named(
    client: FlaskClient, models_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = models_dir / "projects" / "7"
    project.mkdir(parents=True)
    (project / "current").write_text("0003\n")
    assert problems(client) == {"registry": "no version can be read of project 7"}
    (project / "current").unlink()
    assert problems(client) == {}
    assert Registry(models_dir, 7).current() is None


def test_without_an_encoder_there_is_not_even_a_cold_start(client: FlaskClient, models_dir: Path) -> None:
    (models_dir / "encoders" / "current").unlink()
    assert problems(client).keys() == {"registry"}


@pytest.mark.parametrize(
    ("reply", "problem"),
    [
        (Reply(status=401), "Label Studio answered HTTP 401 to our token"),
        (Reply(status=500), "Label Studio answered HTTP 500 to our token"),
        (Reply(stream=lambda _: time.sleep(1.5)), "no answer within 1 s"),
    ],
    ids=["refuses the token", "fails", "hangs"],
)
def test_a_label_studio_that_does_not_answer_as_it_should_is_named(
    client: FlaskClient, server: HttpServer, reply: Reply, problem: str
) -> None:
    server.answers[WHOAMI] = reply
    began = time.monotonic()
    found = problems(client)
    assert time.monotonic() - began < 1.5
    assert found.keys() == {"label_studio"}
    assert found["label_studio"] in (problem, "Label Studio could not be reached (ReadTimeout)")


def test_a_label_studio_that_is_down_is_named_without_its_address(make_settings: MakeSettings, redis_url: str) -> None:
    make_settings(REDIS_URL=redis_url)
    client = create_app().test_client()
    problem = client.get("/ready").get_json()["checks"]["label_studio"]["problem"]
    assert problem == "Label Studio could not be reached (ConnectError)"


@pytest.mark.parametrize("auth", [None, ("label-studio", "wrong")])
def test_strangers_see_what_is_not_ready_and_not_why(client: FlaskClient, auth: tuple[str, str] | None) -> None:
    get_job_queue().redis.flushall()
    response = client.get("/ready", auth=auth)
    assert response.status_code == 503
    assert response.get_json() == {
        "ready": False,
        "checks": {name: {"ok": name != "worker"} for name in NAMES},
    }


def test_many_probes_ask_label_studio_once(
    client: FlaskClient, server: HttpServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(readiness, "_KEPT_S", 60.0)

    def probe(_: int) -> int:
        return client.application.test_client().get("/ready").status_code

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(probe, range(40))) == {200}
    assert len(server.requests) == 1


def test_while_one_caller_checks_again_others_get_the_last_answer(client: FlaskClient, server: HttpServer) -> None:
    assert problems(client) == {}
    server.answers[WHOAMI] = Reply(stream=lambda _: time.sleep(1.5))
    with ThreadPoolExecutor(1) as pool:
        slow = pool.submit(lambda: client.application.test_client().get("/ready").status_code)
        time.sleep(0.2)
        began = time.monotonic()
        assert problems(client) == {}
        assert time.monotonic() - began < 0.5
        assert slow.result() == 503


def test_an_unexpected_error_of_a_check_stays_in_the_log(
    client: FlaskClient, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> Callable[[], list[int]]:
        raise ZeroDivisionError("a secret")

    monkeypatch.setattr(get_services().store, "project_ids", fail)
    assert problems(client) == {"store": "an unexpected error; see the backend's log"}
    assert "a secret" in caplog.text
