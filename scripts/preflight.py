"""Checks before the start of a stack: ports, disk, the data folder, and its lock."""

import errno
import fcntl
import os
import shutil
import socket
import time
from pathlib import Path

from carcond.errors import CarcondError

MIB = 1024 * 1024
# The servers of a killed stack need a moment to release their ports.
_PORT_PATIENCE_S = 3.0


class StackError(CarcondError):
    """The stack cannot be started; the message says what to change."""


def check_port(port: int, user: str, option: str, address: str = "127.0.0.1") -> None:
    """Check that nothing listens on a port of this machine.

    Args:
        port: 1 to 65535.
        user: server that needs the port, for the message.
        option: the option that changes it, for the message.
        address: of this machine, to be listened on.

    Raises:
        StackError: the port is taken, or may not be used.
    """
    deadline = time.monotonic() + _PORT_PATIENCE_S
    while (problem := _port_problem(port, address)) == errno.EADDRINUSE and time.monotonic() < deadline:
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


def _port_problem(port: int, address: str) -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # As the servers do: a connection that has just been closed does not count.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except OSError as error:
            return error.errno or errno.EINVAL
    return 0


def check_disk(directory: Path, needed_mib: int, purpose: str) -> None:
    """Check that a disk has enough free space.

    Raises:
        StackError: it has less than needed.
    """
    free_mib = shutil.disk_usage(directory).free // MIB
    if free_mib < needed_mib:
        raise StackError(
            f"the disk of {directory} is nearly full: {purpose} needs {needed_mib} MB, {free_mib} MB are free. "
            "Make room, or choose a folder on another disk with --data"
        )


def make_directory(directory: Path) -> Path:
    """Make a folder that only this user can access, unless it exists.

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
    """Lock of a data folder against a second stack. The system releases it when the process ends, however it ends."""

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
                "stop it with Ctrl-C where it was started, or choose another folder with --data. To add photos to it: "
                "scripts/add_photos DIR"
            ) from None
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"{os.getpid()}\n".encode())
        self._descriptor = descriptor

    def release(self) -> None:
        """Release the lock, if it is held."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
