"""What is looked at before anything is started: ports, disk, the data folder, and who else uses it."""

import errno
import fcntl
import os
import shutil
import socket
import time
from pathlib import Path

from carcond.errors import CarcondError

MIB = 1024 * 1024
# A stack that was killed needs a moment until its servers have let go of their ports.
_PORT_PATIENCE_S = 3.0


class StackError(CarcondError):
    """The stack cannot be started; the text says what to change."""


def check_port(port: int, user: str, option: str) -> None:
    """Make sure that nothing listens on a port of this machine.

    Args:
        port: 1 to 65535.
        user: who wants the port, for the message.
        option: the option that changes it, for the message.

    Raises:
        StackError: the port is taken, or may not be used.
    """
    deadline = time.monotonic() + _PORT_PATIENCE_S
    while (problem := _port_problem(port)) == errno.EADDRINUSE and time.monotonic() < deadline:
        time.sleep(0.2)
    if problem == errno.EADDRINUSE:
        raise StackError(
            f"port {port}, meant for {user}, is taken by another program: stop that one, or choose "
            f"another port with {option} {port + 1}"
        )
    if problem:
        raise StackError(
            f"port {port}, meant for {user}, cannot be used ({os.strerror(problem)}): change it by {option}"
        )


def _port_problem(port: int) -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # As the servers do: a connection that has just been closed does not count.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            return error.errno or errno.EINVAL
    return 0


def check_disk(directory: Path, needed_mib: int, purpose: str) -> None:
    """Make sure that a disk has room.

    Raises:
        StackError: it has less than is needed.
    """
    free_mib = shutil.disk_usage(directory).free // MIB
    if free_mib < needed_mib:
        raise StackError(
            f"the disk of {directory} is nearly full: {purpose} needs {needed_mib} MB, {free_mib} MB are free. "
            "Make room, or choose a folder on another disk with --data"
        )


def make_directory(directory: Path) -> Path:
    """Make a folder that only this user can look into, unless it is there.

    Raises:
        StackError: it cannot be made or written to.
    """
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise StackError(f"the folder {directory} cannot be made: {error.strerror}. Choose another one") from error
    if not os.access(directory, os.W_OK | os.X_OK):
        raise StackError(f"no permission to write to {directory}: choose another folder, or change its owner")
    return directory


class DataLock:
    """Keeps a second stack off a data folder. The system lets go of it when the process ends, however it ends."""

    def __init__(self, data_dir: Path) -> None:
        self._path = data_dir / "lock"
        self._descriptor: int | None = None

    def acquire(self) -> None:
        """Take the lock; taking it twice is no error.

        Raises:
            StackError: another process holds it.
        """
        if self._descriptor is not None:
            return
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(descriptor)
            if error.errno not in (errno.EAGAIN, errno.EACCES):
                raise
            raise StackError(
                f"a stack runs already on {self._path.parent} (process {self._path.read_text().strip() or 'unknown'}): "
                "stop it with Ctrl-C where it was started, or choose another folder with --data"
            ) from None
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"{os.getpid()}\n".encode())
        self._descriptor = descriptor

    def release(self) -> None:
        """Let go of the lock, if it is held."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
