"""Embedding a project's new photos: one batch is fetched while another is encoded; each is stored at once."""

import logging
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence, Sized
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from functools import partial
from typing import Any

from backend.label_studio.photo_fetcher import PhotoFetcher
from backend.loop.grouping import group_new_photos
from backend.loop.waiting_photos import ALL, LONGEST_WAIT_S, Shard, unseen_photos, waiting_photos
from backend.photo_pipeline import FETCHES_PER_REQUEST, EncodedPhoto, PhotoRequest
from backend.services import Services
from carcond.arrays import FloatArray
from carcond.data.images import STATS_SIDE, ImageStats, decode_photo, measure_image
from carcond.errors import CarcondError, EncoderError, PhotoFetchError, UnreadableImageError
from carcond.model.encoder import BATCH_SIZE
from carcond.store.store import Store
from carcond.store.tables import Photo

logger = logging.getLogger(__name__)

# Batches on their way at once. If the worker is killed, so many batches have been tried in vain.
_BATCHES_AHEAD = 2
# A photo that cannot be reached, or that killed a worker, must not hold up every turn: retries back off exponentially.
_FIRST_WAIT_S = 30.0

Progress = Callable[[str, int, int], None]
"""Callback with the name of a stage, its number of items done, and their total."""


def embed_new_photos(services: Services, project_id: int, encoder_id: str, seconds: float, progress: Progress) -> int:
    """Embed photos that have no embedding yet, for about `seconds`.

    Each batch is stored at once, so that a killed worker loses at most one. A photo that cannot be
    read gets its `problem` recorded; one that could not be reached is tried again next time.

    Returns:
        Number of photos that were never tried; those that could not be reached do not count,
        or turns would follow each other for their sake.
    """
    group_new_photos(services.store, project_id)  # a worker may have been killed before it came to that
    waiting = waiting_photos(services.store, project_id, encoder_id)
    if not waiting:
        return 0
    behind = _new_behind(services.store, project_id, encoder_id, ALL, waiting)
    deadline = time.monotonic() + seconds
    left = _embed(
        services, project_id, encoder_id, waiting, interrupted=lambda: time.monotonic() >= deadline, progress=progress
    )
    group_new_photos(services.store, project_id)
    return left + behind


def embed_shard(
    services: Services,
    project_id: int,
    encoder_id: str,
    shard: Shard,
    *,
    interrupted: Callable[[], bool],
    progress: Progress,
) -> int:
    """Embed a shard of a project's photos with an encoder that does not serve it, except those already embedded.

    Args:
        services: of this process.
        project_id: of the photos.
        encoder_id: of the encoder to embed with.
        shard: subset of the photos.
        interrupted: checked before each batch: a turn is more urgent than this.
        progress: receives the number of photos of the shard that are done.

    Returns:
        Number of photos of the shard that are still to be embedded.
    """
    waiting = waiting_photos(services.store, project_id, encoder_id, shard)
    if not waiting:
        return 0
    behind = _new_behind(services.store, project_id, encoder_id, shard, waiting)
    return behind + _embed(services, project_id, encoder_id, waiting, interrupted=interrupted, progress=progress)


def _new_behind(store: Store, project_id: int, encoder_id: str, shard: Shard, waiting: Sequence[Photo]) -> int:
    """Number of new photos that wait behind the first ones."""
    first = sum(photo.problem is None for photo in waiting)
    return max(0, unseen_photos(store, project_id, encoder_id, shard) - first)  # other workers embed meanwhile


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
    begun = done = 0
    ahead: deque[tuple[Sequence[Photo], PhotoRequest]] = deque()
    try:
        while True:
            while len(ahead) < _BATCHES_AHEAD and _may_begin(waiting[begun:], ahead) and not interrupted():
                batch = _next_batch(waiting[begun:])
                _note_try(services.store, project_id, batch)
                ahead.append((batch, services.photo_pipeline.request(encoder, [p.url for p in batch], measure=True)))
                begun += len(batch)
            if not ahead:
                break
            batch, request = ahead.popleft()
            _keep(services.store, project_id, encoder_id, batch, request.results())
            done += len(batch)
            progress("embedding photos", done, len(waiting))
    except EncoderError:
        for batch, _ in ahead:
            services.store.update_photos(project_id, [_before_try(photo) for photo in batch])
        raise
    finally:
        for _, request in ahead:
            request.close()
    return sum(photo.problem is None for photo in waiting[begun:])


