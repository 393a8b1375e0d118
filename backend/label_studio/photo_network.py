"""Connections to the hosts of photos, which may be slow on purpose or have any address."""

import socket
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from ipaddress import IPv6Address, ip_address
from ssl import SSLContext
from typing import Any, TypeAlias

import httpcore
import httpx

from carcond.errors import PhotoFetchError

_SocketOption: TypeAlias = tuple[int, int, int] | tuple[int, int, bytes | bytearray] | tuple[int, int, None, int]

# Where clouds hand credentials to whoever asks from inside; the others are link-local.
_METADATA_SERVICES = {ip_address("fd00:ec2::254"), ip_address("100.100.100.200")}

_deadline: ContextVar[float | None] = ContextVar("_deadline", default=None)


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """End all that this thread does on connections of `photo_transport` within so many seconds, with a timeout."""
    token = _deadline.set(time.monotonic() + seconds)
    try:
        yield
    finally:
        _deadline.reset(token)


def photo_transport() -> httpx.HTTPTransport:
    """Transport that keeps to `time_limit`, and does not connect to link-local addresses."""
    transport = httpx.HTTPTransport(trust_env=False)
    # httpx has no parameter for it, httpcore has. Without the attribute neither limit would hold.
    if not hasattr(transport._pool, "_network_backend"):
        raise RuntimeError("expected another release of httpcore: install those of constraints.txt")
    transport._pool._network_backend = _Network()
    return transport


class _Network(httpcore.NetworkBackend):
    def __init__(self) -> None:
        self._backend = httpcore.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[_SocketOption] | None = None,
    ) -> httpcore.NetworkStream:
        failure: Exception = httpcore.ConnectError(f"no address is known for {host}")
        for address in _addresses(host, port):
            try:
                left = _seconds_left(timeout, httpcore.ConnectTimeout)
                return _Stream(self._backend.connect_tcp(address, port, left, local_address, socket_options))
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = error
        raise failure


class _Stream(httpcore.NetworkStream):
    """A connection on which each operation has the time that is left of the whole."""

    def __init__(self, stream: httpcore.NetworkStream) -> None:
        self._stream = stream

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, _seconds_left(timeout, httpcore.ReadTimeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, _seconds_left(timeout, httpcore.WriteTimeout))

    def start_tls(
        self, ssl_context: SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        left = _seconds_left(timeout, httpcore.ConnectTimeout)
        return _Stream(self._stream.start_tls(ssl_context, server_hostname, left))

    def close(self) -> None:
        self._stream.close()

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


def _addresses(host: str, port: int) -> list[str]:
    """The addresses of a host. They are what is connected to: a second look-up could have another answer.

    Raises:
        PhotoFetchError: one of them is link-local.
        httpcore.ConnectError: the name is not known.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise httpcore.ConnectError(str(error)) from error
    addresses = list(dict.fromkeys(str(address[0]) for *_, address in found))
    if any(map(_is_link_local, addresses)):
        raise PhotoFetchError(
            f"the photo's host {host!r} has a link-local address, where clouds serve credentials: none is fetched there"
        )
    return addresses


def _is_link_local(text: str) -> bool:
    address = ip_address(text)
    if isinstance(address, IPv6Address) and address.ipv4_mapped:
        address = address.ipv4_mapped
    return address.is_link_local or address in _METADATA_SERVICES


def _seconds_left(timeout: float | None, error: type[Exception]) -> float | None:
    """The shorter one of a timeout and the time that is left.

    Raises:
        Exception: of the given type, no time is left.
    """
    deadline = _deadline.get()
    if deadline is None:
        return timeout
    left = deadline - time.monotonic()
    if left <= 0:
        raise error("no time is left")
    return left if timeout is None else min(left, timeout)
