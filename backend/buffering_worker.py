"""Gunicorn's threaded worker, for senders who are slow on purpose.

Gunicorn's own takes a thread at a connection's first byte, and each read may take for ever: as many senders as it has
threads stop it. This one takes a thread for a request that has arrived: the header, and a short body, are collected by
the loop that waits for all connections, until a deadline. Longer bodies are read by the thread, so that the application
can refuse the sender before; they have a deadline that moves with what arrives, and leave some threads free.
"""

import re
import selectors
import socket
import time
from collections import deque
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from typing import Any

from gunicorn import http  # type: ignore[import-untyped]  # gunicorn publishes no types
from gunicorn.errors import ConfigError  # type: ignore[import-untyped]
from gunicorn.workers.gthread import TConn, ThreadWorker  # type: ignore[import-untyped]

REQUEST_SECONDS = 10.0
"""Deadline of a header, and of a body up to `SHORT_BODY`, from the connection or the answer before."""
BODY_SECONDS = 30.0
"""Deadline of a longer body, from its request on, for what arrives more slowly than `BODY_BYTES_PER_SECOND`."""
BODY_BYTES_PER_SECOND = 100_000
"""Each so many bytes move the deadline of a body by a second: a photo passes over a slow mobile line."""
ANSWER_SECONDS = 60.0
"""Deadline for the receiver of one piece of an answer."""
LINGER_SECONDS = 2.0
"""Time for a sender to read its answer, while what it still sends is thrown away."""
SHORT_BODY = 65_536
"""Longest body, in bytes, that is collected before a thread is taken. Those of webhooks and of one task are shorter."""
THREADS_WITHOUT_BODIES = 4
"""Threads that no longer body may take: they answer `/health`, webhooks, and requests for one task."""

_MAX_HEADER = 32_768
_MAX_PIECE = 32_768
_END_OF_HEADER = b"\r\n\r\n"
_CONTENT_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*(\d{1,18})[ \t]*\r\n", re.IGNORECASE)
# Bodies of unknown length, and those of which the sender waits to be asked for them.
_UNCOLLECTED_BODY = re.compile(rb"\r\n(?:transfer-encoding|expect):", re.IGNORECASE)
_BUSY = (
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nRetry-After: 1\r\nConnection: close\r\n\r\n"
    b'{"error": "busy with other long requests: try again"}'
)


class BufferingWorker(ThreadWorker):  # type: ignore[misc]  # the base publishes no types
    """Worker class of gunicorn, see the module. Its settings are those of `gthread`; TLS is not for it."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._long_bodies = 0
        self._lingering: deque[_Connection] = deque()

    @classmethod
    def check_config(cls, cfg: Any, log: Any) -> None:
        """Called by gunicorn at its start.

        Raises:
            ConfigError: TLS is asked for.
        """
        super().check_config(cfg, log)
        if cfg.is_ssl:
            raise ConfigError("the backend does not speak TLS: remove certfile and keyfile, and put a proxy in front")

    def accept(self, listener: socket.socket) -> None:
        """Called by gunicorn for a new connection. If there are too many, the longest without a request gives way."""
        try:
            client_socket, address = listener.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return
        self.nr_conns += 1
        self._receive(_Connection(self.cfg, client_socket, address, listener.getsockname()))
        if self.nr_conns >= self.worker_connections:
            self._drop(self.pending_conns)

    def on_client_socket_readable(self, conn: "_Connection", client: socket.socket) -> None:
        """Called by gunicorn when a further request begins on a connection that was kept."""
        self.poller.unregister(client)
        self.keepalived_conns.remove(conn)
        self._receive(conn)

    def on_pending_socket_readable(self, conn: "_Connection", client: socket.socket) -> None:
        """Collect what has arrived of a request. A whole one gets a thread."""
        if conn not in self.pending_conns:
            return  # it gave way to a new connection while both events were being handled
        is_open = conn.collect()
        if is_open and not conn.is_ready:
            return
        self.poller.unregister(client)
        self.pending_conns.remove(conn)
        if is_open:
            self.enqueue_req(conn)
        else:
            self._close(conn)

    def enqueue_req(self, conn: "_Connection") -> None:
        """Have a thread answer a request, or wait for the rest of one that came behind another."""
        conn.take_back()
        if not conn.is_ready:
            self._wait_for_request(conn)
        elif conn.has_long_body and self._long_bodies >= max(1, self.cfg.threads - THREADS_WITHOUT_BODIES):
            conn.answer(_BUSY)
            self._linger(conn)
        else:
            self._long_bodies += conn.has_long_body
            super().enqueue_req(conn)

    def finish_request(self, conn: "_Connection", fs: "Future[bool]") -> None:
        """Called by gunicorn when a thread has answered."""
        self._long_bodies -= conn.has_long_body
        if fs.cancelled() or fs.exception() or fs.result():
            super().finish_request(conn, fs)
        else:
            self._linger(conn)

    def handle_request(self, req: Any, conn: "_Connection") -> bool:
        """Answer a request, in a thread."""
        if conn.has_long_body:
            conn.reader.begin_body()
        try:
            return bool(super().handle_request(req, conn))
        except TimeoutError:
            self.log.warning("an answer was not received within %g s", ANSWER_SECONDS)
            return False

    def murder_pending(self) -> None:
        """Called by gunicorn once a second: close the connections whose deadline is over."""
        now = time.monotonic()
        for waiting in (self.pending_conns, self._lingering):
            while waiting and waiting[0].timeout <= now:
                self._drop(waiting)

    def _cap_keepalive(self, deadline: float) -> None:
        """Called by gunicorn when it stops: it waits for no request that has not begun to be answered."""
        super()._cap_keepalive(deadline)
        for conn in self.pending_conns:
            conn.timeout = min(conn.timeout, deadline)

    def _keepalive_after(self, conn: "_Connection", keepalive: bool) -> bool:
        """True if a connection can be kept. What is left of a body must have arrived: no thread waits for it."""
        conn.reader.end_body()
        return keepalive and conn.parser.finish_body(max_bytes=SHORT_BODY) and not conn.reader.was_too_slow

    def _receive(self, conn: "_Connection") -> None:
        """Begin with a request. Most have arrived by now, and need not be waited for."""
        if not conn.collect():
            self._close(conn)
        elif conn.is_ready:
            self.enqueue_req(conn)
        else:
            self._wait_for_request(conn)

    def _wait_for_request(self, conn: "_Connection") -> None:
        self._watch(conn, self.pending_conns, REQUEST_SECONDS, self.on_pending_socket_readable)

    def _linger(self, conn: "_Connection") -> None:
        """Close a connection once its answer was read. Gunicorn's own way would stop this loop meanwhile."""
        try:
            conn.sock.shutdown(socket.SHUT_WR)
        except OSError:
            self._close(conn)
        else:
            self._watch(conn, self._lingering, LINGER_SECONDS, self._on_lingering_socket_readable)

    def _on_lingering_socket_readable(self, conn: "_Connection", client: socket.socket) -> None:
        if conn in self._lingering and not conn.throw_away():
            self.poller.unregister(client)
            self._lingering.remove(conn)
            self._close(conn)

    def _watch(self, conn: "_Connection", waiting: "deque[_Connection]", seconds: float, readable: Any) -> None:
        conn.sock.setblocking(False)
        conn.timeout = time.monotonic() + seconds
        waiting.append(conn)
        self.poller.register(conn.sock, selectors.EVENT_READ, partial(readable, conn))

    def _drop(self, waiting: "deque[_Connection]") -> None:
        """Close the connection that has waited for longest."""
        if waiting:
            conn = waiting.popleft()
            self.poller.unregister(conn.sock)
            self._close(conn)

    def _close(self, conn: "_Connection") -> None:
        self.nr_conns -= 1
        conn.close()


