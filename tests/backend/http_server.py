"""A small scripted web server in a thread."""

import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self


@dataclass
class Reply:
    """What is answered to a request. With `stream`, that writes the body instead, to the connection."""

    body: bytes = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    with_length: bool = True
    stream: Callable[[Callable[[bytes], Any]], None] | None = None


@dataclass(frozen=True)
class Request:
    """A request as it came."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


Answer = Reply | Callable[[Request], Reply]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class HttpServer:
    """Answers at a loopback address what `answers` says for a path (without its query), else 404; keeps requests."""

    def __init__(self, host: str = "127.0.0.1") -> None:
        self.host = host
        self.answers: dict[str, Answer] = {}
        self.requests: list[Request] = []
        self._server = ThreadingHTTPServer((host, 0), self._handler())
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})

    @property
    def port(self) -> int:
        return self._server.server_port

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"

    @property
    def tokens(self) -> list[str | None]:
        """The Authorization header of each request."""
        return [request.headers.get("authorization") for request in self.requests]

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def answer(self, request: Request) -> Reply:
        self.requests.append(request)
        found = self.answers.get(request.path.split("?")[0], Reply(status=404))
        return found if isinstance(found, Reply) else found(request)

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                headers = {name.lower(): value for name, value in self.headers.items()}
                reply = server.answer(Request(self.command, self.path, headers, body))
                self.send_response(reply.status)
                for name, value in reply.headers.items():
                    self.send_header(name, value)
                if reply.with_length and reply.stream is None:
                    self.send_header("Content-Length", str(len(reply.body)))
                self.end_headers()
                try:
                    if reply.stream:
                        reply.stream(self.wfile.write)
                    else:
                        self.wfile.write(reply.body)
                except OSError:
                    self.close_connection = True  # the client has had enough

            do_POST = do_PATCH = do_DELETE = do_GET  # noqa: N815 - names that http.server looks for

            def log_message(self, format: str, *args: Any) -> None:
                """Says nothing."""

        return Handler
