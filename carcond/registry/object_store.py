"""Encoders and versions in an object store, for stacks whose processes share no disk.

Each process works on its own `models_dir`, which is synchronised with the store: the others fetch what one writes. The
store has the same layout, and beside each directory, which never changes, a manifest `<directory>.<digest>.json` that
is written last: a directory without one is not complete and is not there. Its digest is that of the directory's card,
by which a local directory is known to be the same without a request. `current` is written after the directory it names.

Versions that were pruned (see `carcond.registry.pruning`) are neither fetched nor pushed, whoever still has them.
Each host removes its own copy at its next pull; the worker removes the store's, the manifest first.

The store is authoritative for the serving version: a promotion is written there first, and then locally. So a process
that is killed, or a store that refuses, leaves a host behind the store, never ahead of it.

The store is any address that fsspec knows, like `s3://bucket/carcond`. Only one worker at a time takes a turn of a
project, so two never write the same version. Persons take no turns: see `ModelMirror.promote`.
"""

import hashlib
import json
import logging
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from shutil import rmtree
from urllib.parse import urlsplit

import fsspec

from carcond.errors import ModelMirrorError
from carcond.files import new_directory, replace_text
from carcond.registry.promotions import LOOP, Promotion, parse_promotions, pin_in_force
from carcond.registry.pruning import AT_ONCE, removable, sweep
from carcond.registry.registry import pin_words, version_name
from carcond.registry.version_folder import VersionFolder

logger = logging.getLogger(__name__)

# Attempts to append a line to the record that another host may overwrite at the same moment.
_TRIES = 3


@dataclass(frozen=True)
class _Shelf:
    """A folder of immutable directories, with the file that names the one in use. Paths are below `models_dir`.

    Attributes:
        directories: path of the folder.
        card: the file of each directory that distinguishes two of one name.
        current: path of the file that names the one in use.
        records: paths of its append-only history files.
        project: number of the project whose versions they are, 0 for encoders.
    """

    directories: str
    card: str
    current: str
    records: tuple[str, ...] = ()
    project: int = 0


_ENCODERS = _Shelf("encoders", "encoder.json", "encoders/current")


def _versions(project_id: int) -> _Shelf:
    root = f"projects/{project_id}"
    records = (f"{root}/promotions.jsonl", f"{root}/versions.jsonl")
    return _Shelf(f"{root}/versions", "card.json", f"{root}/current", records, project_id)