def _was_cut_short(photo: Photo) -> bool:
    """True if a worker died while it processed the photo."""
    return photo.failures > 0 and photo.problem is None


def _may_begin(waiting: Sequence[Photo], ahead: Sized) -> bool:
    """True if a batch may begin beside those ahead of it: a photo that may end the worker takes none with it."""
    return bool(waiting) and not (ahead and _was_cut_short(waiting[0]))


def _next_batch(waiting: Sequence[Photo]) -> Sequence[Photo]:
    """Photos whose try never ended come one by one: one of them may have ended the worker."""
    together = next((i for i, photo in enumerate(waiting) if _was_cut_short(photo)), len(waiting))
    return waiting[: min(max(together, 1), BATCH_SIZE)]


def _note_try(store: Store, project_id: int, batch: Sequence[Photo]) -> None:
    """Count a try before it is made: if it kills the worker, the next turn continues without these photos."""
    now = time.time()
    store.update_photos(
        project_id,
        [
            {"task_id": p.task_id, "problem": None, "failures": p.failures + 1, "retry_at": now + _wait(p.failures + 1)}
            for p in batch
        ],
    )


def _keep(
    store: Store,
    project_id: int,
    encoder_id: str,
    batch: Sequence[Photo],
    results: Mapping[str, EncodedPhoto | CarcondError],
) -> None:
    broken: CarcondError | None = None
    changes: list[dict[str, Any]] = []
    embeddings: dict[int, FloatArray] = {}
    for photo in batch:
        found = results[photo.url]
        if isinstance(found, EncodedPhoto):
            embeddings[photo.task_id] = found.embedding
            changes.append({"task_id": photo.task_id, "problem": None, "failures": 0, "retry_at": 0.0, **_facts(found)})
        elif isinstance(found, PhotoFetchError | UnreadableImageError):
            logger.warning("project %d, task %d: %s", project_id, photo.task_id, found)
            changes.append({"task_id": photo.task_id, **_failure(found, photo.failures + 1)})
        else:  # the encoder failed, not the photo: the try that was noted does not count
            broken = found
            changes.append(_before_try(photo))
    store.put_encoded(project_id, encoder_id, {photo.task_id: photo.url for photo in batch}, changes, embeddings)
    if broken:
        raise broken


def _before_try(photo: Photo) -> dict[str, Any]:
    """What `_note_try` has changed, as it was."""
    return {
        "task_id": photo.task_id,
        "problem": photo.problem,
        "failures": photo.failures,
        "retry_at": photo.retry_at,
    }


def _facts(photo: EncodedPhoto) -> dict[str, Any]:
    return {"phash": f"{photo.facts.phash:016x}", **asdict(photo.facts.stats)} if photo.facts else {}


def look_at_kept_photos(services: Services, project_id: int, progress: Progress) -> None:
    """Measure photos embedded before image statistics were stored; those that cannot be fetched are skipped."""
    photos = [p for p in services.store.photos(project_id) if p.phash and p.width is None]
    see = partial(_see_look, services.photos, services.settings.max_photo_pixels)
    with ThreadPoolExecutor(FETCHES_PER_REQUEST) as pool:
        for start in range(0, len(photos), BATCH_SIZE):
            batch = photos[start : start + BATCH_SIZE]
            looks = zip(batch, pool.map(see, batch), strict=True)
            services.store.update_photos(
                project_id, [{"task_id": photo.task_id, **asdict(look)} for photo, look in looks if look]
            )
            progress("measuring photos", start + len(batch), len(photos))


def _see_look(fetcher: PhotoFetcher, max_pixels: int, photo: Photo) -> ImageStats | None:
    try:
        data = fetcher.fetch(photo.url)
        return measure_image(data, decode_photo(data, target=STATS_SIDE, max_pixels=max_pixels))
    except (PhotoFetchError, UnreadableImageError) as error:
        logger.warning("project %d, task %d: %s", photo.project_id, photo.task_id, error)
        return None


def _failure(error: PhotoFetchError | UnreadableImageError, failures: int) -> dict[str, Any]:
    """Record of a photo that could not be fetched or decoded."""
    is_transient = isinstance(error, PhotoFetchError) and error.transient
    retry_at = time.time() + _wait(failures) if is_transient else None
    return {"problem": str(error), "failures": failures, "retry_at": retry_at}


def _wait(failures: int) -> float:
    """Seconds until the next try: each time twice as long."""
    return min(_FIRST_WAIT_S * 2.0 ** (failures - 1), LONGEST_WAIT_S)
