"""Memory and open files of a stack's servers."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from scripts.stack import Stack

_SAMPLE_S = 2.0


@contextmanager
def measured_processes(stack: Stack) -> Iterator[dict[str, list[tuple[float, float, int]]]]:
    """Server -> (seconds, MB of memory, open files) of its process group, collected while the block runs."""
    samples: dict[str, list[tuple[float, float, int]]] = {}
    stopped = threading.Event()

    def sample() -> None:
        while not stopped.wait(_SAMPLE_S):
            for server, pid in stack.pids.items():
                memory, files = _group_use(pid)
                samples.setdefault(server, []).append((time.monotonic(), memory, files))

    thread = threading.Thread(target=sample, daemon=True)
    thread.start()
    try:
        yield samples
    finally:
        stopped.set()
        thread.join()


def _group_use(leader: int) -> tuple[float, int]:
    """Memory in MB and open files of the processes that a server has started, itself included."""
    memory, files = 0.0, 0
    todo = [leader]
    while todo:
        process = Path(f"/proc/{todo.pop()}")
        try:
            memory += int((process / "statm").read_text().split()[1]) * 4096 / 1e6
            files += len(list((process / "fd").iterdir()))
            todo += [int(child) for child in (process / "task" / process.name / "children").read_text().split()]
        except OSError:  # it has ended
            continue
    return memory, files
