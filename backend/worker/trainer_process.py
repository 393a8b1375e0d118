"""Supervision of the training process: passes its progress on, and ends it when it is cancelled or out of memory."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from carcond.errors import OutOfMemoryError, TrainingCancelledError, TrainingError
from carcond.training.request import OUTCOME, PROGRESS
from carcond.training.requirements import check_packages

_LOOK_SECONDS = 0.5
_MB = 1024 * 1024

Tell = Callable[[Mapping[str, Any]], None]


def run_trainer(directory: Path, memory_mb: int, tell: Tell, is_cancelled: Callable[[], bool]) -> dict[str, Any]:
    """Run `carcond.training.trainer_main` in a process of its own.

    It is started afresh, not forked: this process's threads and libraries are not in it, and CUDA is initialized there.

    Args:
        directory: with the request.
        memory_mb: memory limit in MB, with its children; 0 for none.
        tell: receives its progress whenever it has changed.
        is_cancelled: checked about twice a second.

    Returns:
        Its outcome: `encoder_id` (None when no epoch was better than the encoder that it began with) and `facts`.

    Raises:
        TrainingCancelledError: it was cancelled, and ended.
        OutOfMemoryError: it, or the system, was out of memory; the checkpoint of the last epoch is kept.
        TrainingError: it could not train as requested, or was killed.
        MissingPackageError: PyTorch is not installed.
    """
    check_packages("fine-tuning")
    for name in (PROGRESS, OUTCOME):
        (directory / name).unlink(missing_ok=True)
    kills = _out_of_memory_kills()
    with subprocess.Popen(_command(directory), stdin=subprocess.DEVNULL) as process:  # noqa: S603 - nothing of it is a user's
        try:
            _watch(process, directory / PROGRESS, memory_mb, tell, is_cancelled)
        finally:
            process.kill()
    return _outcome(directory, process.returncode, _out_of_memory_kills() > kills)


def _command(directory: Path) -> list[str]:
    return [sys.executable, "-m", "carcond.training.trainer_main", str(directory), str(os.getpid())]


def _watch(
    process: subprocess.Popen[bytes], progress: Path, memory_mb: int, tell: Tell, is_cancelled: Callable[[], bool]
) -> None:
    told = ""
    while process.poll() is None:
        if is_cancelled():
            raise TrainingCancelledError("cancelled")
        taken = _memory_mb(process.pid) if memory_mb else 0
        if taken > memory_mb:
            raise OutOfMemoryError(
                f"out of memory: it took {taken} MB, more than CARCOND_FINETUNE_MEMORY_MB={memory_mb}"
            )
        now = progress.read_text() if progress.exists() else ""
        if now != told:
            told = now
            tell(json.loads(now))
        time.sleep(_LOOK_SECONDS)


def _outcome(directory: Path, code: int, was_short: bool) -> dict[str, Any]:
    path = directory / OUTCOME
    if not path.exists():
        if code == -signal.SIGKILL and was_short:
            raise OutOfMemoryError("out of memory: the system has ended the training to keep all else going")
        ended = f"was ended by signal {-code}" if code < 0 else f"ended with code {code}, see the worker's log"
        raise TrainingError(f"the training {ended}; asked for again, it goes on from its last epoch")
    outcome: dict[str, Any] = json.loads(path.read_text())
    if outcome.get("out_of_memory"):
        raise OutOfMemoryError(f"out of memory: {outcome['error']}")
    if "error" in outcome:
        raise TrainingError(outcome["error"])
    return outcome


def _out_of_memory_kills() -> int:
    """Number of processes that the system's out-of-memory killer has ended."""
    try:
        lines = Path("/proc/vmstat").read_text().splitlines()
    except OSError:  # only Linux has the counter
        return 0
    return sum(int(line.split()[1]) for line in lines if line.startswith("oom_kill "))


def _memory_mb(pid: int) -> int:
    import psutil  # noqa: PLC0415 - it is there where torch is

    try:
        process = psutil.Process(pid)
        return int(sum(each.memory_info().rss for each in (process, *process.children(recursive=True)))) // _MB
    except psutil.Error:  # it has just ended
        return 0
