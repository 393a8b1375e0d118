"""This machine: its disk, its clock, and the packages that are installed."""

import shutil
from collections.abc import Iterator
from contextlib import suppress
from email.utils import parsedate_to_datetime
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

from packaging.requirements import Requirement
from redis.exceptions import RedisError
from sqlalchemy.engine import make_url

from backend.doctor.examination import Examination
from backend.doctor.finding import Finding, Kind, Level, fine

DISK_FULL = Kind(
    "disk-full",
    Level.FAULT,
    "Turns fail; the worker's log says that no space is left.",
    "The disk of {folder} has {free} MB left.",
    "Versions, the store and jobs can hardly be written.",
    "Make room, or move the folder ({setting}) to another disk.",
)
DISK_FILLS = Kind(
    "disk-nearly-full",
    Level.WARNING,
    "None yet.",
    "The disk of {folder} has {free} MB left.",
    "An encoder takes up to 100 MB, and each version and thousand photos some more.",
    "Make room, or move the folder ({setting}) to another disk.",
)
CLOCK = Kind(
    "clock-skew",
    Level.WARNING,
    "Workers look dead, tokens and signed addresses expire at once, times in reports are off.",
    "The clock of {whose} and this machine's differ by {seconds} s.",
    "Ages of jobs and workers, and of tokens, are computed by comparing clocks.",
    "Let both machines keep time: timedatectl set-ntp true",
)
PACKAGE = Kind(
    "package-version",
    Level.WARNING,
    "Often none.",
    "These packages are not of a version that carcond was tested with: {packages}.",
    "Other versions may behave in another way.",
    "scripts/setup, or pip install {wanted}",
)

_FULL_MB = 500
_NEARLY_FULL_MB = 2000
_MB = 1_000_000
_SKEW_S = 30.0


def check_disk(whole: Examination) -> Iterator[Finding]:
    """Check that the disk has room for versions and the store."""
    least = None
    for setting, folder in _folders(whole):
        free = shutil.disk_usage(folder).free // _MB
        least = free if least is None else min(least, free)
        if free < _NEARLY_FULL_MB:
            kind = DISK_FULL if free < _FULL_MB else DISK_FILLS
            yield kind.found(folder=folder, free=free, setting=setting)
    if least is not None and least >= _NEARLY_FULL_MB:
        yield fine(f"{least // 1000} GB free")


def _folders(whole: Examination) -> list[tuple[str, Path]]:
    """Settings and their folders, or the nearest existing parents; one for each disk."""
    folders = {"CARCOND_MODELS_DIR": whole.settings.models_dir.absolute()}
    url = make_url(whole.settings.database_url)
    if url.get_backend_name() == "sqlite" and url.database and "file:" not in url.database:
        folders["DATABASE_URL"] = Path(url.database).absolute().parent
    disks: dict[int, tuple[str, Path]] = {}
    for setting, folder in folders.items():
        there = next(path for path in (folder, *folder.parents) if path.exists())
        disks.setdefault(there.stat().st_dev, (setting, there))
    return list(disks.values())


def check_clock(whole: Examination) -> Iterator[Finding]:
    """Check that the clocks of Label Studio, Redis and this machine agree."""
    skews = {}
    here = whole.now()  # both answers are of moments close to this one, by the scale of `_SKEW_S`
    if whole.greeting.date:
        skews["Label Studio"] = parsedate_to_datetime(whole.greeting.date).timestamp() - here
    with suppress(RedisError, ValueError):  # reported by its own check
        skews["Redis"] = float(whole.queue.redis.time()[0]) - here
    for whose, seconds in skews.items():
        if abs(seconds) > _SKEW_S:
            yield CLOCK.found(whose=whose, seconds=round(abs(seconds)))


def check_packages(_whole: Examination) -> Iterator[Finding]:
    """Check that installed packages are of the versions that carcond requires."""
    odd = []
    for text in requires("carcond") or ():
        wanted = Requirement(text)
        if wanted.marker and not wanted.marker.evaluate({"extra": ""}):
            continue
        try:
            installed = version(wanted.name)
        except PackageNotFoundError:  # images leave some out on purpose
            continue
        if not wanted.specifier.contains(installed, prereleases=True):
            odd.append((f"{wanted.name} {installed}", str(wanted)))
    if odd:
        yield PACKAGE.found(
            packages=", ".join(name for name, _ in odd), wanted=" ".join(f"'{wanted}'" for _, wanted in odd)
        )
