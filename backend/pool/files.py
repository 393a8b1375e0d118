"""The files of a pool: embeddings that are only ever appended, and the facts that name the valid part of them.

The facts are replaced by rename after the embeddings are on the disk. So a process that is killed in between leaves a
tail of embeddings that nothing names, and the next one writes over it. Its archive has a checksum of every array.
"""

import contextlib
import errno
import fcntl
import json
import mmap
import os
import secrets
import time
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TextIO

import numpy as np
import numpy.typing as npt

from backend.pool.facts import PoolFacts
from carcond.arrays import IntArray
from carcond.files import replaced_file, sync
from carcond.store.embedding_matrix import EmbeddingMatrix

HalfArray = npt.NDArray[np.float16]

_FACTS, _LOCK = "facts.npz", "lock"
_FORMAT = 1
# A page of the dashboard that reads a large pool anew must not hold up a turn for ever.
LOCK_PATIENCE_S = 60.0
_POLL_S = 0.02


@dataclass(frozen=True)
class KeptPool:
    """The photos as they were at a moment.

    Attributes:
        number: the last change that is in it, see `carcond.store.changes`.
        facts: of the photos.
    """

    number: int
    facts: PoolFacts


class Embeddings(Protocol):
    """Embeddings that are only ever appended: in files, or in memory."""

    count: int

    def append(self, halves: HalfArray) -> None:
        """Append embeddings ``(B, D)``."""

    def rows(self, places: IntArray) -> HalfArray:
        """Embeddings ``(P, D)`` at some rows."""

    def matrix(self, places: IntArray) -> EmbeddingMatrix:
        """Embeddings at some rows, to be read when they are used."""


class MemoryEmbeddings:
    """Embeddings in memory, where the disk has no room for them."""

    def __init__(self) -> None:
        self.count = 0
        self._parts: list[HalfArray] = []

    def append(self, halves: HalfArray) -> None:
        """Append embeddings ``(B, D)``."""
        self._parts.append(halves)
        self.count += len(halves)

    def rows(self, places: IntArray) -> HalfArray:
        """Embeddings ``(P, D)`` at some rows."""
        return self._all()[places]

    def matrix(self, places: IntArray) -> EmbeddingMatrix:
        """Embeddings at some rows."""
        return EmbeddingMatrix(self._all(), places)

    def _all(self) -> HalfArray:
        if len(self._parts) > 1:
            self._parts = [np.concatenate(self._parts)]
        return self._parts[0] if self._parts else np.empty((0, 0), dtype=np.float16)


class PoolFiles:
    """The files of one pool; `locked` makes it."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.forget()

    def forget(self) -> None:
        """Begin anew, with no embedding."""
        self._name = f"embeddings-{secrets.token_hex(4)}.f2"
        self.count = self._length = 0

    def load(self) -> KeptPool | None:
        """Read what `publish` wrote last; None when there is nothing, or nothing that can be read."""
        try:
            # Not by its name: numpy would leave a file open that is no archive.
            with (self._directory / _FACTS).open("rb") as file, np.load(file, allow_pickle=False) as archive:
                arrays = dict(archive)
            header = json.loads(str(arrays.pop("header")))
            size = (self._directory / header["embeddings"]).stat().st_size if header["count"] else 0
            if header["format"] != _FORMAT or size < header["count"] * header["length"] * 2:
                return None
            kept = KeptPool(header["number"], PoolFacts.from_arrays(arrays))
        except (OSError, EOFError, KeyError, RuntimeError, TypeError, ValueError, zipfile.BadZipFile):
            return None
        self._name, self.count, self._length = header["embeddings"], header["count"], header["length"]
        return kept

    def append(self, halves: HalfArray) -> None:
        """Append embeddings ``(B, D)``; they count when they are published."""
        self._length = halves.shape[1]
        path = self._directory / self._name
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o640), "wb") as file:
            file.seek(self.count * self._length * 2)
            file.write(halves.tobytes())
        self.count += len(halves)

    def publish(self, kept: KeptPool) -> None:
        """Make what was appended count, with the facts that name it."""
        if self.count:
            sync(self._directory / self._name)
        header = {
            "format": _FORMAT,
            "number": kept.number,
            "embeddings": self._name,
            "count": self.count,
            "length": self._length,
        }
        with replaced_file(self._directory / _FACTS) as temporary, temporary.open("wb") as file:
            arrays: dict[str, Any] = {"header": np.array(json.dumps(header)), **kept.facts.arrays()}
            np.savez(file, **arrays)
        for other in self._directory.glob("embeddings-*.f2"):
            if other.name != self._name:
                other.unlink(missing_ok=True)  # processes that have mapped it keep it
        for torn in self._directory.glob(".*.npz"):
            torn.unlink(missing_ok=True)  # of a process that was killed

    def rows(self, places: IntArray) -> HalfArray:
        """Embeddings ``(P, D)`` at some rows."""
        halves, _ = self._mapped()
        return halves[places]

    def matrix(self, places: IntArray) -> EmbeddingMatrix:
        """Embeddings at some rows, mapped: they are read when they are used."""
        halves, mapping = self._mapped()
        return EmbeddingMatrix(halves, places, mapping)

    def _mapped(self) -> tuple[HalfArray, mmap.mmap | None]:
        if not self.count:
            return np.empty((0, self._length), dtype=np.float16), None
        with (self._directory / self._name).open("rb") as file:
            mapping = mmap.mmap(file.fileno(), self.count * self._length * 2, access=mmap.ACCESS_READ)
        return np.frombuffer(mapping, dtype="<f2").reshape(self.count, self._length), mapping


@contextlib.contextmanager
def locked(directory: Path) -> Iterator[PoolFiles]:
    """The files of a pool, while no other process changes them.

    Raises:
        OSError: the disk refused, or another process has held them for longer than `LOCK_PATIENCE_S`.
    """
    directory.mkdir(parents=True, exist_ok=True, mode=0o750)
    with (directory / _LOCK).open("w") as lock:
        deadline = time.monotonic() + LOCK_PATIENCE_S
        while not _lock(lock):
            if time.monotonic() > deadline:
                raise TimeoutError(errno.ETIMEDOUT, "another process holds its lock", str(directory))
            time.sleep(_POLL_S)
        yield PoolFiles(directory)


def _lock(file: TextIO) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
