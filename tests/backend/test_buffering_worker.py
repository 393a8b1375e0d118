"""The backend's real server against senders who are slow on purpose, and those who are not."""

import base64
import json
import os
import selectors
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import httpx
import pytest

from backend.buffering_worker import SHORT_BODY
from backend.label_studio.backend_address import webhook_password
from scripts.processes import ManagedProcess
from tests.backend.http_server import free_port

ROOT = Path(__file__).parents[2]
PASSWORD = "backends-own"
DEADLINE_S = 1.0
SLOW_SENDERS = 64
# The deadlines are seconds, for tests that wait for them.
CONFIG = f"""
from backend import buffering_worker
from backend.gunicorn_conf import *

buffering_worker.REQUEST_SECONDS = buffering_worker.BODY_SECONDS = {DEADLINE_S}
"""


def basic_auth(password: str) -> str:
    return f"Authorization: Basic {base64.b64encode(f'ls:{password}'.encode()).decode()}\r\n"


OPENED = f"POST /predict HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n{basic_auth(PASSWORD)}"
WEBHOOK = f"POST /webhook HTTP/1.1\r\nHost: a\r\n{basic_auth(webhook_password(PASSWORD))}"
STRANGE = "POST /predict HTTP/1.1\r\nHost: a\r\n"
BEGINNINGS = {
    "nothing": "",
    "a header": "POST /predict HTTP/1.1\r\nX-Slow: ",
    "a header behind an empty line": "\r\n\r\nPOST /predict HTTP/1.1\r\nX-Slow: ",
    "a short body": f"{STRANGE}Content-Length: 1000\r\n\r\n",
    "a long body": f"{STRANGE}Content-Length: 1000000\r\n\r\n",
    "a body without end": f"{STRANGE}Transfer-Encoding: chunked\r\n\r\nFFFFF\r\n",
    "a short body with the password": f"{OPENED}Content-Length: 1000\r\n\r\n",
    "a long body with the password": f"{OPENED}Content-Length: 1000000\r\n\r\n",
    "a body without end with the password": f"{OPENED}Transfer-Encoding: chunked\r\n\r\nFFFFF\r\n",
    "a long body with the webhook's password": f"{WEBHOOK}Content-Length: 1000000\r\n\r\n",
}


@pytest.fixture(scope="module")
def address(redis_server: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, int]]:
    """Host and port of the backend's real server, with short deadlines. Label Studio is away."""
    folder, host, port = tmp_path_factory.mktemp("backend"), "127.0.0.1", free_port()
    (folder / "conf.py").write_text(CONFIG, encoding="utf-8")
    environment = os.environ | {
        "CARCOND_BASIC_AUTH_PASSWORD": PASSWORD,
        "CARCOND_BASIC_AUTH_USER": "ls",
        "CARCOND_BIND": f"{host}:{port}",
        "CARCOND_MODELS_DIR": str(folder / "models"),
        "DATABASE_URL": f"sqlite:///{folder / 'store.sqlite3'}",
        "LABEL_STUDIO_URL": "http://127.0.0.1:1",
        "REDIS_URL": redis_server,
    }
    command = [sys.executable, "-m", "gunicorn", "-c", str(folder / "conf.py"), "backend.app:create_app()"]
    process = ManagedProcess("backend", command, environment, folder / "backend.log", ROOT)
    process.start()
    try:
        process.wait_for_url(f"http://{host}:{port}/health", 60)
        yield host, port
    finally:
        began = time.monotonic()
        process.stop()
    assert time.monotonic() - began < 8, "the server did not stop in time"
    log = (folder / "backend.log").read_text(encoding="utf-8")
    assert "Traceback" not in log, log


@pytest.fixture
def client(address: tuple[str, int]) -> Iterator[httpx.Client]:
    """Label Studio, as the backend sees it."""
    url = f"http://{address[0]}:{address[1]}"
    with httpx.Client(base_url=url, auth=("ls", PASSWORD), timeout=30, trust_env=False) as made:
        yield made


