"""Limit of concurrent requests: few photos are encoded at a time, more would only slow each other down."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import ParamSpec, TypeVar

from backend.web.api.problems import ProblemError

P = ParamSpec("P")
R = TypeVar("R")


class ConcurrencyLimiter:
    """Accepts a limited number of requests, and does their work in turn.

    Label Studio's calls share the web process: the limit is below its number of threads, so that some are always
    left for those.
    """

    def __init__(self, slots: int, at_a_time: int) -> None:
        """Accept up to `slots` requests, and work on `at_a_time` of them at once, in order of arrival."""
        self._slots = slots
        self._taken = 0
        self._lock = threading.Lock()
        self._workers = ThreadPoolExecutor(at_a_time, thread_name_prefix="photo")

    @contextmanager
    def slot(self) -> Iterator[None]:
        """Hold a slot while a request is being answered.

        Raises:
            ProblemError: 503, all slots are taken.
        """
        with self._lock:
            if self._taken >= self._slots:
                raise ProblemError(503, f"busy with {self._slots} requests: try again", {"Retry-After": "1"})
            self._taken += 1
        try:
            yield
        finally:
            with self._lock:
                self._taken -= 1

    def work(self, call: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Wait for a worker thread, and for the result of the call."""
        return self._workers.submit(call, *args, **kwargs).result()
