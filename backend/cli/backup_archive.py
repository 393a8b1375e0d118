"""A backup's file: a tar archive of plain files that ends with a manifest of their checksums."""

import hashlib
import io
import os
import sqlite3
import tarfile
import tempfile
from collections.abc import Iterable, Mapping
from contextlib import closing, suppress
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path, PurePosixPath
from typing import IO, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from carcond.errors import BackupError

FORMAT: Final = 1
"""Number of the archive's format: raised when an older program could not read it correctly."""

MANIFEST: Final = "manifest.json"
_SQLITE_MAGIC = b"SQLite format 3\0"
_SQLITE_COMPANIONS = ("-wal", "-shm", "-journal")
_CHUNK = 1 << 20
# A manifest has some hundred bytes a file, and is read into memory.
_MAX_MANIFEST = 256 << 20


class Manifest(BaseModel):
    """Content of an archive. It is the last member, so that a truncated archive has none.

    Attributes:
        format: number of the archive's format.
        carcond: version of the program that wrote it.
        created: date and time, ISO 8601, UTC.
        files: name -> SHA-256, in hexadecimal.
        links: name -> target of symbolic links, which are not members of the archive.
    """

    model_config = ConfigDict(frozen=True)

    format: int = FORMAT
    carcond: str = Field(default_factory=lambda: version("carcond"))
    created: str = Field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))
    files: dict[str, str]
    links: dict[str, str] = {}


class _Format(BaseModel):
    """The one field that manifests of every format have."""

    format: int


def write_archive(file: Path, sources: Iterable[tuple[str, Path]], links: Mapping[str, str]) -> Manifest:
    """Write an archive that only its owner can read, whole or not at all.

    SQLite databases are copied by SQLite itself, so that concurrent writes do no harm.

    Args:
        file: the archive to write; it must not exist.
        sources: names in the archive, with ``/`` between folders, and the files. One that is gone is skipped.
        links: see `Manifest`.

    Raises:
        BackupError: the file exists already, a file cannot be read, or the disk is full; nothing is left behind.
    """
    if file.exists():
        raise BackupError(f"{file} is there already: choose another name, or remove it")
    temporary: Path | None = None
    try:
        # Made by `mkstemp`: readable by its owner alone from the beginning.
        descriptor, name = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}-")
        temporary = Path(name)
        with os.fdopen(descriptor, "wb") as stream:
            with tarfile.open(temporary, mode="w", fileobj=stream) as archive:
                manifest = _fill(archive, sources, links)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.rename(file)
    except (OSError, ValueError, sqlite3.Error, tarfile.TarError) as error:  # ValueError: a name that is no text
        raise BackupError(f"the backup {file} cannot be written: {error}") from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
    return manifest


def _fill(archive: tarfile.TarFile, sources: Iterable[tuple[str, Path]], links: Mapping[str, str]) -> Manifest:
    digests = {}
    for name, path in sources:
        with suppress(FileNotFoundError):
            add = _add_database if _is_sqlite(path) else _add
            digests[name] = add(archive, name, path)
    manifest = Manifest(files=digests, links=dict(links))
    text = manifest.model_dump_json(indent=1).encode()
    member = tarfile.TarInfo(MANIFEST)
    member.size, member.mode = len(text), 0o600
    archive.addfile(member, io.BytesIO(text))
    return manifest


def is_sqlite_companion(path: Path) -> bool:
    """True if a file belongs to the SQLite database beside it, and is useless without it."""
    for suffix in _SQLITE_COMPANIONS:
        if path.name.endswith(suffix):
            database = path.with_name(path.name.removesuffix(suffix))
            return database.is_file() and _is_sqlite(database)
    return False