def slowest_honest_request(address: tuple[str, int]) -> float:
    """Seconds of the slowest of some requests, each on a connection of its own."""
    url, seconds = f"http://{address[0]}:{address[1]}", []

    def measure(ask: Callable[[], httpx.Response], *expected: int) -> None:
        began = time.monotonic()
        response = ask()
        seconds.append(time.monotonic() - began)
        assert response.status_code in expected, response.text

    for _ in range(3):
        with httpx.Client(base_url=url, timeout=30, trust_env=False) as client:
            measure(lambda: client.get("/health"), 200)
            auth = ("ls", PASSWORD)
            measure(lambda: client.post("/predict", json={"tasks": [], "project": "1.1"}, auth=auth), 200)  # noqa: B023
            auth = ("ls", webhook_password(PASSWORD))
            event = {"action": "ANNOTATION_CREATED", "project": {"id": 1}}
            measure(lambda: client.post("/webhook", json=event, auth=auth), 200, 201)  # noqa: B023
    return max(seconds)


class SlowSenders:
    """Connections that begin with the same bytes and go on with one byte at a time."""

    def __init__(self, address: tuple[str, int], beginning: str, stack: ExitStack) -> None:
        self.began = time.monotonic()
        self.answers: list[bytes] = []
        self._open: dict[socket.socket, bytes] = {}
        for _ in range(SLOW_SENDERS):
            sender = stack.enter_context(socket.create_connection(address))
            sender.sendall(beginning.encode())
            sender.setblocking(False)
            self._open[sender] = b""

    def send_until_closed(self, seconds: float) -> bool:
        """Go on for so long, or until all are closed. Returns True in the latter case."""
        until = time.monotonic() + seconds
        while self._open and time.monotonic() < until:
            time.sleep(0.05)
            for sender in list(self._open):
                self._go_on(sender)
        return not self._open

    def _go_on(self, sender: socket.socket) -> None:
        try:
            sender.send(b"x")
            answer = sender.recv(65_536)
        except BlockingIOError:
            return
        except OSError:
            answer = b""
        self._open[sender] += answer
        if not answer:
            self.answers.append(self._open.pop(sender))


@contextmanager
def slow_senders(address: tuple[str, int], beginning: str) -> Iterator[SlowSenders]:
    with ExitStack() as stack:
        yield SlowSenders(address, beginning, stack)


@pytest.mark.slow
@pytest.mark.parametrize("sent_first", BEGINNINGS)
def test_slow_senders_delay_nobody_and_are_closed_at_the_deadline(address: tuple[str, int], sent_first: str) -> None:
    with slow_senders(address, BEGINNINGS[sent_first]) as senders:
        assert slowest_honest_request(address) < 1
        senders.send_until_closed(0.5)
        assert slowest_honest_request(address) < 1
        assert senders.send_until_closed(DEADLINE_S + 3), f"{len(senders.answers)} of {SLOW_SENDERS} were closed"
    assert time.monotonic() - senders.began < DEADLINE_S + 4


@pytest.mark.slow
@pytest.mark.parametrize("sent_first", ["a long body", "a body without end"])
def test_a_stranger_is_refused_before_the_body_arrives(address: tuple[str, int], sent_first: str) -> None:
    with socket.create_connection(address, timeout=1) as stranger:
        stranger.sendall(BEGINNINGS[sent_first].encode())
        assert stranger.recv(65_536).startswith(b"HTTP/1.1 401 ")


@pytest.mark.slow
def test_a_stranger_who_sends_a_long_body_all_the_same_can_read_why_it_is_refused(address: tuple[str, int]) -> None:
    response = httpx.post(f"http://{address[0]}:{address[1]}/predict", content=bytes(5_000_000), trust_env=False)
    assert response.status_code == 401


@pytest.mark.slow
def test_long_bodies_leave_threads_free_and_are_asked_to_come_again(address: tuple[str, int]) -> None:
    with slow_senders(address, BEGINNINGS["a long body with the password"]) as senders:
        assert senders.send_until_closed(DEADLINE_S + 3)
    statuses = [answer.partition(b"\r\n")[0] for answer in senders.answers]
    assert statuses.count(b"HTTP/1.1 503 Service Unavailable") == SLOW_SENDERS - 28
    assert all(b"Retry-After: 1\r\n" in answer for answer in senders.answers if b" 503 " in answer)