class ModelMirror:
    """Synchronises `models_dir` with an object store. Threads must not share it."""

    def __init__(self, models_dir: Path, url: str) -> None:
        """Open the store.

        Raises:
            ModelMirrorError: fsspec does not support the address, lacks its package, or cannot reach it.
        """
        parts = urlsplit(url)
        self.place = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
        """The store's address, without secrets."""
        # Only folders on a disk have to be made.
        options = {"auto_mkdir": True} if parts.scheme == "file" else {}
        with self._exchange():
            self._files, root = fsspec.url_to_fs(url, use_listings_cache=False, **options)
        self._root = root.rstrip("/")
        self._local = models_dir
        # The encoder in use at the last synchronisation. Only a local change is pushed: else a fine-tuning, which takes
        # hours and may change nothing, would undo a change made elsewhere meanwhile.
        self._agreed_encoder: str | None = None
        # Size in bytes of each record in the store when it was last read: it only grows.
        self._sizes: dict[str, int] = {}

    def pull_encoders(self) -> None:
        """Fetch the encoders of the store, and which of them is in use."""
        with self._exchange():
            self._fetch(_ENCODERS, self._stored(_ENCODERS))
            self._agreed_encoder = self._fetch_current(_ENCODERS)

    def push_encoders(self) -> None:
        """Push the encoders made here, and which of them is in use."""
        with self._exchange():
            self._push_directories(_ENCODERS)
            current = self._read_local(_ENCODERS.current)
            if current != self._agreed_encoder:
                self._write(_ENCODERS.current, current)
                self._agreed_encoder = current

    def pull_versions(self, project_id: int) -> None:
        """Fetch all versions of a project, refused ones too: before a turn, and before somebody promotes."""
        with self._exchange():
            shelf = _versions(project_id)
            # First, so that nothing is fetched that was pruned.
            self._fetch_records(shelf)
            stored = self._stored(shelf)
            names = self._wanted(shelf, stored) | {(self._read(shelf.current) or "").strip()}
            self._fetch(shelf, {name: digest for name, digest in stored.items() if name in names})
            self._fetch_current(shelf)
            sweep(self._folder(shelf))

    def push_versions(self, project_id: int) -> None:
        """Push the versions made here; which of them serves only if none does yet, see `promote`."""
        with self._exchange():
            shelf = _versions(project_id)
            self._push_directories(shelf)
            self._push_records(shelf)
            if self._read(shelf.current) is None:  # made before there was a store
                self._write(shelf.current, self._read_local(shelf.current))

    def promote(self, project_id: int, promotion: Promotion) -> None:
        """Make a version serve on all hosts, if the one that it replaces still does; or change the pin.

        There is no lock: a write of another host in the milliseconds between read and write is lost. A pin is recorded
        before its version serves, so the worker's next turn repairs that. A pin does not check the version that it
        replaces: a person who pins one means it whatever was promoted meanwhile.

        Raises:
            ModelMirrorError: another version serves or is pinned by now, or the store refused. Then nothing has
                changed, unless the store wrote `current` or the pin and its response was lost: the next
                `pull_versions` reads it.
        """
        shelf = _versions(project_id)
        with self._exchange():
            self._push_directories(shelf)
            text = self._read(shelf.current)
            serving = None if text is None else int(text)
        if promotion.changes_serving and not promotion.pinned:
            self._check_promotion(shelf, promotion, serving)
        else:
            with self._exchange():
                self._push_promotion(shelf, promotion)
        if not promotion.changes_serving:
            return
        with self._exchange():
            self._write(shelf.current, f"{promotion.version:04d}\n")
        try:
            with self._exchange():
                self._push_promotion(shelf, promotion)
        except ModelMirrorError as error:  # it serves all the same: to say that it does not would be wrong
            logger.error("%s serves, other hosts have no record of it: %s", version_name(promotion.version), error)

    def _check_promotion(self, shelf: _Shelf, promotion: Promotion, serving: int | None) -> None:
        """Raise when changes by other hosts conflict with a promotion that pins nothing."""
        name = version_name(promotion.version)
        if serving is not None and serving != promotion.before:
            raise ModelMirrorError(
                f"{name} does not serve: {version_name(serving)} serves on other hosts by now, look again"
            )
        with self._exchange():
            pin = pin_in_force(parse_promotions(self._read(shelf.records[0], errors="replace") or ""))
        if promotion.who == LOOP and pin and pin.version != promotion.version:
            raise ModelMirrorError(f"{name} does not serve: on other hosts {pin_words(pin)}")

    def prune(self, project_id: int) -> None:
        """Remove pruned versions from the store, after their lines in the log were pushed."""
        shelf = _versions(project_id)
        with self._exchange():
            self._fetch_records(shelf)
            self._push_records(shelf)
            serving = self._read(shelf.current)
            present: dict[int, list[str]] = {}
            for path in self._list(shelf):
                name = path.rpartition("/")[2].partition(".")[0]
                if name.isdigit() and name != (serving or "").strip():
                    present.setdefault(int(name), []).append(path)
            for number in removable(self._folder(shelf), present)[:AT_ONCE]:
                # Without its manifest, which ends in .json, a directory is not there.
                for path in sorted(present[number], key=lambda path: not path.endswith(".json")):
                    self._files.rm(path, recursive=True)

    def pull_serving(self, project_id: int) -> bool:
        """Fetch the serving version of a project if it differs from the local one, and the records since.

        Returns:
            True if it was another one.
        """
        shelf = _versions(project_id)
        with self._exchange():
            serving = self._read(shelf.current)
            if serving is None:
                return False
            name = serving.strip()
            is_here = (self._local / shelf.directories / name).is_dir()
            is_other = serving != self._read_local(shelf.current) or not is_here
            if is_other:
                self._fetch(shelf, {name: self._stored(shelf)[name]})
            if is_other or self._have_grown(shelf):
                self._fetch_records(shelf)
                sweep(self._folder(shelf))
            if is_other:
                self._fetch_current(shelf)
        return is_other

    @contextmanager
    def _exchange(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # every file system has exceptions of its own
            raise ModelMirrorError(
                f"models cannot be exchanged with {self.place} (CARCOND_MODELS_URL): {type(error).__name__}: {error}"
            ) from error

    def _push_directories(self, shelf: _Shelf) -> None:
        folder = self._local / shelf.directories
        here = {path.name for path in folder.glob("[!.]*") if path.is_dir()}
        for name in sorted(self._wanted(shelf, here) - set(self._stored(shelf))):
            directory = f"{shelf.directories}/{name}"
            files = sorted((folder / name).iterdir())
            for path in files:
                self._files.pipe_file(f"{self._root}/{directory}/{path.name}", path.read_bytes())
            manifest = f"{self._root}/{directory}.{_digest(folder / name / shelf.card)}.json"
            self._files.pipe_file(manifest, json.dumps([path.name for path in files]).encode())

    def _push_records(self, shelf: _Shelf) -> None:
        for record in shelf.records:
            self._write(record, _merged(self._read(record), self._read_local(record)))

    def _push_promotion(self, shelf: _Shelf, promotion: Promotion) -> None:
        """Add a line to the record of promotions, and check that no other host has just overwritten it."""
        record, line = shelf.records[0], promotion.line()
        for _ in range(_TRIES):
            self._write(record, _merged(self._read(record), self._read_local(record), line))
            if line.removesuffix("\n") in (self._read(record) or "").split("\n"):
                return
        raise ModelMirrorError(f"other hosts write {record} all the time")

    def _list(self, shelf: _Shelf) -> list[str]:
        try:
            return sorted(self._files.ls(f"{self._root}/{shelf.directories}", detail=False))
        except FileNotFoundError:
            return []

    def _stored(self, shelf: _Shelf) -> dict[str, str]:
        """The complete directories in the store: name -> digest of the card."""
        manifests = [Path(path).name.split(".") for path in self._list(shelf) if path.endswith(".json")]
        return {name: digest for name, digest, _ in manifests}

    def _folder(self, shelf: _Shelf) -> VersionFolder:
        return VersionFolder(self._local / f"projects/{shelf.project}")

    def _wanted(self, shelf: _Shelf, names: Collection[str]) -> set[str]:
        """Those of the directories that were not pruned. Encoders never are."""
        if not shelf.project:
            return set(names)
        pruned = self._folder(shelf).pruned({int(name) for name in names if name.isdigit()})
        return {name for name in names if not (name.isdigit() and int(name) in pruned)}

    def _have_grown(self, shelf: _Shelf) -> bool:
        """True if a record in the store has another size than when it was last read."""
        return any(self._size(record) != self._sizes.get(record) for record in shelf.records)

    def _size(self, record: str) -> int:
        try:
            return int(self._files.size(f"{self._root}/{record}"))
        except FileNotFoundError:
            return 0

    def _fetch(self, shelf: _Shelf, stored: Mapping[str, str]) -> None:
        for name, digest in stored.items():
            target = self._local / shelf.directories / name
            if target.exists() and _digest(target / shelf.card) != digest:
                # A worker died here before it could push the version, and another host used the number again.
                logger.warning("%s differs from that in %s, which is taken", target, self.place)
                rmtree(target)
            if not target.exists():
                source = f"{self._root}/{shelf.directories}/{name}"
                with new_directory(target) as draft:
                    for file in json.loads(self._files.cat_file(f"{source}.{digest}.json")):
                        (draft / Path(file).name).write_bytes(self._files.cat_file(f"{source}/{file}"))

    def _fetch_records(self, shelf: _Shelf) -> None:
        for record in shelf.records:
            text = self._read(record)
            self._sizes[record] = len((text or "").encode())
            self._write_local(record, _merged(text, self._read_local(record)))

    def _fetch_current(self, shelf: _Shelf) -> str | None:
        current = self._read(shelf.current)
        self._write_local(shelf.current, current)
        return current

    def _read(self, path: str, errors: str = "strict") -> str | None:
        try:
            return bytes(self._files.cat_file(f"{self._root}/{path}")).decode(errors=errors)
        except FileNotFoundError:
            return None

    def _write(self, path: str, text: str | None) -> None:
        if text is not None and text != self._read(path):
            self._files.pipe_file(f"{self._root}/{path}", text.encode())

    def _read_local(self, path: str) -> str | None:
        file = self._local / path
        return file.read_text(encoding="utf-8") if file.exists() else None

    def _write_local(self, path: str, text: str | None) -> None:
        if text is not None and text != self._read_local(path):
            (self._local / path).parent.mkdir(parents=True, exist_ok=True)
            replace_text(self._local / path, text)


def _merged(*records: str | None) -> str | None:
    """The lines of all records, each once."""
    lines = dict.fromkeys(line for record in records for line in (record or "").split("\n"))
    return "".join(line + "\n" for line in lines if line) or None


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16] if path.exists() else ""
