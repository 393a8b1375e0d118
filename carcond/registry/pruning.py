"""Pruning: versions that are not milestones lose their directory, and a line of figures remains.

First a line is written (see `carcond.registry.version_log`): from then on a version is pruned, whatever becomes of its
directory. That is removed by a later call, `GRACE_S` afterwards at the earliest: somebody may select the version at
the moment its line is written, perhaps on another host, and then it stays. It can be killed at any point.
"""

import logging
import time
from collections.abc import Collection
from contextlib import suppress
from datetime import UTC, datetime
from itertools import islice
from shutil import rmtree

from carcond.errors import RegistryError
from carcond.registry.milestones import NEWEST, Past, reason_to_keep
from carcond.registry.promotions import chosen_by_people
from carcond.registry.registry import Registry, version_name
from carcond.registry.version_folder import VersionFolder
from carcond.registry.version_log import Row, figures

logger = logging.getLogger(__name__)

GRACE_S = 60.0
"""Seconds between the line of a version and the removal of its directory. A backup, which reads `current` before the
versions, finds what it names."""
AT_ONCE = 50
"""Maximum number of versions that one call decides on, and of directories that it removes: a project of hundreds of
versions is pruned over some turns, none of which takes long."""

_REMOVED = "-pruned"
# A version is written in milliseconds, or fetched from an object store in seconds.
_DRAFT_S = 3600.0


def prune(registry: Registry) -> None:
    """Decide on the versions that have left the newest `NEWEST`, and remove directories of pruned ones.

    Raises:
        RegistryError: the record cannot be read, or the disk refused; the next call does the rest.
    """
    try:
        sweep(registry)
        log = registry.log.rows()
        undecided = [number for number in registry.numbers()[:-NEWEST] if number not in log]
        rows = _decide(registry, undecided[:AT_ONCE], Past.of(log.values())) if undecided else []
        if rows:
            registry.log.append(rows)
    except OSError as error:
        raise RegistryError(f"versions under {registry.root} cannot be pruned: {error}") from error


def _decide(registry: Registry, numbers: Collection[int], past: Past) -> list[Row]:
    """Lines of the versions that are kept for ever or pruned from now on; the serving one gets none."""
    served = {each.version: {"when": each.when, "who": each.who, "why": each.why} for each in registry.promotions()}
    chosen, current = chosen_by_people(registry.history()), registry.current()
    serving = {registry.pointed(), current.number if current else None}
    now = datetime.now(UTC).isoformat(timespec="seconds")
    rows = []
    for number in numbers:
        row = {"version": version_name(number), "number": number, **_figures(registry, number)}
        row["promoted"] = served.get(number)
        kept = reason_to_keep(row, past, chosen)
        past = past.after(row)
        if kept or number not in serving:
            rows.append(row | {"kept": kept, "pruned": "" if kept else now})
    return rows


def _figures(registry: Registry, number: int) -> Row:
    try:
        return figures(registry.card(number))
    except RegistryError as error:
        # Its files may be restored from a backup: an unreadable version is not removed.
        logger.error("%s is kept, since it cannot be read: %s", version_name(number), error)
        return {"error": str(error)}


def sweep(folder: VersionFolder) -> None:
    """Remove directories of versions that were pruned `GRACE_S` ago or more, and leftovers of killed processes.

    Raises:
        OSError: the disk refused.
    """
    for left in (folder.root / "versions").glob(f".*{_REMOVED}"):
        rmtree(left, ignore_errors=True)
    for draft in (folder.root / "versions").glob(".*-*"):
        with suppress(FileNotFoundError):  # it has just got its name
            if time.time() - draft.stat().st_mtime > _DRAFT_S:
                rmtree(draft, ignore_errors=True)
    for number in islice(removable(folder, folder.directories()), AT_ONCE):
        path = folder.path(number)
        aside = path.with_name(f".{path.name}{_REMOVED}")
        try:
            # By rename: no reader finds a version with half of its files.
            path.rename(aside)
        except FileNotFoundError:  # another process of this host was faster
            continue
        rmtree(aside, ignore_errors=True)


def removable(folder: VersionFolder, among: Collection[int]) -> list[int]:
    """The versions among these that were pruned `GRACE_S` ago or more, and have not been selected since."""
    now = datetime.now(UTC)
    return [number for number, row in folder.pruned(among).items() if _seconds(row, now) >= GRACE_S]


def _seconds(row: Row, now: datetime) -> float:
    """Seconds since a version was pruned."""
    try:
        return (now - datetime.fromisoformat(row["pruned"])).total_seconds()
    except (TypeError, ValueError):  # a line that somebody wrote by hand
        return GRACE_S