@pytest.mark.slow
def test_a_line_that_is_slow_and_steady_may_send_for_longer_than_the_deadline(address: tuple[str, int]) -> None:
    body = json.dumps({"tasks": [], "padding": "x" * 900_000}).encode()
    began = time.monotonic()
    with socket.create_connection(address, timeout=5) as sender:
        sender.sendall(f"{OPENED}Content-Length: {len(body)}\r\n\r\n".encode())
        for start in range(0, len(body), 30_000):
            sender.sendall(body[start : start + 30_000])
            time.sleep(0.1)
        assert sender.recv(65_536).startswith(b"HTTP/1.1 200 ")
    assert time.monotonic() - began > 1.3 * DEADLINE_S


@pytest.mark.slow
@pytest.mark.parametrize("length", [0, 1_000, SHORT_BODY - 1, SHORT_BODY, SHORT_BODY + 1, 3_000_000, 100_000_000])
def test_honest_bodies_of_all_lengths_arrive_whole(client: httpx.Client, length: int) -> None:
    body = json.dumps({"tasks": [{"id": 1, "data": {}}], "padding": ""}).encode()
    body = body[:-2] + b"x" * (length - len(body)) + body[-2:]
    response = client.post("/predict", content=body, headers={"Content-Type": "application/json"})
    assert (response.status_code, len(response.json()["results"])) == (200, 1)


def receive(sender: socket.socket, answers: int) -> None:
    """Wait for so many answers of `/health`, and no more."""
    received = b""
    while received.count(b'"status":"UP"}\n') < answers:
        received += sender.recv(65_536)
    assert received.count(b"HTTP/1.1 200 ") == answers


@pytest.mark.slow
def test_a_connection_is_kept_for_further_requests(address: tuple[str, int]) -> None:
    request = b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n"
    with socket.create_connection(address, timeout=5) as sender:
        for _ in range(3):
            sender.sendall(request[:20])
            time.sleep(0.05)
            sender.sendall(request[20:])
            receive(sender, 1)
        sender.sendall(2 * request + request[:30])  # sent without waiting for the answers
        receive(sender, 2)
        sender.sendall(request[30:])
        receive(sender, 1)


@pytest.mark.slow
def test_a_sender_who_waits_to_be_asked_for_the_body_is_asked(address: tuple[str, int]) -> None:
    body = b'{"tasks": []}'
    with socket.create_connection(address, timeout=1) as sender:
        sender.sendall(f"{OPENED}Content-Length: {len(body)}\r\nExpect: 100-continue\r\n\r\n".encode())
        assert sender.recv(65_536).startswith(b"HTTP/1.1 100 ")
        sender.sendall(body)
        assert sender.recv(65_536).startswith(b"HTTP/1.1 200 ")


@pytest.mark.slow
def test_the_longest_silent_of_too_many_connections_gives_way(address: tuple[str, int]) -> None:
    with ExitStack() as stack, selectors.DefaultSelector() as closed:
        for _ in range(600):
            closed.register(stack.enter_context(socket.create_connection(address)), selectors.EVENT_READ)
        assert slowest_honest_request(address) < 1
        assert 90 <= len(closed.select(timeout=0)) < 300


@pytest.mark.slow
def test_senders_who_send_while_they_give_way_end_only_their_own_connections(address: tuple[str, int]) -> None:
    """The event of a connection and its end may be handled in one round of the server's loop."""
    with ExitStack() as stack:
        senders = []
        for number in range(900):
            senders.append(stack.enter_context(socket.create_connection(address)))
            for sender in senders[-100:] if number % 10 == 0 else senders[-550:-450:20]:
                with suppress(OSError):  # it had to give way
                    sender.send(b"G")
        assert slowest_honest_request(address) < 5
