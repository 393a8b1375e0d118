"""Check of a sample of a project's photos before all are embedded: reachability, and seconds per photo."""

import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from backend.label_studio.answers import read_id, read_object, read_objects
from backend.label_studio.client import LabelStudioApi
from backend.photo_pipeline import FETCHES_PER_REQUEST
from backend.services import Services
from carcond.errors import EncoderError, PhotoFetchError, UnreadableImageError
from carcond.model.encoder import Encoder

_PAGE = 20
_TRIED = 6


@dataclass(frozen=True)
class PhotoSample:
    """Result of the check.

    Attributes:
        looked_at: photos whose address was checked.
        places: host of an address -> number of photos; "Label Studio" for its own.
        tried: photos that were to be fetched.
        problems: photo's task id -> why it cannot be fetched.
        hosts_to_allow: hosts of photos, redirects followed, that are not in CARCOND_PHOTO_HOSTS.
        allowed_hosts: those that are.
        at_closed_hosts: task ids of the tried photos at hosts to allow.
        encoder: the encoder; None when there is none, then `encoder_problem` says why.
        seconds_each: to fetch and embed one photo; None when none could be.
    """

    looked_at: int
    places: dict[str, int]
    tried: int
    problems: dict[int, str]
    hosts_to_allow: tuple[str, ...]
    allowed_hosts: tuple[str, ...]
    at_closed_hosts: tuple[int, ...]
    encoder: str | None
    encoder_problem: str
    seconds_each: float | None

    def facts(self) -> dict[str, Any]:
        """JSON-ready."""
        return asdict(self)


def sample_photos(services: Services, project_id: int, image_key: str, task_count: int) -> PhotoSample:
    """Check the addresses of photos from the beginning, the middle and the end of a project, and fetch a few."""
    urls = dict(_addresses(services.api, project_id, image_key, task_count))
    places = {task_id: _place(url) for task_id, url in urls.items()}
    chosen = _spread(places)
    problems: dict[int, str] = {}
    closed: dict[int, str] = {}
    photos: dict[int, bytes] = {}
    began = time.monotonic()
    for task_id in chosen:
        try:
            photos[task_id] = services.photos.fetch(urls[task_id])
        except PhotoFetchError as error:
            problems[task_id] = str(error)
            closed |= {task_id: error.host} if error.host else {}
    fetching = (time.monotonic() - began) / max(1, len(chosen)) / FETCHES_PER_REQUEST
    encoder, encoder_problem = _encoder(services)
    embedding = _time_encoder(encoder, services.settings.max_photo_pixels, photos, problems) if encoder else None
    return PhotoSample(
        len(urls),
        dict(Counter(places.values()).most_common()),
        len(chosen),
        problems,
        tuple(sorted(set(closed.values()))),
        services.settings.photo_hosts,
        tuple(closed),
        encoder.encoder_id if encoder else None,
        encoder_problem,
        None if embedding is None else round(fetching + embedding, 4),
    )


def _addresses(api: LabelStudioApi, project_id: int, image_key: str, task_count: int) -> Iterator[tuple[int, str]]:
    pages = max(1, -(-task_count // _PAGE))
    for page in sorted({1, (pages + 1) // 2, pages}) if task_count else ():
        params = {"project": project_id, "page": page, "page_size": _PAGE, "include": "id,data"}
        reply = read_object(api.request("GET", "/api/tasks/", params=params), "a page of tasks")
        for row in read_objects(reply.get("tasks"), "a list of tasks"):
            data = read_object(row.get("data") or {}, "a task's data")
            yield read_id(row), str(data.get(image_key) or "")


def _place(url: str) -> str:
    try:
        parts = urlsplit(url.strip())
        if parts.netloc:
            return f"{parts.scheme}://{parts.hostname}"
        return "Label Studio" if url.strip().startswith("/") else "no address"
    except ValueError:
        return "malformed"


def _spread(places: dict[int, str]) -> Sequence[int]:
    """A few tasks, of each host in turn."""
    by_place: dict[str, list[int]] = {}
    for task_id, place in places.items():
        by_place.setdefault(place, []).append(task_id)
    chosen: list[int] = []
    while len(chosen) < _TRIED and any(by_place.values()):
        for waiting in by_place.values():
            if waiting and len(chosen) < _TRIED:
                chosen.append(waiting.pop(len(waiting) // 2))
    return chosen


def _encoder(services: Services) -> tuple[Encoder | None, str]:
    """The encoder, or None and why there is none."""
    try:
        return services.encoder(services.encoder_id()), ""
    except EncoderError as error:
        return None, str(error)


def _time_encoder(
    encoder: Encoder, max_pixels: int, photos: Mapping[int, bytes], problems: dict[int, str]
) -> float | None:
    """Seconds per photo; None when there is no photo. Photos that cannot be read are added to the problems."""
    encoder.embed(np.zeros((1, 3, encoder.spec.size, encoder.spec.size), dtype=np.float32))  # warms it up
    began, seen = time.monotonic(), 0
    for task_id, data in photos.items():
        try:
            encoder.embed_photo(data, max_pixels)
            seen += 1
        except UnreadableImageError as error:
            problems[task_id] = str(error)
    return (time.monotonic() - began) / seen if seen else None
