"""Encoders and versions in an object store, for stacks whose processes share no disk.

Each process works on its own `models_dir`, which this keeps like the store: what one writes, the others fetch. The
store has the same layout, and beside each directory, which never changes, a manifest `<directory>.<digest>.json` that
is written last: a directory without one is not complete and is not there. Its digest is that of the directory's card,
by which a directory here is known to be the same without asking. `current` is written after what it names.

Which version serves is decided in the store: a promotion holds there first, and then here. So a process that is killed,
or a store that refuses, leaves a host behind the store, never ahead of it.

The store is any address that fsspec knows, like `s3://bucket/carcond`. Only one worker at a time takes a turn of a
project, so two never write the same version. Persons take no turns: see `ModelMirror.promote`.
"""

import hashlib
import json
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from shutil import rmtree
from urllib.parse import urlsplit

from carcond.errors import ModelMirrorError
from carcond.files import new_directory, replace_text
from carcond.promotions import Promotion
from carcond.registry import version_name

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Shelf:
    """A folder of directories that never change, and what says which of them is in use. Paths are below `models_dir`.

    Attributes:
        directories: path of the folder.
        card: the file of each directory by which two of one name are told apart.
        current: path of the file that names the one in use.
        record: path of the file that keeps how that came to be, a line each time; empty for none.
    """

    directories: str
    card: str
    current: str
    record: str = ""


_ENCODERS = _Shelf("encoders", "encoder.json", "encoders/current")


def _versions(project_id: int) -> _Shelf:
    root = f"projects/{project_id}"
    return _Shelf(f"{root}/versions", "card.json", f"{root}/current", f"{root}/promotions.jsonl")


class ModelMirror:
    """Keeps `models_dir` and an object store alike. Threads must not share it."""

    def __init__(self, models_dir: Path, url: str) -> None:
        """Open the store.

        Raises:
            ModelMirrorError: fsspec does not know such addresses, lacks the package for them, or finds nobody there.
        """
        import fsspec  # noqa: PLC0415 - most stacks have no object store

        parts = urlsplit(url)
        self.place = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
        """The store's address, without what may be secret in it."""
        # Only folders on a disk have to be made.
        options = {"auto_mkdir": True} if parts.scheme == "file" else {}
        with self._exchange():
            self._files, root = fsspec.url_to_fs(url, use_listings_cache=False, **options)
        self._root = root.rstrip("/")
        self._local = models_dir
        # The encoder in use when both sides were alike. Only a change made here is handed over: else a fine-tuning,
        # which takes hours and changes nothing, would take back what was made elsewhere meanwhile.
        self._agreed_encoder: str | None = None

    def pull_encoders(self) -> None:
        """Fetch the encoders of the store, and which of them is in use."""
        with self._exchange():
            self._fetch(_ENCODERS, self._stored(_ENCODERS))
            self._agreed_encoder = self._fetch_current(_ENCODERS)

    def push_encoders(self) -> None:
        """Hand over the encoders made here, and which of them is in use."""
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
            self._fetch(shelf, self._stored(shelf))
            self._fetch_record(shelf)
            self._fetch_current(shelf)

    def push_versions(self, project_id: int) -> None:
        """Hand over the versions made here; which of them serves only if none does yet, see `promote`."""
        with self._exchange():
            shelf = _versions(project_id)
            self._push_directories(shelf)
            self._push_record(shelf)
            if self._read(shelf.current) is None:  # made before there was a store
                self._write(shelf.current, self._read_local(shelf.current))

    def promote(self, project_id: int, promotion: Promotion) -> None:
        """Make a version serve on all hosts, if the one that it takes over from still does.

        There is no lock: what another host writes in the milliseconds between the look and the writing is lost.

        Raises:
            ModelMirrorError: another version serves by now, or the store refused. Then nothing has changed, unless the
                store took `current` and its answer was lost: the next `pull_versions` tells.
        """
        shelf = _versions(project_id)
        with self._exchange():
            self._push_directories(shelf)
            text = self._read(shelf.current)
            serving = None if text is None else int(text)
        if serving is not None and serving != promotion.before:
            raise ModelMirrorError(
                f"{version_name(promotion.version)} does not serve: {version_name(serving)} serves on other hosts by "
                "now, look again"
            )
        with self._exchange():
            self._write(shelf.current, f"{promotion.version:04d}\n")
        try:
            with self._exchange():
                self._push_record(shelf, promotion.line())
        except ModelMirrorError as error:  # it serves all the same: to say that it does not would be wrong
            logger.error("%s serves, other hosts have no record of it: %s", version_name(promotion.version), error)

    def pull_serving(self, project_id: int) -> bool:
        """Fetch the serving version of a project if it is another one than here.

        Returns:
            Whether it was another one.
        """
        shelf = _versions(project_id)
        with self._exchange():
            serving = self._read(shelf.current)
            if serving is None or serving == self._read_local(shelf.current):
                return False
            name = serving.strip()
            self._fetch(shelf, {name: self._stored(shelf)[name]})
            self._fetch_record(shelf)
            self._fetch_current(shelf)
        return True

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
        for name in sorted(here - set(self._stored(shelf))):
            directory = f"{shelf.directories}/{name}"
            files = sorted((folder / name).iterdir())
            for path in files:
                self._files.pipe_file(f"{self._root}/{directory}/{path.name}", path.read_bytes())
            manifest = f"{self._root}/{directory}.{_digest(folder / name / shelf.card)}.json"
            self._files.pipe_file(manifest, json.dumps([path.name for path in files]).encode())

    def _push_record(self, shelf: _Shelf, line: str = "") -> None:
        self._write(shelf.record, _merged(self._read(shelf.record), self._read_local(shelf.record), line))

    def _stored(self, shelf: _Shelf) -> dict[str, str]:
        """The complete directories in the store: name -> digest of the card."""
        try:
            paths = self._files.ls(f"{self._root}/{shelf.directories}", detail=False)
        except FileNotFoundError:
            return {}
        manifests = [Path(path).name.split(".") for path in sorted(paths) if path.endswith(".json")]
        return {name: digest for name, digest, _ in manifests}

    def _fetch(self, shelf: _Shelf, stored: Mapping[str, str]) -> None:
        for name, digest in stored.items():
            target = self._local / shelf.directories / name
            if target.exists() and _digest(target / shelf.card) != digest:
                # A worker died here before it could hand the version over, and another host made the number anew.
                logger.warning("%s differs from that in %s, which is taken", target, self.place)
                rmtree(target)
            if not target.exists():
                source = f"{self._root}/{shelf.directories}/{name}"
                with new_directory(target) as draft:
                    for file in json.loads(self._files.cat_file(f"{source}.{digest}.json")):
                        (draft / Path(file).name).write_bytes(self._files.cat_file(f"{source}/{file}"))

    def _fetch_record(self, shelf: _Shelf) -> None:
        self._write_local(shelf.record, _merged(self._read(shelf.record), self._read_local(shelf.record)))

    def _fetch_current(self, shelf: _Shelf) -> str | None:
        current = self._read(shelf.current)
        self._write_local(shelf.current, current)
        return current

    def _read(self, path: str) -> str | None:
        try:
            return bytes(self._files.cat_file(f"{self._root}/{path}")).decode()
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
