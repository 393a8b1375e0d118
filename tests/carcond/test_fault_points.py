"""Faults that tests lay at named points."""

import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from carcond import fault_points
from carcond.fault_points import POINTS, SELF, VARIABLE, reach

ROOT = Path(__file__).parents[2]


def run(point: str, folder: Path | None) -> int:
    """Exit code of a process that reaches a point."""
    environment = {VARIABLE: str(folder)} if folder else {}
    command = [sys.executable, "-c", f"from carcond.fault_points import reach; reach({point!r})"]
    return subprocess.run(command, env=environment, cwd=ROOT, check=False).returncode


def test_a_laid_fault_ends_the_first_process_that_reaches_it_and_no_other(tmp_path: Path) -> None:
    (tmp_path / "turn.read").write_text(SELF)
    assert run("turn.settled", tmp_path) == 0
    assert run("turn.read", tmp_path) == -signal.SIGKILL
    assert run("turn.read", tmp_path) == 0


def test_a_fault_can_end_another_server_while_the_process_that_reaches_it_goes_on(tmp_path: Path) -> None:
    server = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, start_new_session=True)
    (tmp_path / "turn.read").write_text(str(server.pid))
    assert run("turn.read", tmp_path) == 0
    assert server.wait(timeout=10) == -signal.SIGKILL
    server.communicate()


def test_no_point_does_anything_unless_a_folder_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "turn.read").write_text(SELF)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(VARIABLE, raising=False)
    reach("turn.read")
    assert (tmp_path / "turn.read").exists()


def test_the_points_listed_are_those_that_the_code_reaches_each_once() -> None:
    files = [path for package in ("backend", "carcond") for path in (ROOT / package).rglob("*.py")]
    code = "".join(path.read_text() for path in files if path != Path(fault_points.__file__))
    assert sorted(re.findall(r'\breach\("([a-z._]+)"\)', code)) == sorted(POINTS)
