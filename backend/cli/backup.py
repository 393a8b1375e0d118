"""Saving and restoring a data folder of `scripts/up`: Label Studio's data, the store, models, passwords.

What is in the folder and not named here is saved, so that nothing new is ever forgotten.
"""

import fcntl
import os
import shlex
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from backend.cli.backup_archive import Manifest, is_safe, is_sqlite_companion, unpack_archive, write_archive
from carcond.errors import BackupError

# Recreated by the next start, or useless without the running stack: jobs are only requests.
_NOT_SAVED: Final = {
    "environment",
    "label-studio-venv",
    "label-studio-venv.lock",
    "lock",
    "logs",
    "redis",
    "setup.lock",
    "test-cache",
}
_REPLACED, _UNFINISHED = "replaced-", "restore-"
# Links to folders of photos, which stay where they are.
_PHOTOS = "photos"
_MODELS = "models"
# Fine-tunings under way contain copies of photos, and are useless without Redis, which is not saved. The files of pools
# are made anew from the store.
_NOT_SAVED_MODELS: Final = ("finetuning", "cache/pools")


@dataclass(frozen=True)
class Restored:
    """Result of a restore.

    Attributes:
        manifest: of the archive.
        replaced: new place of the data that were in the folder before; None when there were none.
    """

    manifest: Manifest
    replaced: Path | None


def back_up(data_dir: Path, file: Path) -> Manifest:
    """Write a data folder into one file, whether the stack runs or not.

    Raises:
        BackupError: the folder holds no data, cannot be read, or the file cannot be written.
    """
    try:
        data_dir, file = data_dir.resolve(), file.absolute()
        if not _saved(data_dir):
            raise BackupError(f"expected the data folder of a stack, {data_dir} has no data: name it with --data")
        if file.resolve().is_relative_to(data_dir):
            raise BackupError(f"{file} is inside of what is to be saved: choose a place outside of {data_dir}")
        return write_archive(file, _sources(data_dir), _links(data_dir))
    except OSError as error:
        raise BackupError(f"{data_dir} cannot be backed up: {error}") from error


def restore(file: Path, data_dir: Path, replace: bool = False) -> Restored:
    """Restore a backup: all of it, or nothing.

    Args:
        file: from `back_up`.
        data_dir: a folder without data; it is created if it is missing.
        replace: move data that are in the folder aside instead of raising an error.

    Raises:
        BackupError: the backup is damaged, the folder has data already, a stack runs on it, or the disk is full.
    """
    try:
        data_dir = data_dir.absolute()
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        with _kept_to_itself(data_dir):
            return _restore(file, data_dir, replace)
    except OSError as error:
        raise BackupError(f"{file} cannot be restored in {data_dir}: {error}") from error


def _saved(data_dir: Path) -> list[Path]:
    """Paths to save, files before folders: a version is written before `current` names it."""
    if not data_dir.is_dir():
        return []
    found = [path for path in data_dir.iterdir() if _is_saved(path)]
    return sorted(found, key=lambda path: (path.is_dir(), path.name))


def _is_saved(path: Path) -> bool:
    return path.name not in _NOT_SAVED and not path.name.startswith((_REPLACED, _UNFINISHED))


def _sources(data_dir: Path) -> Iterator[tuple[str, Path]]:
    roots = {path.name: path for path in _saved(data_dir) if path.name != _PHOTOS}
    roots[_MODELS] = _models_dir(data_dir)
    left_out = {roots[_MODELS] / name for name in _NOT_SAVED_MODELS}
    for name, root in roots.items():
        if root.is_file() and not is_sqlite_companion(root):
            yield name, root
        for folder, folders, names in os.walk(root, onerror=_tell_unreadable):
            # Unfinished versions are in hidden folders.
            folders[:] = sorted(
                each for each in folders if not each.startswith(".") and Path(folder, each) not in left_out
            )
            for path in (Path(folder) / each for each in sorted(names)):
                if path.is_file() and not is_sqlite_companion(path):
                    yield f"{name}/{path.relative_to(root).as_posix()}", path


