"""Embedding a project's new photos: fetched side by side, encoded in batches, kept as they come."""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np

from backend.photos import PhotoFetcher
from backend.services import Services
from carcond.encoder import Encoder
from carcond.errors import PhotoFetchError, UnreadableImageError
from carcond.groups import Likeness, assign_groups
from carcond.heads import FloatArray
from carcond.images import LOOK_SIDE, Look, decode_photo, look_at, perceptual_hash, to_pixels
from carcond.store import Store
from carcond.tables import Photo

logger = logging.getLogger(__name__)

_BATCH = 16
_FETCHERS = 4
# A photo that cannot be reached, or with which a worker was killed, must not hold up every turn: its tries grow rarer.
_FIRST_WAIT_S = 30.0
_LONGEST_WAIT_S = 3600.0

Progress = Callable[[str, int, int], None]
"""Told the name of a stage, how much of it is done, and how much there is."""


@dataclass(frozen=True)
class SeenPhoto:
    """A photo as it was found: its pixels ``(3, S, S)``, perceptual hash and look, or a problem."""

    task_id: int
    pixels: FloatArray | None = None
    phash: int = 0
    look: Look | None = None
    problem: str = ""
    transient: bool = False


@dataclass(frozen=True)
class Share:
    """A part of a project's photos: number `number` of `count`, from 0."""

    number: int
    count: int

    def holds(self, task_id: int) -> bool:
        """Whether a photo is in it."""
        return task_id % self.count == self.number


def embed_new_photos(services: Services, project_id: int, encoder_id: str, seconds: float, progress: Progress) -> int:
    """Embed photos that have no embedding yet, for about as long as `seconds`.

    Each batch is kept at once, so that a killed worker loses at most one. A photo that cannot be
    read gets its `problem` written down; one that could not be reached is tried again next time.

    Returns:
        How many photos nobody has looked at yet; those that could not be reached are not among them,
        or a turn would follow a turn for their sake.
    """
    _group_new_photos(services.store, project_id)  # a worker may have been killed before it came to that
    waiting = _waiting(services.store, project_id, encoder_id)
    if not waiting:
        return 0
    deadline = time.monotonic() + seconds
    left = _embed(
        services, project_id, encoder_id, waiting, interrupted=lambda: time.monotonic() >= deadline, progress=progress
    )
    _group_new_photos(services.store, project_id)
    return left


def embed_share(
    services: Services,
    project_id: int,
    encoder_id: str,
    share: Share,
    *,
    interrupted: Callable[[], bool],
    progress: Progress,
) -> int:
    """Show a share of a project's photos to an encoder that does not serve it, as far as it has not seen them.

    Args:
        services: of this process.
        project_id: of the photos.
        encoder_id: whose embeddings are made.
        share: which of the photos.
        interrupted: asked before each batch: a turn is more urgent than this.
        progress: told how many photos of the share are done.

    Returns:
        How many photos of the share it has yet to see.
    """
    waiting = [p for p in _waiting(services.store, project_id, encoder_id) if share.holds(p.task_id)]
    if not waiting:
        return 0
    return _embed(services, project_id, encoder_id, waiting, interrupted=interrupted, progress=progress)


def unseen_photos(store: Store, project_id: int, encoder_id: str) -> int:
    """How many photos an encoder has yet to see; those that could not be had are not among them."""
    return sum(photo.problem is None for photo in _waiting(store, project_id, encoder_id))


def _embed(
    services: Services,
    project_id: int,
    encoder_id: str,
    waiting: Sequence[Photo],
    *,
    interrupted: Callable[[], bool],
    progress: Progress,
) -> int:
    encoder = services.encoder(encoder_id)
    see = partial(_see, services.photos, encoder, services.settings.max_photo_pixels)
    done = 0
    with ThreadPoolExecutor(_FETCHERS) as pool:
        while done < len(waiting) and not interrupted():
            batch = _next_batch(waiting[done:])
            _note_try(services.store, project_id, batch)
            _keep(
                services.store, project_id, encoder, list(pool.map(see, batch)), {p.task_id: p.failures for p in batch}
            )
            done += len(batch)
            progress("embedding photos", done, len(waiting))
    return sum(photo.problem is None for photo in waiting[done:])


def _waiting(store: Store, project_id: int, encoder_id: str) -> list[Photo]:
    """Photos to embed: new ones first, then those that could not be had, then those whose try never ended."""
    have = store.embedded(project_id, encoder_id)
    now = time.time()
    photos = [
        photo
        for photo in store.photos(project_id)
        # Without a hash it would never be put into a group, nor into the split.
        if (photo.task_id not in have or photo.phash is None) and photo.retry_at is not None and photo.retry_at <= now
    ]
    return sorted(photos, key=lambda photo: (_was_cut_short(photo), photo.problem is not None))


def _was_cut_short(photo: Photo) -> bool:
    """Whether a worker ended while it looked at the photo."""
    return photo.failures > 0 and photo.problem is None


