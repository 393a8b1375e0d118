import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from backend.web.api.concurrency_limit import ConcurrencyLimiter
from backend.web.api.problems import ProblemError


def test_work_is_done_in_the_order_it_came() -> None:
    room = ConcurrencyLimiter(slots=10, at_a_time=1)
    done: list[int] = []
    begun, go = threading.Event(), threading.Event()

    def occupy() -> None:
        begun.set()
        go.wait(10)

    with ThreadPoolExecutor(9) as askers:
        askers.submit(room.work, occupy)
        assert begun.wait(10)
        for number in range(8):
            askers.submit(room.work, done.append, number)
            while room._workers._work_queue.qsize() <= number:
                time.sleep(0.001)
        go.set()
    assert done == list(range(8))


def test_no_more_is_done_at_a_time_than_allowed() -> None:
    room = ConcurrencyLimiter(slots=10, at_a_time=2)
    together = threading.Barrier(3)
    with ThreadPoolExecutor(3) as askers:
        asked = [askers.submit(room.work, together.wait, 0.3) for _ in range(3)]
    assert all(isinstance(each.exception(), threading.BrokenBarrierError) for each in asked)


def test_a_full_room_refuses_and_a_free_seat_is_given_again() -> None:
    room = ConcurrencyLimiter(slots=1, at_a_time=1)
    with room.slot(), pytest.raises(ProblemError, match="busy") as caught, room.slot():
        pass
    assert caught.value.status == 503
    with room.slot():
        pass


def test_a_seat_is_free_after_an_error() -> None:
    room = ConcurrencyLimiter(slots=1, at_a_time=1)
    with pytest.raises(ValueError, match="inside"), room.slot():
        raise ValueError("inside")
    with room.slot():
        pass


def test_an_error_of_the_work_is_the_callers() -> None:
    with pytest.raises(ZeroDivisionError):
        ConcurrencyLimiter(1, 1).work(lambda: 1 // 0)