def _tell_unreadable(error: OSError) -> None:
    """Raise for a folder that cannot be read, which `os.walk` skips by default; not for files, nor for what is gone."""
    if not isinstance(error, (FileNotFoundError, NotADirectoryError)):
        raise error


def _models_dir(data_dir: Path) -> Path:
    """Models directory of the stack at its last start."""
    settings = data_dir / "environment"
    if settings.is_file():
        for line in settings.read_text(encoding="utf-8").splitlines():
            name, _, value = line.partition("=")
            if name == "CARCOND_MODELS_DIR":
                return Path("".join(shlex.split(value)))
    return data_dir / _MODELS


def _links(data_dir: Path) -> dict[str, str]:
    """Links to photo folders; those that point into the data folder still do after a restore elsewhere."""
    photos = data_dir / _PHOTOS
    links = {}
    for link in sorted(photos.iterdir()) if photos.is_dir() else []:
        if link.is_symlink():
            target = link.readlink()
            inside = target.is_relative_to(data_dir)
            links[f"{_PHOTOS}/{link.name}"] = os.path.relpath(target, photos) if inside else str(target)
    return links


@contextmanager
def _kept_to_itself(data_dir: Path) -> Iterator[None]:
    """Hold the lock that a running stack holds."""
    descriptor = os.open(data_dir / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BackupError(f"a stack runs on {data_dir}: stop it with Ctrl-C where it was started") from None
        yield
    finally:
        os.close(descriptor)


def _restore(file: Path, data_dir: Path, replace: bool) -> Restored:
    before = _saved(data_dir)
    if before and not replace:
        raise BackupError(
            f"{data_dir} has data already ({', '.join(path.name for path in before)}): choose another folder with "
            "--data, or move them aside with --replace"
        )
    staging = Path(tempfile.mkdtemp(dir=data_dir, prefix=_UNFINISHED))
    try:
        free, needed = shutil.disk_usage(staging).free, file.stat().st_size
        if free < needed:
            raise BackupError(f"the disk of {data_dir} is too full: {needed} bytes are needed, {free} are free")
        manifest = unpack_archive(file, staging)
        _check_names(staging, file)
        _make_links(staging, manifest, file)
        aside = data_dir / f"{_REPLACED}{datetime.now(UTC):%Y%m%d-%H%M%S}"
        _swap(staging, data_dir, before, aside)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return Restored(manifest, aside if before else None)


def _check_names(staging: Path, file: Path) -> None:
    """Refuse recreated names: the next start runs the programs in a data folder, and a shell reads `environment`."""
    for path in sorted(staging.iterdir()):
        if not _is_saved(path):
            raise BackupError(
                f"{file} is no backup: expected nothing that the next start makes anew, got {path.name!r}"
            )


def _make_links(staging: Path, manifest: Manifest, file: Path) -> None:
    for name, target in manifest.links.items():
        # Links anywhere else would let a forged backup write outside the data folder later.
        if not is_safe(name) or Path(name).parent != Path(_PHOTOS):
            raise BackupError(f"{file} is no backup: expected links in {_PHOTOS}/ only, got {name!r}")
        (staging / name).parent.mkdir(mode=0o700, exist_ok=True)
        (staging / name).symlink_to(target)


def _swap(staging: Path, data_dir: Path, before: list[Path], aside: Path) -> None:
    """Move the old data aside and the unpacked data in; on an error all is moved back."""
    moves = [(path, aside / path.name) for path in before]
    moves += [(path, data_dir / path.name) for path in sorted(staging.iterdir())]
    if before:
        aside.mkdir(mode=0o700)
    done = []
    try:
        for source, target in moves:
            source.rename(target)
            done.append((source, target))
    except OSError:
        for source, target in reversed(done):
            target.rename(source)
        if before:
            aside.rmdir()
        raise