def _is_sqlite(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(len(_SQLITE_MAGIC)) == _SQLITE_MAGIC


def _add_database(archive: tarfile.TarFile, name: str, path: Path) -> str:
    # Beside the archive: that disk has to have room for it anyway.
    with tempfile.TemporaryDirectory(dir=Path(str(archive.name)).parent, prefix=".carcond-") as folder:
        copy = Path(folder) / "copy"
        with (
            closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=rw", uri=True, timeout=60)) as source,
            closing(sqlite3.connect(copy)) as target,
        ):
            source.backup(target)
        copy.chmod(path.stat().st_mode & 0o777)
        return _add(archive, name, copy)


def _add(archive: tarfile.TarFile, name: str, path: Path) -> str:
    with path.open("rb") as file:
        status = os.fstat(file.fileno())
        member = tarfile.TarInfo(name)
        member.size, member.mode, member.mtime = status.st_size, status.st_mode & 0o777, int(status.st_mtime)
        reader = _Hashing(file)
        archive.addfile(member, reader)
    return reader.digest.hexdigest()


class _Hashing:
    """Reads a file, and hashes what was read."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.digest = hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        chunk = self._file.read(size)
        self.digest.update(chunk)
        return chunk


def unpack_archive(file: Path, directory: Path) -> Manifest:
    """Unpack an archive into an empty directory, and verify its checksums.

    Nothing is written outside of the directory, whatever the archive says. Links are not made.

    Raises:
        BackupError: it is no backup, damaged, truncated, or of a newer format.
    """
    try:
        with tarfile.open(file, "r:") as archive:
            manifest, digests = _unpack(archive, directory, file)
    except (OSError, tarfile.TarError, EOFError, ValueError) as error:  # ValueError: a header or a name that is none
        raise BackupError(f"{file} cannot be unpacked: {error}") from error
    if manifest is None:
        raise BackupError(f"{file} is no backup, or its end is missing: expected it to end with {MANIFEST}")
    differing = [name for name in {*manifest.files, *digests} if manifest.files.get(name) != digests.get(name)]
    if differing:
        raise BackupError(f"{file} is damaged ({len(differing)} files, like {min(differing)}): take another copy of it")
    return manifest


def _unpack(archive: tarfile.TarFile, directory: Path, file: Path) -> tuple[Manifest | None, dict[str, str]]:
    manifest, digests = None, {}
    for member in archive:
        # A sparse file of some bytes becomes one of any size: a plain one is never larger than the archive.
        content = archive.extractfile(member) if member.isreg() and not member.issparse() else None
        if content is None or manifest is not None or not is_safe(member.name):
            raise BackupError(f"{file} is no backup: expected plain files inside of it, got {member.name!r}")
        if member.name == MANIFEST:
            if member.size > _MAX_MANIFEST:
                raise BackupError(
                    f"expected a {MANIFEST} of at most {_MAX_MANIFEST} bytes in {file}, got {member.size}"
                )
            manifest = _read_manifest(content.read(), file)
            continue
        target = directory / member.name
        _make_folders(target.parent)
        # "x": two members of one name are a fault.
        with target.open("xb") as stream:
            reader = _Hashing(content)
            while chunk := reader.read(_CHUNK):
                stream.write(chunk)
            os.fchmod(stream.fileno(), member.mode & 0o750)
        digests[member.name] = reader.digest.hexdigest()
    return manifest, digests


def _make_folders(folder: Path) -> None:
    """Make a folder and those above it, for their owner alone: `Path.mkdir` makes the upper ones by the umask."""
    if not folder.is_dir():
        _make_folders(folder.parent)
        folder.mkdir(mode=0o700)


def is_safe(name: str) -> bool:
    """True if a name stays below the directory that it is relative to."""
    path = PurePosixPath(name)
    return bool(path.parts) and not path.is_absolute() and ".." not in path.parts and str(path) == name


def _read_manifest(text: bytes, file: Path) -> Manifest:
    try:
        written = _Format.model_validate_json(text).format
        if written <= FORMAT:
            return Manifest.model_validate_json(text)
    except ValidationError:
        raise BackupError(f"{file} is no backup: its {MANIFEST} is malformed") from None
    raise BackupError(
        f"expected a backup of format {FORMAT} or older, {file} is of format {written}: restore it with the "
        "carcond that wrote it, or a newer one"
    )
