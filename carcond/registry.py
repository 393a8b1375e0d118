"""Model versions on disk: written whole or not at all, promoted by one rename.

    projects/<project>/
      versions/0007/      heads.safetensors, card.json, labels.jsonl.gz, report.html
      current             one line: 0007
      promotions.jsonl    who made which version serve, and why; see `carcond.promotions`

Nothing in a version directory is ever changed. Many processes may read while one writes.
"""

import gzip
import json
import logging
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from carcond.errors import RegistryError
from carcond.files import new_directory, replace_text
from carcond.heads import Heads
from carcond.promotions import LOOP, Action, Promotion, append_promotion, read_promotions, served_in_turn

logger = logging.getLogger(__name__)

_PREFIX = "carcond-"

COLD_START_VERSION = f"{_PREFIX}0000"
"""What Label Studio is told while no version exists: predictions of it are empty."""

# Stands for a `current` that was never read: a version put in for a broken one is kept, and the broken
# one tried again.
_NO_STAMP = (0, 0)


def version_name(number: int) -> str:
    """The version string that Label Studio sees."""
    return f"{_PREFIX}{number:04d}"


def is_ours(version: str) -> bool:
    """Whether a version string that Label Studio has is one of carcond's, not another model's."""
    return version.startswith(_PREFIX)


def version_number(text: str) -> int:
    """The number of a version written as 7, 0007 or carcond-0007.

    Raises:
        RegistryError: it is none of these.
    """
    digits = text.strip().removeprefix(_PREFIX)
    # int() takes signs, underscores, and digits that no version has; thousands of digits it refuses.
    if not (digits.isascii() and digits.isdigit() and len(digits) < 10):
        raise RegistryError(f"expected a version like 7, 0007 or carcond-0007, got {text!r:.80}")
    return int(digits)


def serving_projects(models_dir: Path) -> list[int]:
    """Numbers of the projects that have had a serving version, ascending."""
    pointers = (models_dir / "projects").glob("*/current")
    return sorted(int(path.parent.name) for path in pointers if path.parent.name.isdecimal())


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

    @property
    def is_refused(self) -> bool:
        """Whether the gate refused it. Versions of before there was a gate were not."""
        gate = self.card.get("gate")
        return isinstance(gate, Mapping) and gate.get("accepted") is False


