"""What becomes of the process that trains; small scripts stand for it."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from backend.worker import trainer_process
from backend.worker.trainer_process import run_trainer
from carcond.errors import OutOfMemoryError, TrainingCancelledError, TrainingError
from carcond.training.request import OUTCOME, PROGRESS

pytestmark = pytest.mark.slow

Runs = Callable[[str], None]


@pytest.fixture
def trains_as(monkeypatch: pytest.MonkeyPatch) -> Runs:
    """Call with a script: it runs in place of the trainer, in the directory."""

    def use(script: str) -> None:
        code = "import json, os, pathlib, signal, sys, time\nos.chdir(sys.argv[1])\n" + textwrap.dedent(script)
        monkeypatch.setattr(trainer_process, "_command", lambda directory: [sys.executable, "-c", code, str(directory)])

    return use


def run(directory: Path, memory_mb: int = 0, cancelled: Callable[[], bool] = lambda: False) -> dict[str, Any]:
    return run_trainer(directory, memory_mb, lambda _: None, cancelled)


def test_the_outcome_is_handed_back_and_progress_is_told(tmp_path: Path, trains_as: Runs) -> None:
    trains_as(f"""
        pathlib.Path("{PROGRESS}").write_text(json.dumps({{"stage": "training", "done": 3}}))
        time.sleep(2)
        pathlib.Path("{OUTCOME}").write_text(json.dumps({{"encoder_id": "tiny", "facts": {{}}}}))
    """)
    told: list[Mapping[str, Any]] = []
    assert run_trainer(tmp_path, 0, told.append, lambda: False) == {"encoder_id": "tiny", "facts": {}}
    assert told == [{"stage": "training", "done": 3}]


def test_what_an_earlier_process_wrote_is_not_taken_for_this_ones(tmp_path: Path, trains_as: Runs) -> None:
    (tmp_path / OUTCOME).write_text(json.dumps({"encoder_id": "old", "facts": {}}))
    trains_as("sys.exit(3)")
    with pytest.raises(TrainingError, match="ended with code 3, see the worker's log"):
        run(tmp_path)


def test_more_memory_than_it_may_take_ends_it_and_is_told_as_that(tmp_path: Path, trains_as: Runs) -> None:
    trains_as("kept = bytearray(200_000_000)\ntime.sleep(60)")
    began = time.monotonic()
    with pytest.raises(OutOfMemoryError, match=r"it took \d+ MB, more than CARCOND_FINETUNE_MEMORY_MB=100"):
        run(tmp_path, memory_mb=100)
    assert time.monotonic() - began < 50


def test_a_kill_by_the_system_for_want_of_memory_is_told_as_that(
    tmp_path: Path, trains_as: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    trains_as("os.kill(os.getpid(), signal.SIGKILL)")
    counts = iter([4, 5])
    monkeypatch.setattr(trainer_process, "_out_of_memory_kills", lambda: next(counts))
    with pytest.raises(OutOfMemoryError, match="the system has ended the training"):
        run(tmp_path)


def test_a_kill_by_somebody_is_not_called_want_of_memory(tmp_path: Path, trains_as: Runs) -> None:
    trains_as("os.kill(os.getpid(), signal.SIGKILL)")
    with pytest.raises(TrainingError, match="ended by signal 9; asked for again, it goes on") as caught:
        run(tmp_path)
    assert not isinstance(caught.value, OutOfMemoryError)


@pytest.mark.parametrize(("out_of_memory", "kind"), [(True, OutOfMemoryError), (False, TrainingError)])
def test_errors_of_the_training_come_through(
    tmp_path: Path, trains_as: Runs, out_of_memory: bool, kind: type[TrainingError]
) -> None:
    outcome = json.dumps({"error": "why", "out_of_memory": out_of_memory})
    trains_as(f"pathlib.Path({OUTCOME!r}).write_text({outcome!r})")
    with pytest.raises(kind, match="why"):
        run(tmp_path)


def test_a_cancelled_training_is_ended(tmp_path: Path, trains_as: Runs) -> None:
    trains_as('pathlib.Path("pid").write_text(str(os.getpid()))\ntime.sleep(60)')
    with pytest.raises(TrainingCancelledError):
        run(tmp_path, cancelled=(tmp_path / "pid").exists)
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


def test_the_trainer_ends_with_the_process_that_waits_for_it(tmp_path: Path) -> None:
    """No torch is needed for that: the trainer stands back before it reads its request, here from a pipe."""
    os.mkfifo(tmp_path / "request.json")
    waits = "import subprocess, sys; p = subprocess.Popen(sys.argv[1:] + [str(__import__('os').getpid())]); "
    waits += "print(p.pid, flush=True); p.wait()"
    trainer = [sys.executable, "-m", "carcond.training.trainer_main", str(tmp_path)]
    parent = subprocess.Popen([sys.executable, "-c", waits, *trainer], stdout=subprocess.PIPE)
    assert parent.stdout
    pid = int(parent.stdout.readline())
    adjusted = Path(f"/proc/{pid}/oom_score_adj")
    deadline = time.monotonic() + 60
    while adjusted.read_text() != "1000\n" and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(0.2)  # the next line of the trainer asks for the signal
    parent.send_signal(signal.SIGKILL)
    parent.communicate()
    while Path(f"/proc/{pid}").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not Path(f"/proc/{pid}").exists() or "Z" in Path(f"/proc/{pid}/stat").read_text().split()[2]