class _Connection(TConn):  # type: ignore[misc]  # the base publishes no types
    """One connection, and what has been collected of its next request.

    Attributes:
        is_ready: a thread can answer the request.
        has_long_body: the thread has to wait for the request's body.
    """

    def __init__(self, cfg: Any, sock: socket.socket, client: Any, server: Any) -> None:
        super().__init__(cfg, sock, client, server)
        self.reader = _Reader(sock)
        self.parser = http.get_parser(cfg, self.reader, client)
        self.initialized = self.data_ready = True
        self.is_ready = self.has_long_body = False
        self._collected = bytearray()
        self._expected: int | None = None  # bytes of header and short body together, once the header is known

    def init(self) -> None:
        """Called by gunicorn in the thread, before it reads the request."""
        self.sock.settimeout(ANSWER_SECONDS)
        self.parser.unreader.unread(bytes(self._collected))
        self._collected.clear()
        self._expected = None
        self.is_ready = False

    def collect(self) -> bool:
        """Take what has arrived, without waiting. Returns False if the sender has gone."""
        try:
            data = self.sock.recv(_MAX_PIECE)
        except BlockingIOError:
            return True
        except OSError:
            return False
        self._add(data)
        return bool(data)

    def take_back(self) -> None:
        """Take what was read beyond the end of the last request."""
        if beyond := self.parser.unreader.take_buffered():
            self._add(beyond)

    def throw_away(self) -> bool:
        """Take what has arrived, for nothing. Returns False if the sender has gone."""
        try:
            return bool(self.sock.recv(_MAX_PIECE))
        except BlockingIOError:
            return True
        except OSError:
            return False

    def answer(self, text: bytes) -> None:
        """Send a short answer, if the sender takes it."""
        with suppress(OSError):
            self.sock.send(text)

    def _add(self, data: bytes) -> None:
        # Only the last bytes can be a part of the header's end: a header that comes byte by byte is searched once.
        searched_to = max(0, len(self._collected) - len(_END_OF_HEADER))
        self._collected += data
        if self._expected is None:
            end = self._collected.find(_END_OF_HEADER, searched_to)
            if end < 0:
                # Too long a header is for gunicorn to refuse.
                self.is_ready = len(self._collected) > _MAX_HEADER
                self.has_long_body = False
                return
            header = bytes(self._collected[: end + len(_END_OF_HEADER)])
            named = _CONTENT_LENGTH.search(header)
            length = int(named[1]) if named else 0
            self.has_long_body = length > SHORT_BODY or bool(_UNCOLLECTED_BODY.search(header))
            self._expected = len(header) + (0 if self.has_long_body else length)
        self.is_ready = len(self._collected) >= self._expected


class _Reader:
    """Source of gunicorn's parser: a socket of which a thread reads no longer than allowed.

    A sender who is too slow is treated as one who has gone: the reader returns nothing.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._deadline = 0.0
        self.was_too_slow = False

    def begin_body(self) -> None:
        """Allow the time of a body. Before, only what has arrived is read."""
        self._deadline = time.monotonic() + BODY_SECONDS

    def end_body(self) -> None:
        """Allow no more waiting."""
        self._deadline = 0.0

    def recv(self, size: int) -> bytes:
        """Up to so many bytes; none at the end, or past the deadline."""
        self._socket.settimeout(max(0.0, self._deadline - time.monotonic()))
        try:
            data = self._socket.recv(size)
        except (TimeoutError, BlockingIOError):
            self.was_too_slow = True
            return b""
        finally:
            self._socket.settimeout(ANSWER_SECONDS)
        self._deadline += len(data) / BODY_BYTES_PER_SECOND
        return data
