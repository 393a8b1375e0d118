"""Before anything is started: ports, disk, the data folder."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from scripts import preflight
from scripts.ports import free_ports
from scripts.preflight import DataLock, StackError, check_disk, check_port, make_directory


@pytest.fixture
def taken_port() -> Iterator[int]:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        yield int(server.getsockname()[1])


def test_a_taken_port_is_named_with_the_option_that_changes_it(
    taken_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preflight, "_PORT_PATIENCE_S", 0.0)
    with pytest.raises(StackError, match=rf"port {taken_port}, meant for the backend, is taken.*--backend-port"):
        check_port(taken_port, "the backend", "--backend-port")


def test_a_port_that_its_last_user_is_leaving_is_waited_for() -> None:
    code = (
        "import socket, sys, time\n"
        "server = socket.create_server(('127.0.0.1', int(sys.argv[1]))); print(flush=True); time.sleep(0.5)"
    )
    port = free_ports(1)[0]
    with subprocess.Popen([sys.executable, "-c", code, str(port)], stdout=subprocess.PIPE) as leaving:
        assert leaving.stdout
        leaving.stdout.readline()
        check_port(port, "Redis", "--redis-port")


def test_a_free_port_is_no_problem() -> None:
    check_port(free_ports(1)[0], "Label Studio", "--port")


def test_a_nearly_full_disk_is_said_with_what_is_needed_and_free(tmp_path: Path) -> None:
    with pytest.raises(StackError, match=r"nearly full: the test needs 1000000000000 MB, \d+ MB are free"):
        check_disk(tmp_path, 10**12, "the test")


def test_a_disk_with_room_is_no_problem(tmp_path: Path) -> None:
    check_disk(tmp_path, 1, "the test")


def test_a_new_data_folder_is_closed_to_others(tmp_path: Path) -> None:
    assert make_directory(tmp_path / "a" / "b").stat().st_mode & 0o777 == 0o700


def test_a_data_folder_below_a_file_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StackError, match="cannot be made: Not a directory"):
        make_directory(tmp_path / "file" / "data")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_data_folder_without_permission_to_write_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(StackError, match="no permission to write"):
        make_directory(tmp_path)


def test_a_second_stack_on_the_same_data_is_refused_and_told_the_first_ones_pid(tmp_path: Path) -> None:
    first = DataLock(tmp_path)
    first.acquire()
    try:
        with pytest.raises(StackError, match=rf"runs already on .* \(process {os.getpid()}\)"):
            DataLock(tmp_path).acquire()
    finally:
        first.release()


def test_taking_the_lock_twice_is_no_error(tmp_path: Path) -> None:
    lock = DataLock(tmp_path)
    lock.acquire()
    lock.acquire()
    lock.release()


def test_a_released_lock_can_be_taken_by_another(tmp_path: Path) -> None:
    first, second = DataLock(tmp_path), DataLock(tmp_path)
    first.acquire()
    first.release()
    second.acquire()
    second.release()
    second.release()


def test_the_lock_of_a_killed_process_is_free(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from scripts.preflight import DataLock\n"
        "lock = DataLock(Path(sys.argv[1])); lock.acquire(); print(flush=True); time.sleep(60)"
    )
    root = Path(__file__).parents[2]
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], cwd=root, stdout=subprocess.PIPE) as holder:
        assert holder.stdout
        holder.stdout.readline()
        with pytest.raises(StackError):
            DataLock(tmp_path).acquire()
        holder.kill()
    lock = DataLock(tmp_path)
    lock.acquire()
    lock.release()
