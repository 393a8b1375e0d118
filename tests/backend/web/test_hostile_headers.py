"""Headers that no client sends by mistake, at a real server, as bytes on a socket."""

import os
import re
import socket
import subprocess
import sys
import time
from base64 import b64encode
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from flask import Flask, request
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import SecretStr

from backend.web.basic_auth import is_allowed
from carcond.settings import Settings
from scripts.ports import free_ports

GUARDED = Settings(basic_auth_user="label-studio", basic_auth_password=SecretStr("s3cret"))


@given(header=st.binary(max_size=60) | st.binary(max_size=60).map(lambda rest: b"Basic " + rest))
@example(header=b"Basic \xff")
@example(header=b"Digest a*=utf-16''%ff")
def test_no_header_is_let_in_and_none_raises(header: bytes) -> None:
    with Flask(__name__).test_request_context(
        "/predict", environ_base={"HTTP_AUTHORIZATION": header.decode("latin-1")}
    ):
        assert not is_allowed(request, GUARDED)


@dataclass
class Backend:
    """A running gunicorn, and the file that its output goes to."""

    port: int
    log: Path

    def status(self, lines: bytes, method: bytes = b"POST /predict") -> int:
        """HTTP status of the answer to a request with these header lines; 0 when the connection was closed."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=30) as connection:
            connection.sendall(method + b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n" + lines + b"\r\n\r\n")
            try:
                found = re.match(rb"HTTP/1\.1 (\d{3}) ", connection.recv(4096))
            except ConnectionResetError:  # it has read enough
                return 0
        return int(found[1]) if found else 0


@pytest.fixture(scope="module")
def backend(tiny_models_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Backend]:
    folder = tmp_path_factory.mktemp("backend")
    (port,) = free_ports(1)
    settings = {
        "DATABASE_URL": f"sqlite:///{folder}/store.sqlite3",
        "CARCOND_MODELS_DIR": str(tiny_models_dir),
        "CARCOND_BIND": f"127.0.0.1:{port}",
        "CARCOND_BASIC_AUTH_USER": "label-studio",
        "CARCOND_BASIC_AUTH_PASSWORD": "s3cret",
        "REDIS_URL": "redis://127.0.0.1:1/0",
    }
    command = [sys.executable, "-m", "gunicorn", "--config", "python:backend.gunicorn_conf", "backend.app:create_app()"]
    running = Backend(port, folder / "log")
    with running.log.open("wb") as log:
        process = subprocess.Popen(command, env=os.environ | settings, stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + 60
        while True:
            try:
                assert running.status(b"", b"GET /health") == 200
                break
            except ConnectionRefusedError:
                assert process.poll() is None, running.log.read_text()
                assert time.monotonic() < deadline, running.log.read_text()
                time.sleep(0.1)
        yield running
    finally:
        process.terminate()
        process.wait(timeout=30)


HOSTILE = {
    "a letter that is none": b"Authorization: Basic \xff",
    "Base64 of no text": b"Authorization: Basic " + b64encode(b"\xff\xfe:\xff"),
    "Base64 cut off": b"Authorization: Basic YWJ",
    "Base64 of NUL": b"Authorization: Basic " + b64encode(b"\x00:\x00"),
    "no content": b"Authorization: Basic",
    "another method": b"Authorization: Digest username*=utf-99''%ff%ff, nonce=\"\xff",
    "a token that is no text": b"Authorization: Bearer \xff\xfe",
    "twice": b"Authorization: Basic \xff\r\nAuthorization: Basic \xff",
    "huge": b"Authorization: Basic " + b"A" * 7_000,
    "huger than gunicorn reads": b"Authorization: Basic " + b"A" * 1_000_000,
    "a thousand headers": b"\r\n".join(b"X-%d: \xff" % i for i in range(1000)),
    "odd types": b"Content-Type: \xff/\xff; charset*=\xff''%ff\r\nAccept: \xff;q=\xff\r\nCookie: \xff=\xff",
    "an odd length": b"Content-Length: \xff",
    "a negative length": b"Content-Length: -1",
}


@pytest.mark.slow
@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_header_is_refused_and_leaves_no_traceback(name: str, backend: Backend) -> None:
    for route in (b"POST /predict", b"POST /webhook", b"GET /metrics", b"POST /api/v1/condition"):
        assert backend.status(HOSTILE[name], route) in {0, 400, 401, 431}
    assert backend.status(HOSTILE[name], b"GET /health") in {0, 200, 400, 431}
    assert "Traceback" not in backend.log.read_text(errors="replace")


@pytest.mark.slow
def test_the_right_password_is_let_in_beside_them(backend: Backend) -> None:
    right = b"Authorization: Basic " + b64encode(b"label-studio:s3cret")
    assert backend.status(right, b"GET /metrics") == 200