def _next_batch(waiting: Sequence[Photo]) -> Sequence[Photo]:
    """Photos whose try never ended come one by one: one of them may have ended the worker."""
    together = next((i for i, photo in enumerate(waiting) if _was_cut_short(photo)), len(waiting))
    return waiting[: min(max(together, 1), _BATCH)]


def _note_try(store: Store, project_id: int, batch: Sequence[Photo]) -> None:
    """Count a try before it is made: if it ends the worker, the next turn goes on without these photos."""
    now = time.time()
    store.update_photos(
        project_id,
        [
            {"task_id": p.task_id, "problem": None, "failures": p.failures + 1, "retry_at": now + _wait(p.failures + 1)}
            for p in batch
        ],
    )


def _see(fetcher: PhotoFetcher, encoder: Encoder, max_pixels: int, photo: Photo) -> SeenPhoto:
    try:
        data = fetcher.fetch(photo.url)
        image = decode_photo(data, target=encoder.spec.size, max_pixels=max_pixels)
    except PhotoFetchError as error:
        return SeenPhoto(photo.task_id, problem=str(error), transient=error.transient)
    except UnreadableImageError as error:
        return SeenPhoto(photo.task_id, problem=str(error))
    return SeenPhoto(photo.task_id, to_pixels(image, encoder.spec), perceptual_hash(image), look_at(data, image))


def _keep(
    store: Store, project_id: int, encoder: Encoder, seen: Sequence[SeenPhoto], failures: Mapping[int, int]
) -> None:
    changes: list[dict[str, Any]] = []
    for photo in seen:
        if photo.pixels is None:
            logger.warning("project %d, task %d: %s", project_id, photo.task_id, photo.problem)
            changes.append({"task_id": photo.task_id, **_failure(photo, failures[photo.task_id] + 1)})
        else:
            facts = asdict(photo.look) if photo.look else {}
            tried = {"problem": None, "failures": 0, "retry_at": 0.0}
            changes.append({"task_id": photo.task_id, "phash": f"{photo.phash:016x}", **tried, **facts})
    good = [photo for photo in seen if photo.pixels is not None]
    rows = encoder.embed(np.stack([p.pixels for p in good if p.pixels is not None])) if good else np.empty((0, 0))
    # Before the embeddings: a photo that has both is never looked at again.
    store.update_photos(project_id, changes)
    store.put_embeddings(project_id, encoder.encoder_id, {p.task_id: row for p, row in zip(good, rows, strict=True)})


def look_at_kept_photos(services: Services, project_id: int, progress: Progress) -> None:
    """Measure the look of photos that were embedded before looks were kept; those that cannot be had are left out."""
    photos = [p for p in services.store.photos(project_id) if p.phash and p.width is None]
    see = partial(_see_look, services.photos, services.settings.max_photo_pixels)
    with ThreadPoolExecutor(_FETCHERS) as pool:
        for start in range(0, len(photos), _BATCH):
            batch = photos[start : start + _BATCH]
            looks = zip(batch, pool.map(see, batch), strict=True)
            services.store.update_photos(
                project_id, [{"task_id": photo.task_id, **asdict(look)} for photo, look in looks if look]
            )
            progress("measuring photos", start + len(batch), len(photos))


def _see_look(fetcher: PhotoFetcher, max_pixels: int, photo: Photo) -> Look | None:
    try:
        data = fetcher.fetch(photo.url)
        return look_at(data, decode_photo(data, target=LOOK_SIDE, max_pixels=max_pixels))
    except (PhotoFetchError, UnreadableImageError) as error:
        logger.warning("project %d, task %d: %s", photo.project_id, photo.task_id, error)
        return None


def _failure(photo: SeenPhoto, failures: int) -> dict[str, Any]:
    """What is written down about a photo that could not be had."""
    retry_at = time.time() + _wait(failures) if photo.transient else None
    return {"problem": photo.problem, "failures": failures, "retry_at": retry_at}


def _wait(failures: int) -> float:
    """Seconds until the next try: each time twice as long."""
    return min(_FIRST_WAIT_S * 2.0 ** (failures - 1), _LONGEST_WAIT_S)


def _group_new_photos(store: Store, project_id: int) -> None:
    """Put photos beside those of the same car and near-duplicates; a group's side holds for newcomers too."""
    new = store.ungrouped_photos(project_id)
    if not new:
        return
    # Deleted photos too: a copy that comes back later belongs to their group.
    grouped = [p for p in store.known_photos(project_id) if p.group is not None]
    groups = assign_groups(
        [_likeness(p) for p in new], [_likeness(p) for p in grouped], [p.group or 0 for p in grouped]
    )
    side_by_group = {p.group: p.side for p in grouped if p.side}
    store.update_photos(
        project_id,
        [
            {"task_id": photo.task_id, "group": group, "side": photo.side or side_by_group.get(group)}
            for photo, group in zip(new, groups, strict=True)
        ],
    )


def _likeness(photo: Photo) -> Likeness:
    return Likeness(int(photo.phash or "0", 16), photo.car)
