"""Model versions on disk: written whole or not at all, promoted by one rename.

    projects/<project>/
      versions/0007/    heads.safetensors, card.json, labels.jsonl.gz
      current           one line: 0007

Nothing in a version directory is ever changed. Many processes may read while one writes.
"""

import gzip
import json
import logging
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from carcond.errors import RegistryError
from carcond.files import new_directory, replace_text
from carcond.heads import Heads

logger = logging.getLogger(__name__)

COLD_START_VERSION = "carcond-0000"
"""What Label Studio is told while no version exists: predictions of it are empty."""

# Stands for a `current` that was never read: a version put in for a broken one is kept, and the broken
# one tried again.
_NO_STAMP = (0, 0)


def version_name(number: int) -> str:
    """The version string that Label Studio sees."""
    return f"carcond-{number:04d}"


@dataclass(frozen=True)
class Version:
    """A loaded model version.

    Attributes:
        number: 1 or greater, growing.
        heads: the fitted heads; `heads.encoder_id` names the encoder they belong to.
        card: how it came to be: data hash, parent, metrics, timings.
    """

    number: int
    heads: Heads
    card: Mapping[str, Any]

    @property
    def name(self) -> str:
        """The version string that Label Studio sees."""
        return version_name(self.number)


class Registry:
    """The versions of one project under `models_dir`."""

    def __init__(self, models_dir: Path, project_id: int) -> None:
        self.root = models_dir / "projects" / str(project_id)
        self._versions = self.root / "versions"
        self._current = self.root / "current"
        self._loaded: tuple[tuple[int, int], Version] | None = None

    def numbers(self) -> list[int]:
        """Numbers of all complete versions, ascending."""
        if not self._versions.is_dir():
            return []
        return sorted(int(p.name) for p in self._versions.iterdir() if p.name.isdigit())

    def write(self, heads: Heads, card: Mapping[str, Any], labels: Iterable[Mapping[str, Any]]) -> int:
        """Write a new version beside the others; it serves only after `promote`.

        Args:
            heads: what to save.
            card: JSON-ready facts about the version.
            labels: one JSON-ready row for each labelled photo, with its side of the split.

        Returns:
            The new version's number.

        Raises:
            RegistryError: the disk is full or not writable; nothing is left behind.
        """
        number = max(self.numbers(), default=0) + 1
        directory = self._versions / f"{number:04d}"
        try:
            with new_directory(directory) as draft:
                heads.save(draft / "heads.safetensors")
                (draft / "card.json").write_text(json.dumps({"version": version_name(number), **card}, indent=2))
                with gzip.open(draft / "labels.jsonl.gz", "wt", encoding="utf-8") as file:
                    file.writelines(json.dumps(row) + "\n" for row in labels)
        except (OSError, SafetensorError) as error:
            raise RegistryError(f"{version_name(number)} cannot be written to {directory}: {error}") from error
        return number

    def promote(self, number: int) -> None:
        """Make a version the serving one, at once and for all processes.

        Raises:
            RegistryError: there is no such version, or the disk refused.
        """
        if number not in self.numbers():
            raise RegistryError(f"{version_name(number)} is not among the versions of {self.root}")
        try:
            replace_text(self._current, f"{number:04d}\n")
        except OSError as error:
            raise RegistryError(f"{version_name(number)} cannot be promoted: {error}") from error

    def load(self, number: int) -> Version:
        """Read one version.

        Raises:
            RegistryError: it is missing or broken.
        """
        directory = self._versions / f"{number:04d}"
        try:
            card = json.loads((directory / "card.json").read_text())
        except (OSError, ValueError) as error:
            raise RegistryError(f"the card of {version_name(number)} cannot be read: {error}") from error
        if not isinstance(card, dict):
            raise RegistryError(f"the card of {version_name(number)} should hold a JSON object, got {card!r:.100}")
        return Version(number, Heads.load(directory / "heads.safetensors"), card)

    def labels(self, number: int) -> list[dict[str, Any]]:
        """The labelled photos that a version was fitted and measured on.

        Raises:
            RegistryError: they are missing or broken.
        """
        path = self._versions / f"{number:04d}" / "labels.jsonl.gz"
        try:
            with gzip.open(path, "rt", encoding="utf-8") as file:
                return [json.loads(line) for line in file]
        except (OSError, ValueError, EOFError, zlib.error) as error:
            raise RegistryError(f"the labels of {version_name(number)} cannot be read: {error}") from error

    def current(self) -> Version | None:
        """The serving version, or None before the first one.

        Costs one `stat` while nothing changed. When the promoted version is broken, the last good
        one goes on serving: the one already loaded, else the newest that can be read.
        """
        try:
            stat = self._current.stat()
            stamp = (stat.st_mtime_ns, stat.st_ino)
            if self._loaded and self._loaded[0] == stamp:
                return self._loaded[1]
            version = self.load(int(self._current.read_text()))
        except FileNotFoundError:
            return self._loaded[1] if self._loaded else None
        except (OSError, ValueError, RegistryError) as error:
            logger.error("the promoted version under %s cannot serve: %s", self.root, error)
            return self._last_good()
        self._loaded = (stamp, version)
        return version

    def _last_good(self) -> Version | None:
        if self._loaded:
            return self._loaded[1]
        for number in reversed(self.numbers()):
            try:
                self._loaded = (_NO_STAMP, self.load(number))
                return self._loaded[1]
            except RegistryError as error:
                logger.error("%s cannot be read: %s", version_name(number), error)
        return None
