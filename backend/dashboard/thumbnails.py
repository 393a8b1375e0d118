"""Thumbnails of photos. They are fetched here, with the backend's own token: no browser receives it."""

import threading
from collections import OrderedDict
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from io import BytesIO

from backend.services import Services
from carcond.data.images import decode_photo
from carcond.errors import CarcondError

_SIZE = (320, 240)
_CONNECTIONS = 6
_KEPT = 500


@dataclass(frozen=True)
class Thumbnail:
    """A small JPEG, or the reason why there is none."""

    jpeg: bytes
    problem: str = ""


class Thumbnails:
    """Makes thumbnails, and caches those of the last 500 requested photos. Safe to share between threads."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._kept: OrderedDict[str, Thumbnail] = OrderedDict()
        self._lock = threading.Lock()

    def of(self, urls: Mapping[int, str]) -> dict[int, Thumbnail]:
        """Task id -> a picture of at most 320x240 pixels.

        Args:
            urls: task id -> address of the photo.
        """
        with ThreadPoolExecutor(_CONNECTIONS) as pool:
            return dict(zip(urls, pool.map(self._of, urls.values()), strict=True))

    def _of(self, url: str) -> Thumbnail:
        with self._lock:
            if url in self._kept:
                self._kept.move_to_end(url)
                return self._kept[url]
        try:
            made = Thumbnail(self._draw(url))
        except CarcondError as error:  # requested again at the next visit
            return Thumbnail(b"", str(error))
        with self._lock:
            self._kept[url] = made
            while len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
        return made

    def _draw(self, url: str) -> bytes:
        data = self._services.photos.fetch(url)
        photo = decode_photo(data, target=max(_SIZE), max_pixels=self._services.settings.max_photo_pixels)
        photo.thumbnail(_SIZE)
        file = BytesIO()
        photo.save(file, "JPEG", quality=80)
        return file.getvalue()
