"""Servers that are started, watched and stopped."""

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from scripts import processes
from scripts.preflight import StackError
from scripts.processes import ManagedProcess

MakeProcess = Callable[..., ManagedProcess]


@pytest.fixture
def make_process(tmp_path: Path) -> Iterator[MakeProcess]:
    """Make a process that runs a piece of Python; it is ended with the test."""
    made = []

    def make(code: str, stop_timeout_s: float = 10.0) -> ManagedProcess:
        process = ManagedProcess(
            "server", [sys.executable, "-c", code], {"A": "1"}, tmp_path / "server.log", tmp_path, stop_timeout_s
        )
        made.append(process)
        return process

    yield make
    for process in made:
        process.kill()


def _wait(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def _is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_output_of_both_kinds_goes_to_the_log(make_process: MakeProcess) -> None:
    process = make_process("import sys; print('out', flush=True); print('err', file=sys.stderr)")
    process.start()
    _wait(lambda: not process.is_running)
    assert process.log_path.read_text() == "out\nerr\n"


def test_a_process_that_ended_by_itself_is_told_with_its_last_words(make_process: MakeProcess) -> None:
    process = make_process("print('no room left'); raise SystemExit(3)")
    assert process.ending == ""
    process.start()
    _wait(lambda: not process.is_running)
    assert process.ending.startswith("server ended (exit code 3).")
    assert process.ending.endswith("no room left")
    process.stop()
    assert process.ending == ""


def test_nothing_of_our_environment_is_handed_on_unasked(
    make_process: MakeProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOME_SECRET", "x")
    process = make_process("import os; print(os.environ.get('SOME_SECRET'), os.environ['A'])")
    process.start()
    _wait(lambda: not process.is_running)
    assert process.log_path.read_text() == "None 1\n"


def test_a_server_that_ends_at_its_start_is_told_with_its_last_words(make_process: MakeProcess) -> None:
    process = make_process("import sys; sys.exit('no such table')")
    process.start()
    with pytest.raises(StackError, match=r"(?s)server stopped at its start.*no such table"):
        process.wait_until(lambda: False, 30.0)


def test_a_server_that_never_gets_ready_is_given_up(make_process: MakeProcess) -> None:
    process = make_process("import time; time.sleep(60)")
    process.start()
    with pytest.raises(StackError, match="server was not ready after 0 s"):
        process.wait_until(lambda: False, 0.0)


def test_a_server_is_asked_to_end_before_it_is_killed(make_process: MakeProcess) -> None:
    process = make_process(
        "import signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(print('bye')))\n"
        "print('ready', flush=True); time.sleep(60)"
    )
    process.start()
    _wait(lambda: "ready" in process.log_path.read_text())
    process.stop()
    assert process.log_path.read_text() == "ready\nbye\n"


def test_a_deaf_server_is_killed_with_all_that_it_started(make_process: MakeProcess) -> None:
    process = make_process(
        "import os, signal, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "print(os.fork(), flush=True); time.sleep(60)",
        stop_timeout_s=0.2,
    )
    process.start()
    pids: list[int] = []

    def has_forked() -> bool:
        pids[:] = [int(line) for line in process.log_path.read_text().split() if line != "0"]
        return bool(pids)

    _wait(has_forked)
    process.stop()
    assert process.pid is None
    _wait(lambda: not _is_alive(pids[0]))


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no parent-death signal")
def test_a_server_dies_with_the_process_that_started_it(tmp_path: Path) -> None:
    starter = (
        "import sys, time; from pathlib import Path; from scripts.processes import ManagedProcess\n"
        "d = Path(sys.argv[1]); p = ManagedProcess('s', ['/bin/sleep', '60'], {}, d / 'log', d)\n"
        "p.start(); (d / 'pid.new').write_text(str(p.pid)); (d / 'pid.new').rename(d / 'pid'); time.sleep(60)"
    )
    root = Path(__file__).parents[2]
    outer = ManagedProcess(
        "outer", [sys.executable, "-c", starter, str(tmp_path)], dict(os.environ), tmp_path / "outer.log", root
    )
    outer.start()
    _wait((tmp_path / "pid").exists)
    pid = int((tmp_path / "pid").read_text())
    assert _is_alive(pid)
    outer.kill()
    _wait(lambda: not _is_alive(pid))


def test_a_crashed_server_is_started_again_and_said_so(
    make_process: MakeProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "_FIRST_DELAY_S", 0.05)
    process = make_process("import time; time.sleep(60)")
    process.start()
    first = process.pid
    assert first
    os.kill(first, signal.SIGKILL)
    _wait(lambda: not process.is_running)
    said: list[str] = []

    def is_back() -> bool:
        process.tend(said.append)
        return process.is_running

    _wait(is_back)
    assert process.pid != first
    assert len(said) == 1
    assert "server stopped by itself (exit code -9)" in said[0]


def test_a_server_that_crashes_again_and_again_is_started_less_and_less_often(
    make_process: MakeProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "_FIRST_DELAY_S", 0.01)
    process = make_process("import sys; sys.exit(1)")
    process.start()
    said: list[str] = []
    delays: list[float] = []

    def has_crashed_four_times() -> bool:
        process.tend(said.append)
        if len(said) > len(delays):
            delays.append(process._delay_s)
        return len(delays) == 4

    _wait(has_crashed_four_times)
    assert delays == [0.01, 0.02, 0.04, 0.08]


def test_a_long_log_is_cut_while_the_server_runs(make_process: MakeProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "_MAX_LOG_BYTES", 100)
    process = make_process("import sys, time\nprint('x' * 200, flush=True); sys.stdin.read(); time.sleep(60)")
    process.start()
    _wait(lambda: process.log_path.stat().st_size > 200)
    process.tend(lambda _: None)
    assert process.log_path.read_text() == ""
    assert process.log_path.with_suffix(".old.log").read_text() == "x" * 200 + "\n"