class Registry:
    """The versions of one project under `models_dir`."""

    def __init__(self, models_dir: Path, project_id: int, hand_over: Callable[[Promotion], None] | None = None) -> None:
        """Open them.

        Args:
            models_dir: where all projects have theirs.
            project_id: the project.
            hand_over: makes a promotion hold on other hosts; called first, and what it raises stops the promotion.
        """
        self.root = models_dir / "projects" / str(project_id)
        self._versions = self.root / "versions"
        self._current = self.root / "current"
        self._record = self.root / "promotions.jsonl"
        self._hand_over = hand_over
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
        # Imported here: only those who write versions need it.
        from carcond.report_page import card_page  # noqa: PLC0415

        number = max(self.numbers(), default=0) + 1
        card = {"version": version_name(number), **card}
        directory = self._versions / f"{number:04d}"
        try:
            with new_directory(directory) as draft:
                heads.save(draft / "heads.safetensors")
                (draft / "card.json").write_text(json.dumps(card, indent=2))
                (draft / "report.html").write_text(card_page(card), encoding="utf-8")
                with gzip.open(draft / "labels.jsonl.gz", "wt", encoding="utf-8") as file:
                    file.writelines(json.dumps(row) + "\n" for row in labels)
        except (OSError, SafetensorError) as error:
            raise RegistryError(f"{version_name(number)} cannot be written to {directory}: {error}") from error
        return number

    def promote(self, number: int, who: str = LOOP, why: str = "", action: Action = "promote") -> Promotion:
        """Make a version the serving one, at once and for all processes, and record it.

        Args:
            number: of the version.
            who: asks for it.
            why: in their words.
            action: "rollback" when this takes back what was promoted since that version served, see `previous`.

        Raises:
            RegistryError: there is no such version, it is broken, it serves already, or the disk refused.
            ModelMirrorError: see `ModelMirror.promote`; where there is an object store.
        """
        self.load(number)
        before = self._pointed()
        if before == number:
            raise RegistryError(f"{version_name(number)} is the serving version already")
        promotion = Promotion.now(action, before, number, who, why)
        if self._hand_over:
            # First: what held here alone would be taken back by the next exchange, and would look like a rollback.
            self._hand_over(promotion)
        try:
            replace_text(self._current, f"{number:04d}\n")
        except OSError as error:
            raise RegistryError(f"{version_name(number)} cannot be promoted: {error}") from error
        try:
            append_promotion(self._record, promotion)
        except OSError as error:  # it serves all the same: to say that it does not would be wrong
            logger.error(
                "%s serves, but that could not be recorded in %s: %s", version_name(number), self._record, error
            )
        return promotion

    def promotions(self) -> list[Promotion]:
        """The record of promotions, oldest first.

        Raises:
            RegistryError: it cannot be read.
        """
        try:
            return read_promotions(self._record)
        except OSError as error:
            raise RegistryError(f"{self._record} cannot be read: {error}") from error

    def has_served(self, number: int) -> bool:
        """Whether a version is in the record.

        Raises:
            RegistryError: the record cannot be read.
        """
        return any(number in (promotion.before, promotion.version) for promotion in self.promotions())

    def newest(self) -> Version | None:
        """The version with the greatest number, whether it serves or not; None when there is none, or it is broken."""
        return next(self._readable(self.numbers()[-1:]), None)

    def previous(self) -> Version:
        """The version that served before the serving one, by the record: what a rollback goes back to.

        Versions that cannot be read are passed over.

        Raises:
            RegistryError: there is none, or the record cannot be read.
        """
        promoted = {promotion.version for promotion in self.promotions()}
        for version in self._readable(self.served()[1:]):
            if not version.is_refused or version.number in promoted:
                return version
        serving = self.current()
        raise RegistryError(
            f"expected a version that served before {serving.name if serving else 'now'}, but {self.root} records none"
        )

    def served(self) -> list[int]:
        """The versions that brought us to the serving one, which is the first: the latest come first."""
        record, pointed = self.promotions(), self._pointed()
        line = served_in_turn(record, pointed)
        if line and (not record or record[0].before is not None):
            # Before there was a record, each version served.
            line = [number for number in self.numbers() if number < line[0]] + line
        return line[::-1]

    def _readable(self, numbers: Iterable[int]) -> Iterator[Version]:
        for number in numbers:
            try:
                yield self.load(number)
            except RegistryError as error:
                logger.error("%s cannot be read: %s", version_name(number), error)

    def _pointed(self) -> int | None:
        """The number in `current`; None where there is none."""
        try:
            return int(self._current.read_text())
        except (OSError, ValueError):
            return None

    def load(self, number: int) -> Version:
        """Read one version.

        Raises:
            RegistryError: it is missing or broken.
        """
        card = self.card(number)
        return Version(number, Heads.load(self._versions / f"{number:04d}" / "heads.safetensors"), card)

    def card(self, number: int) -> dict[str, Any]:
        """Read the card of one version.

        Raises:
            RegistryError: it is missing or broken.
        """
        numbers = self.numbers()
        if number not in numbers:
            raise RegistryError(f"there is no version {number}; {_what_there_is(numbers)}")
        try:
            card = json.loads((self._versions / f"{number:04d}" / "card.json").read_text())
        except (OSError, ValueError) as error:
            raise RegistryError(f"the card of {version_name(number)} cannot be read: {error}") from error
        if not isinstance(card, dict):
            raise RegistryError(f"the card of {version_name(number)} should hold a JSON object, got {card!r:.100}")
        return card

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
        one goes on serving: the one already loaded, else the latest that served and can be read.
        """
        try:
            stat = self._current.stat()
            stamp = (stat.st_mtime_ns, stat.st_ino)
            if self._loaded and self._loaded[0] == stamp:
                return self._loaded[1]
            version = self.load(int(self._current.read_text()))
        except FileNotFoundError:
            return self._last_good() if self._loaded or self._record.exists() else None
        except (OSError, ValueError, RegistryError) as error:
            logger.error("the promoted version under %s cannot serve: %s", self.root, error)
            return self._last_good()
        self._loaded = (stamp, version)
        return version

    def _last_good(self) -> Version | None:
        """The loaded version, else the latest that served, else the newest: but never one that the gate refused."""
        if self._loaded:
            return self._loaded[1]
        try:
            served = self.served()
        except RegistryError as error:
            logger.error("%s", error)
            served = []
        others = [number for number in reversed(self.numbers()) if number not in served]
        for version in self._readable([*served, *others]):
            if not version.is_refused:
                self._loaded = (_NO_STAMP, version)
                return version
        return None


def _what_there_is(numbers: list[int]) -> str:
    """The versions that there are, their numbers ascending; each is named where some are missing between."""
    if len(numbers) < 2:
        return f"there is only {numbers[0]}" if numbers else "there is none yet"
    has_gaps = numbers[-1] - numbers[0] >= len(numbers)
    return f"there are {', '.join(map(str, numbers)) if has_gaps else f'{numbers[0]} to {numbers[-1]}'}"
