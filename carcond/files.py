"""Files and directories that are either there whole or not there at all, and that other users cannot read.

Labels, addresses of photos and models are nobody's business but that of the user who runs carcond, and of its group.
"""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_FILE, _DIRECTORY = 0o640, 0o750


def restrict_umask() -> None:
    """Take all access of other users, and the group's right to write, from whatever this process and its children make.

    For entry points: a umask of 000, as some service managers have it, would let everybody change models and labels.
    """
    os.umask(os.umask(0o777) | 0o777 - _DIRECTORY)


def sync(path: Path) -> None:
    """Wait until a file, or the entries of a directory, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def replaced_file(path: Path, mode: int = _FILE) -> Iterator[Path]:
    """Write a file beside another one, and put it into its place by rename: readers see the old one or the new one.

    Args:
        path: the file; its directory exists.
        mode: permissions of the new file; while it is written, only its owner may read it.

    Yields:
        An empty file to write into. After an error it is removed, and `path` stays as it was.
    """
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=path.suffix)
    os.close(descriptor)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(mode)
        sync(temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    sync(path.parent)


def replace_text(path: Path, text: str, mode: int = _FILE) -> None:
    """Write a text, as UTF-8, by `replaced_file`."""
    with replaced_file(path, mode) as file:
        file.write_text(text, encoding="utf-8")


def append_lines(path: Path, lines: str) -> None:
    """Add lines to a file that is only ever added to, and wait until they are on the disk.

    After a line that a full disk or a power cut tore, they begin on a line of their own.

    Args:
        path: the file; its directory is there already.
        lines: written as UTF-8, each ends with a newline.

    Raises:
        OSError: the disk refused.
    """
    with os.fdopen(os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, _FILE), "ab+") as file:
        if file.tell():
            file.seek(-1, os.SEEK_END)
            lines = lines if file.read(1) == b"\n" else "\n" + lines
        file.write(lines.encode())
        file.flush()
        os.fsync(file.fileno())


@contextmanager
def new_directory(path: Path) -> Iterator[Path]:
    """Fill a directory that appears under its name only when it is complete.

    Args:
        path: the directory to be; parents are made. Other users can read neither it nor the files in it.

    Yields:
        A temporary directory beside it, removed again when the block raises.

    Raises:
        OSError: the disk refused, or somebody else made the directory meanwhile: theirs stays.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}-"))
    try:
        yield temporary
        temporary.chmod(_DIRECTORY)
        for file in temporary.iterdir():
            if file.is_file():
                file.chmod(_FILE)
            sync(file)
        sync(temporary)
        temporary.rename(path)
        sync(path.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
