"""A disk that is full, for as long as a block takes."""

import resource
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest


@contextmanager
def full_disk(limit: int) -> Iterator[None]:
    """No file may grow beyond `limit` bytes: the kernel refuses further writes, as on a full disk.

    For the code under test only: pytest itself could not go on writing its report.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def fill(file: Path) -> None:
    """Let a file grow until its disk is full."""
    with file.open("ab", buffering=0) as growing:
        with suppress(OSError):
            while True:
                growing.write(bytes(4096))
        with suppress(OSError):
            while True:
                growing.write(b"0")


@contextmanager
def small_disk(folder: Path, size_kb: int) -> Iterator[Path]:
    """A disk of its own for a folder, which is really full when it is. Skips the test where nobody may mount one."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size_kb}k", "carcond-test", str(folder)]
    done = subprocess.run(mount, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"no file system can be mounted here: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)
