"""Faults at any step of a job: a killed process, a full disk, Redis or Label Studio that is gone."""

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any

import pytest
from redis import Redis
from redis.exceptions import ConnectionError as RedisConnectionError

from carcond.errors import LabelStudioError
from carcond.store.store import Store
from tests.backend.fake_label_studio import FakeLabelStudio

Fault = Callable[[str, bool], None]
"""What happens before a step: called with its kind, and True the first time."""


class Killed(BaseException):
    """The process is no more. No handler of errors gets to see that."""


class Steps:
    """Counts all that a job does outside its own memory, and does something before one of these steps.

    A step is a transaction of the store, a request to Label Studio, a command to Redis, or a file that is synced or
    renamed. Whatever the fault does is done again before each later step of the same kind: what is gone stays gone.
    """

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self._left = -1
        self._fault: Fault | None = None
        self._struck = False
        for owner, name, kind in (
            (Store, "session", "store"),
            (FakeLabelStudio, "_answer", "studio"),
            (Redis, "execute_command", "redis"),
            (os, "fsync", "disk"),
            (os, "rename", "disk"),
            (os, "replace", "disk"),
        ):
            patch.setattr(owner, name, self._counted(getattr(owner, name), kind))

    def _counted(self, call: Callable[..., Any], kind: str) -> Callable[..., Any]:
        @wraps(call)
        def counted(*arguments: Any, **options: Any) -> Any:
            self._pass(kind)
            return call(*arguments, **options)

        return counted

    def _pass(self, kind: str) -> None:
        if self._fault is None:
            return
        self._left -= 1
        if self._left < 0:
            first, self._struck = not self._struck, True
            self._fault(kind, first)

    @contextmanager
    def fault(self, step: int, fault: Fault) -> Iterator[Callable[[], bool]]:
        """Within the block, call `fault` with the kind of each step from this one on. Yields whether it was called."""
        self._left, self._fault, self._struck = step, fault, False
        try:
            yield lambda: self._struck
        finally:
            self._fault = None


def redis_is_gone(kind: str, _: bool) -> None:
    """Redis does not answer any more."""
    if kind == "redis":
        raise RedisConnectionError("connection refused, for the test")


def label_studio_is_gone(kind: str, _: bool) -> None:
    """Label Studio does not answer any more."""
    if kind == "studio":
        raise LabelStudioError("Label Studio could not be reached, for the test")


def disk_is_full(kind: str, _: bool) -> None:
    """Nothing can be written to the disk of the models any more."""
    if kind == "disk":
        raise OSError(errno.ENOSPC, "No space left on device, for the test")
