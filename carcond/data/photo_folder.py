"""Search for the photos of an export in a folder, under the names that Label Studio gave them."""

import re
from functools import cached_property
from pathlib import Path

from carcond.data.label_studio_export import find_photo
from carcond.errors import LabelTableError

PHOTO_SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".webp")
"""Lower-case suffixes of photo files."""

_UPLOAD_PREFIX = re.compile(r"^[0-9a-f]{8}-")


def photo_files(place: Path) -> list[Path]:
    """The photos of a folder, those in folders inside it too, in order; or the one file that is named.

    Raises:
        LabelTableError: the path does not exist, or has no photos.
    """
    if not place.exists():
        raise LabelTableError(f"expected a photo or a folder of photos, but {place} does not exist")
    if place.is_file():
        return [place]
    files = sorted(path for path in place.rglob("*") if path.suffix.lower() in PHOTO_SUFFIXES and path.is_file())
    if not files:
        raise LabelTableError(f"expected photos ({', '.join(PHOTO_SUFFIXES)}) in {place}, found none")
    return files


def shown_name(path: str | Path) -> str:
    r"""A file's name or path, fit to be printed and written.

    Of a name that is not UTF-8, Python keeps the bytes as surrogates, which no terminal or file takes. They are spelt
    out, like ``\udcea``, so that two such names stay two.
    """
    return str(path).encode("utf-8", "backslashreplace").decode()


class PhotoFolder:
    """Photos below a folder.

    Attributes:
        folder: where they are.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def find(self, path: str) -> Path | None:
        """The file of a photo, or None when it is not there or several could be it.

        Args:
            path: from `carcond.data.label_studio_export.photo_path`, see `carcond.data.label_studio_export.find_photo`.
                The file's name may also be what an upload made of it: `red car (1).jpg` becomes
                `0a1b2c3d-red_car_1.jpg`.
        """
        if found := find_photo(self.folder, path):
            return found
        name = path.rpartition("/")[2]
        if not _UPLOAD_PREFIX.match(name):
            return None
        could_be = self._by_rewritten_name.get(_UPLOAD_PREFIX.sub("", name), [])
        return could_be[0] if len(could_be) == 1 else None

    @cached_property
    def _by_rewritten_name(self) -> dict[str, list[Path]]:
        names: dict[str, list[Path]] = {}
        for file in sorted(self.folder.rglob("*")):
            if file.is_file():
                names.setdefault(rewritten_name(file.name), []).append(file)
        return names


def rewritten_name(name: str) -> str:
    """Name of an uploaded file in Label Studio, from Django's `get_valid_filename`."""
    return re.sub(r"[^-\w.]", "", name.strip().replace(" ", "_"))
