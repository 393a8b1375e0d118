"""Few photos are looked at at a time, in the order in which they came: more at once would only slow each other down."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import ParamSpec, TypeVar

from backend.rest.problems import ProblemError

P = ParamSpec("P")
R = TypeVar("R")


class WaitingRoom:
    """Takes in a limited number of requests, and does their work in turn.

    Label Studio's calls share the web process: the limit is below its number of threads, so that some are always
    left for those.
    """

    def __init__(self, seats: int, at_a_time: int) -> None:
        """Make a room for `seats` requests, of which `at_a_time` are worked for."""
        self._seats = seats
        self._taken = 0
        self._lock = threading.Lock()
        self._workers = ThreadPoolExecutor(at_a_time, thread_name_prefix="photo")

    @contextmanager
    def seat(self) -> Iterator[None]:
        """For as long as a request is being answered.

        Raises:
            ProblemError: 503, all seats are taken.
        """
        with self._lock:
            if self._taken >= self._seats:
                raise ProblemError(503, f"busy with {self._seats} requests: try again", {"Retry-After": "1"})
            self._taken += 1
        try:
            yield
        finally:
            with self._lock:
                self._taken -= 1

    def work(self, call: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Wait for one's turn, and for the result of the call."""
        return self._workers.submit(call, *args, **kwargs).result()
