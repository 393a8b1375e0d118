"""Reading and writing of a project's versions on disk and of their record."""

import gzip
import json
import logging
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from carcond.errors import RegistryError
from carcond.fault_points import reach
from carcond.files import new_directory
from carcond.json_fields import format_timestamp
from carcond.model.heads import Heads
from carcond.model.version_card import VersionCard
from carcond.registry.promotions import Promotion, chosen_by_people, pin_in_force, read_promotions
from carcond.registry.version_log import Row, VersionLog
from carcond.registry.version_names import Version, version_name

logger = logging.getLogger(__name__)


class VersionFolder:
    """The versions of one project and their record."""

    def __init__(self, root: Path) -> None:
        """Open them.

        Args:
            root: the project's folder.
        """
        self.root = root
        self.log = VersionLog(root / "versions.jsonl")
        """Log of the versions that are no longer among the newest."""
        self._current = root / "current"
        self._record = root / "promotions.jsonl"

    def numbers(self) -> list[int]:
        """Numbers of all complete versions, ascending; those that were pruned are not among them."""
        there = self.directories()
        return sorted(there - self.pruned(there).keys())

    def directories(self) -> set[int]:
        """Numbers of all versions whose directory is there, pruned or not."""
        folder = self.root / "versions"
        return {int(path.name) for path in folder.iterdir() if path.name.isdigit()} if folder.is_dir() else set()

    def path(self, number: int) -> Path:
        """The directory of a version."""
        return self.root / "versions" / f"{number:04d}"

    def pruned(self, among: Collection[int] | None = None) -> dict[int, Row]:
        """Number -> line of each version that was pruned; its directory may still be there.

        One that serves or that a person selected just when its line was written is not pruned.

        Args:
            among: versions to consider, None for all.
        """
        try:
            rows = self.log.rows()
            asked = rows.keys() if among is None else rows.keys() & set(among)
            marked = {number: rows[number] for number in sorted(asked) if rows[number]["pruned"]}
            protected = self.protected() if marked else set()
        except (OSError, RegistryError) as error:
            logger.error("what was pruned under %s is not known: %s", self.root, error)
            return {}
        return {number: row for number, row in marked.items() if number not in protected}

    def protected(self) -> set[int]:
        """Versions that must never be pruned: the serving one, and those of `chosen_by_people`.

        Raises:
            RegistryError: the record of promotions cannot be read.
        """
        pointed = self.pointed()
        return chosen_by_people(self.history()) | ({pointed} if pointed is not None else set())

    def write(
        self,
        heads: Heads,
        card: VersionCard,
        labels: Iterable[Mapping[str, Any]],
        page: Callable[[Mapping[str, Any]], str] | None = None,
    ) -> int:
        """Write a new version beside the others; it serves only after `promote`.

        Args:
            heads: the fitted heads.
            card: facts about the version.
            labels: one JSON-ready row for each labelled photo, with its split.
            page: renders the card, with the version's name in it, as an HTML page; None for no page.

        Returns:
            The new version's number.

        Raises:
            RegistryError: the disk is full or not writable; nothing is left behind.
        """
        number = self._next_number()
        facts = card.model_copy(update={"version": version_name(number)}).facts()
        directory = self.path(number)
        try:
            with new_directory(directory) as draft:
                heads.save(draft / "heads.safetensors")
                (draft / "card.json").write_text(json.dumps(facts, indent=2))
                if page:
                    (draft / "report.html").write_text(page(facts), encoding="utf-8")
                with gzip.open(draft / "labels.jsonl.gz", "wt", encoding="utf-8") as file:
                    file.writelines(json.dumps(row) + "\n" for row in labels)
                reach("version.files_written")
        except (OSError, SafetensorError) as error:
            raise RegistryError(f"{version_name(number)} cannot be written to {directory}: {error}") from error
        reach("version.written")
        return number

    def _next_number(self) -> int:
        """A number that no version has or had."""
        try:
            logged = self.log.rows().keys()
        except OSError as error:
            raise RegistryError(f"the numbers of pruned versions cannot be read: {error}") from error
        return max(self.directories() | logged, default=0) + 1

    def newest(self) -> Version | None:
        """The version with the greatest number, whether it serves or not; None when there is none, or it is broken."""
        return next(self.readable(self.numbers()[-1:]), None)

    def pin(self) -> Promotion | None:
        """The line that pinned the version which is pinned now; None while none is.

        Raises:
            RegistryError: the record cannot be read.
        """
        return pin_in_force(self.history())

    def promotions(self) -> list[Promotion]:
        """Changes of the serving version, oldest first; see `history`.

        Raises:
            RegistryError: the record cannot be read.
        """
        return [each for each in self.history() if each.changes_serving]

    def history(self) -> list[Promotion]:
        """The record of promotions and pins, oldest first.

        Raises:
            RegistryError: it cannot be read.
        """
        try:
            return read_promotions(self._record)
        except OSError as error:
            raise RegistryError(f"{self._record} cannot be read: {error}") from error

    def has_served(self, number: int) -> bool:
        """True if a version is in the record.

        Raises:
            RegistryError: the record cannot be read.
        """
        return any(number in (promotion.before, promotion.version) for promotion in self.promotions())

    def _not_pruned(self, numbers: list[int]) -> list[int]:
        pruned = self.pruned(numbers)
        return [number for number in numbers if number not in pruned]

    def readable(self, numbers: Iterable[int]) -> Iterator[Version]:
        """The readable versions, in their order; others are logged."""
        for number in numbers:
            try:
                yield self.load(number)
            except RegistryError as error:
                logger.error("%s cannot be read: %s", version_name(number), error)

    def pointed(self) -> int | None:
        """The number in `current`, even of a version that cannot be read; None where there is none."""
        try:
            return int(self._current.read_text())
        except (OSError, ValueError):
            return None

    def load(self, number: int) -> Version:
        """Read one version.

        Raises:
            RegistryError: it is missing or broken.
        """
        card = VersionCard.read(self.card(number))
        return Version(number, Heads.load(self.path(number) / "heads.safetensors"), card)

    def card(self, number: int) -> dict[str, Any]:
        """Read the card of one version, as JSON has it.

        Raises:
            RegistryError: it is missing or broken.
        """
        pruned = self.pruned({number})
        if pruned:
            raise RegistryError(
                f"{version_name(number)} was pruned on {format_timestamp(pruned[number]['pruned'])}, since it is no "
                f"milestone; its figures: carcond versions show {number} --project {self.root.name}"
            )
        if not self.path(number).is_dir():
            raise RegistryError(f"there is no version {number}; {_what_there_is(self.numbers())}")
        try:
            card = json.loads((self.path(number) / "card.json").read_text())
        except (OSError, ValueError, RecursionError) as error:
            raise RegistryError(f"the card of {version_name(number)} cannot be read: {error}") from error
        if not isinstance(card, dict):
            raise RegistryError(f"the card of {version_name(number)} should hold a JSON object, got {card!r:.100}")
        return card

    def labels(self, number: int) -> list[dict[str, Any]]:
        """The labelled photos that a version was fitted and measured on.

        Raises:
            RegistryError: they are missing or broken.
        """
        path = self.path(number) / "labels.jsonl.gz"
        try:
            with gzip.open(path, "rt", encoding="utf-8") as file:
                found = [json.loads(line) for line in file]
        except (OSError, ValueError, RecursionError, EOFError, zlib.error) as error:
            raise RegistryError(f"the labels of {version_name(number)} cannot be read: {error}") from error
        if not all(isinstance(row, dict) and isinstance(row.get("task"), int) for row in found):
            raise RegistryError(f"expected a JSON object with the number of a task in each line of {path}, got others")
        return found


def _what_there_is(numbers: list[int]) -> str:
    """The existing versions, in words, their numbers ascending; each is named where there are gaps."""
    if len(numbers) < 2:
        return f"there is only {numbers[0]}" if numbers else "there is none yet"
    has_gaps = numbers[-1] - numbers[0] >= len(numbers)
    return f"there are {', '.join(map(str, numbers)) if has_gaps else f'{numbers[0]} to {numbers[-1]}'}"
