"""Model versions on disk: written whole or not at all, promoted by one rename.

    projects/<project>/
      versions/0007/      heads.safetensors, card.json, labels.jsonl.gz, report.html
      current             one line: 0007
      promotions.jsonl    who made which version serve or pinned it, and why; see `carcond.registry.promotions`
      versions.jsonl      versions that are kept as milestones, and those that were pruned; see
      `carcond.registry.version_log`

Nothing in a version directory is ever changed. Many processes may read while one writes.
"""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Final

from carcond.errors import RegistryError
from carcond.fault_points import reach
from carcond.files import replace_text
from carcond.json_fields import sanitize_line
from carcond.registry.promotions import LOOP, Action, Promotion, append_promotion, served_in_turn
from carcond.registry.version_folder import VersionFolder
from carcond.registry.version_names import COLD_START_VERSION, Version, is_ours, version_name, version_number

__all__ = [
    "COLD_START_VERSION",
    "Registry",
    "Version",
    "is_ours",
    "pin_words",
    "serving_projects",
    "version_name",
    "version_number",
]

logger = logging.getLogger(__name__)

# Marks `current` as never read: the fallback of a broken version is kept, and the broken one is tried
# again.
_NO_STAMP = (0, 0)


PROBE_MARK: Final = "probe"
"""File in the folder of a project whose photos are made up: applications that name no project do not mean it."""


def serving_projects(models_dir: Path) -> list[int]:
    """Numbers of the projects that have had a serving version, ascending, without that of `carcond probe`."""
    folders = [path.parent for path in (models_dir / "projects").glob("*/current")]
    return sorted(int(each.name) for each in folders if each.name.isdecimal() and not (each / PROBE_MARK).exists())


class Registry(VersionFolder):
    """The versions of one project under `models_dir`, and which of them serves."""

    def __init__(
        self, models_dir: Path, project_id: int, on_promote: Callable[[Promotion], None] | None = None
    ) -> None:
        """Open them.

        Args:
            models_dir: directory of all models.
            project_id: the project.
            on_promote: callback that promotes on other hosts; called first, and its exceptions stop the promotion.
        """
        super().__init__(models_dir / "projects" / str(project_id))
        self._on_promote = on_promote
        self._loaded: tuple[tuple[int, int], Version] | None = None

    def promote(
        self, number: int, who: str = LOOP, why: str = "", action: Action = "promote", *, pinned: bool = False
    ) -> Promotion:
        """Make a version the serving one, at once and for all processes, and record it.

        Args:
            number: of the version.
            who: author. While a version is pinned, the loop promotes no other one.
            why: in their words.
            action: "rollback" when this undoes the promotions since that version served, see `previous`.
            pinned: pin it besides, so that it serves until somebody unpins it.

        Raises:
            RegistryError: there is no such version, it is broken, it serves already, another one is pinned, or the
                disk refused.
            ModelMirrorError: see `ModelMirror.promote`; where there is an object store.
        """
        self.load(number)
        before = self.pointed()
        if before == number:
            raise RegistryError(f"{version_name(number)} is the serving version already")
        pin = self.pin()
        if who == LOOP and pin and pin.version != number:
            raise RegistryError(f"{version_name(number)} is not served: {pin_words(pin)}")
        promotion = Promotion.now(action, before, number, who, why, pinned=pinned)
        if pinned:
            # The record first. Should the loop promote a candidate in this very moment, its next turn finds the pin
            # and makes the pinned version serve; and so it does when we are killed here.
            self._record_pin(promotion)
        elif self._on_promote:
            # First: a local change alone would be undone by the next synchronisation, and would look like a rollback.
            self._on_promote(promotion)
        try:
            replace_text(self._current, f"{number:04d}\n")
        except OSError as error:
            later = " (it is pinned: the next turn tries again)" if pinned else ""
            raise RegistryError(f"{version_name(number)} cannot be promoted{later}: {error}") from error
        reach("version.promoted")
        if not pinned:
            try:
                append_promotion(self._record, promotion)
            except OSError as error:  # it serves all the same: to say that it does not would be wrong
                logger.error(
                    "%s serves, but that could not be recorded in %s: %s", version_name(number), self._record, error
                )
        return promotion

    def pin_serving(self, number: int, who: str, why: str) -> Promotion:
        """Pin the serving version: it serves until somebody unpins it.

        Args:
            number: of the version. If the loop promotes another one just now, the next turn repairs that.
            who: author.
            why: in their words.

        Raises:
            RegistryError: there is no such version, it is pinned already, or the disk refused.
            ModelMirrorError: see `ModelMirror.promote`; where there is an object store.
        """
        pin = self.pin()
        if pin and pin.version == number:
            raise RegistryError(f"{pin_words(pin)} already")
        self.load(number)
        return self._record_pin(Promotion.now("pin", number, number, who, why, pinned=True))

    def unpin(self, who: str, why: str) -> Promotion:
        """Let the loop promote candidates again.

        Raises:
            RegistryError: no version is pinned, or the disk refused.
            ModelMirrorError: see `ModelMirror.promote`; where there is an object store.
        """
        pin = self.pin()
        if pin is None:
            serving = self.current()
            raise RegistryError(f"expected a pinned version, none is; {serving.name if serving else 'none'} serves")
        return self._record_pin(Promotion.now("unpin", pin.version, pin.version, who, why))

    def _record_pin(self, change: Promotion) -> Promotion:
        if self._on_promote:
            self._on_promote(change)
        try:
            append_promotion(self._record, change)
        except OSError as error:
            raise RegistryError(
                f"the {'pin' if change.pinned else 'end of the pin'} of {version_name(change.version)} cannot be "
                f"recorded in {self._record}: {error}"
            ) from error
        return change

    def previous(self) -> Version:
        """The version that served before the serving one, by the record: the target of a rollback.

        Unreadable and pruned versions are skipped.

        Raises:
            RegistryError: there is none, or the record cannot be read.
        """
        promoted = {promotion.version for promotion in self.promotions()}
        for version in self.readable(self._not_pruned(self.served()[1:])):
            if not version.card.is_refused or version.number in promoted:
                return version
        serving = self.current()
        raise RegistryError(
            f"expected a version that served before {serving.name if serving else 'now'}, but {self.root} records none"
        )

    def served(self) -> list[int]:
        """History of promotions up to the serving version, latest first."""
        record, pointed = self.promotions(), self.pointed()
        line = served_in_turn(record, pointed)
        if line and (not record or record[0].before is not None):
            # Before there was a record, each version served.
            line = [number for number in self.numbers() if number < line[0]] + line
        return line[::-1]

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
        for version in self.readable([*self._not_pruned(served), *others]):
            if not version.card.is_refused:
                self._loaded = (_NO_STAMP, version)
                return version
        return None


def pin_words(pin: Promotion) -> str:
    """The pin on one printable line: version, author and reason."""
    return f"{version_name(pin.version)} is pinned by {sanitize_line(pin.who)}: {sanitize_line(pin.why, 1000)}"
