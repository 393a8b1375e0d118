"""The first start: a bare clone in a folder of its own, until photos can be labelled."""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from scripts.ports import free_ports
from scripts.preflight import MIB, StackError

# Stages, each with the beginning of the line of output that ends it.
_STAGES = {
    "make environment": "setup: installing",
    "install carcond": "setup: carcond is installed",
    "wait for Label Studio's installation": "setup: done",
    "make encoder": "encoder ",
    "start Label Studio, import photos": "up: 60 new photos imported",
    "connect": "Open ",
}
_STOP_S = 60.0


def bench_startup(checkout: Path, folder: Path, *, empty_cache: bool, say: Callable[[str], None]) -> dict[str, Any]:
    """Clone a checkout and run its `scripts/up` until it prints where to label.

    Args:
        checkout: the repository. Changes that are not committed are left out.
        folder: an empty one, for the clone.
        empty_cache: install with an empty cache of pip, which counts among the parts, in place of the user's.
        say: receives the output.

    Returns:
        `seconds`: stage -> its duration, and `total`; `megabytes`: part -> disk space it takes, and `total`.

    Raises:
        StackError: it ended before photos could be labelled.
    """
    began = time.monotonic()
    clone, cache = folder / "carcond", folder / "pip-cache"
    subprocess.run(["git", "clone", "--quiet", str(checkout), str(clone)], check=True)
    cloned = time.monotonic()
    ports = dict(zip(("--port", "--backend-port", "--redis-port"), map(str, free_ports(3)), strict=True))
    environment = {name: value for name, value in os.environ.items() if not name.startswith("CARCOND_")}
    if empty_cache:
        environment["PIP_CACHE_DIR"] = str(cache)
    command = ["scripts/up", *(word for option in ports.items() for word in option)]
    with subprocess.Popen(
        command,
        cwd=clone,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            seconds = time_stages(process.stdout or (), cloned, say)
            parts = {
                "carcond's environment": clone / ".venv",
                "Label Studio's environment": clone / ".carcond" / "label-studio-venv",
                "pip's cache": cache,
                "all else": folder,
            }
            megabytes = _sizes(parts)
        finally:
            _stop(process)
    total = round(sum(seconds.values()) + cloned - began, 1)
    return {"seconds": {"clone": round(cloned - began, 1), **seconds, "total": total}, "megabytes": megabytes}


def time_stages(lines: Iterable[str], began: float, say: Callable[[str], None]) -> dict[str, float]:
    """Read the output of `scripts/up` up to the address of the project.

    Args:
        lines: its output, as it comes.
        began: `time.monotonic()` at its start.
        say: receives each line.

    Returns:
        Stage -> its duration in seconds, in their order; one without a line of its own counts to the next.

    Raises:
        StackError: the output ended before.
    """
    seconds: dict[str, float] = {}
    stages = list(_STAGES.items())
    for line in lines:
        say(line.rstrip())
        ended = next((at for at, (_, start) in enumerate(stages) if line.strip().startswith(start)), None)
        if ended is None:
            continue
        now = time.monotonic()
        seconds[stages[ended][0]] = round(now - began, 1)
        began, stages = now, stages[ended + 1 :]
        if not stages:
            return seconds
    raise StackError(f"scripts/up ended before the stage {stages[0][0]!r} was done: see its output above")


def _sizes(parts: dict[str, Path]) -> dict[str, float]:
    """Disk space of each part in MB; what an earlier one has counted is left out of a later one."""
    seen: set[tuple[int, int]] = set()
    sizes = {name: round(_size(path, seen) / MIB, 1) for name, path in parts.items()}
    return {**sizes, "total": round(sum(sizes.values()), 1)}


def _size(path: Path, seen: set[tuple[int, int]]) -> int:
    total = 0
    for directory, _, files in os.walk(path):
        for name in files:
            try:
                status = (Path(directory) / name).lstat()
            except FileNotFoundError:  # a server has just removed it
                continue
            if (key := (status.st_dev, status.st_ino)) not in seen:
                seen.add(key)
                total += status.st_blocks * 512
    return total


def _stop(process: subprocess.Popen[str]) -> None:
    """End the stack as Ctrl-C does, or its group at once."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGINT)
        try:
            process.communicate(timeout=_STOP_S)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
