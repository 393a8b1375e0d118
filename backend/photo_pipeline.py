"""From addresses of photos to embeddings: photos are fetched and decoded while others are encoded, in full batches.

All threads of a process share one pipeline. Each request has a few fetching threads, in turns with those of other
requests; the photos of all pass through one lane of the encoder, in the order in which they are ready. A photo that is
on its way already is not fetched again.
"""

import threading
from collections import Counter, defaultdict, deque
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from backend.label_studio.photo_fetcher import PhotoFetcher
from carcond.arrays import FloatArray
from carcond.data.images import ImageStats, decode_photo, measure_image, perceptual_hash, to_pixels
from carcond.errors import CarcondError
from carcond.model.encoder import BATCH_SIZE, Encoder

FETCHES_PER_REQUEST = 4
"""Maximum number of photos of one request that are fetched at once."""

# A host that does not answer holds the threads of a request until its timeout. So there are as many as the requests of
# all of gunicorn's threads ask for; they are started as they are needed.
_FETCHERS = 32 * FETCHES_PER_REQUEST
# Maximum number of decoded photos: the batch that is being encoded, and the next one.
_DECODED = 2 * BATCH_SIZE
# A batch is encoded though photos are missing that are on their way: their host is slow.
_FULL_BATCH_WAIT_S = 0.1


@dataclass(frozen=True)
class PhotoFacts:
    """Measurements of a photo: its perceptual hash, and its statistics."""

    phash: int
    stats: ImageStats


@dataclass(frozen=True)
class EncodedPhoto:
    """A photo as the encoder sees it.

    Attributes:
        embedding: ``(D,)``.
        facts: None unless they were asked for.
    """

    embedding: FloatArray
    facts: PhotoFacts | None


_Key: TypeAlias = tuple[str, str, bool]
"""Encoder's id, address, and whether the photo is measured: equal for photos that are processed once."""


@dataclass(frozen=True)
class _Decoded:
    key: _Key
    pixels: FloatArray
    facts: PhotoFacts | None


class PhotoPipeline:
    """The pipeline of one process. Safe to share between threads."""

    def __init__(self, fetcher: PhotoFetcher, max_pixels: int) -> None:
        """Start nothing yet: threads are started by the first requests.

        Args:
            fetcher: source of the photos' bytes.
            max_pixels: limit of a photo's width x height.
        """
        self._fetcher = fetcher
        self._max_pixels = max_pixels
        self._fetchers = ThreadPoolExecutor(_FETCHERS, "photo-fetcher")
        self._encoders = ThreadPoolExecutor(1, "photo-encoder")
        self._room = threading.Semaphore(_DECODED)
        self._changed = threading.Condition()  # guards all below
        self._takers: dict[_Key, list[Future[EncodedPhoto]]] = {}
        self._decoded: defaultdict[str, deque[_Decoded]] = defaultdict(deque)
        # Encoder's id -> number of requested photos that are not decoded yet.
        self._awaited: Counter[str] = Counter()

    def request(self, encoder: Encoder, urls: Iterable[str], *, measure: bool = False) -> "PhotoRequest":
        """Begin to fetch and encode photos; returns at once.

        Args:
            encoder: computes the embeddings.
            urls: addresses of the photos; the same one twice is one photo.
            measure: measure the photos, too.
        """
        request = PhotoRequest(self, encoder, urls, measure=measure)
        with self._changed:
            self._awaited[encoder.encoder_id] += len(request.futures)
        for _ in range(min(FETCHES_PER_REQUEST, len(request.futures))):
            self._fetchers.submit(self._fetch_next, request)
        return request

    def drop(self, request: "PhotoRequest") -> None:
        """Fetch no further photos of a request. Those on their way are encoded still: others may have joined."""
        with self._changed:
            self._arrived(request.encoder, len(request.waiting))
            request.waiting.clear()

    def _fetch_next(self, request: "PhotoRequest") -> None:
        """Process one photo of a request, then queue up for its next one, behind other requests."""
        with self._changed:
            if not request.waiting:
                return
            url = request.waiting.popleft()
            key = (request.encoder.encoder_id, url, request.measure)
            takers = self._takers.setdefault(key, [])
            takers.append(request.futures[url])
            is_first = len(takers) == 1
            if not is_first:
                self._arrived(request.encoder, 1)
        if is_first:
            self._process(key, request.encoder)
        self._fetchers.submit(self._fetch_next, request)

    def _process(self, key: _Key, encoder: Encoder) -> None:
        try:
            decoded = self._decode(key, encoder)
        except Exception as error:  # it is raised to those who wait for the photo, and to nobody else
            self._fail(key, error)
            with self._changed:
                self._arrived(encoder, 1)
            return
        with self._changed:
            self._decoded[encoder.encoder_id].append(decoded)
            self._arrived(encoder, 1)
        self._encoders.submit(self._encode, encoder)

    def _decode(self, key: _Key, encoder: Encoder) -> _Decoded:
        _, url, measure = key
        data = self._fetcher.fetch(url)
        self._room.acquire()  # given back when the photo is encoded
        try:
            image = decode_photo(data, target=encoder.spec.size, max_pixels=self._max_pixels)
            facts = PhotoFacts(perceptual_hash(image), measure_image(data, image)) if measure else None
            return _Decoded(key, to_pixels(image, encoder.spec), facts)
        except BaseException:
            self._room.release()
            raise

    def _arrived(self, encoder: Encoder, count: int) -> None:
        """Await so many photos fewer. The lock is held."""
        self._awaited[encoder.encoder_id] -= count
        self._changed.notify_all()

    def _encode(self, encoder: Encoder) -> None:
        """Encode the photos that are ready, one batch. Called once for each photo: some calls find none left."""
        size = encoder.batch_size
        with self._changed:
            ready, awaited = self._decoded[encoder.encoder_id], self._awaited
            self._changed.wait_for(
                lambda: not ready or len(ready) >= size or not awaited[encoder.encoder_id], _FULL_BATCH_WAIT_S
            )
            batch = [ready.popleft() for _ in range(min(size, len(ready)))]
        if not batch:
            return
        try:
            rows = encoder.embed(np.stack([photo.pixels for photo in batch]))
        except Exception as error:
            for photo in batch:
                self._fail(photo.key, error)
        else:
            for photo, row in zip(batch, rows, strict=True):
                for taker in self._pop_takers(photo.key):
                    taker.set_result(EncodedPhoto(row, photo.facts))
        finally:
            self._room.release(len(batch))

    def _fail(self, key: _Key, error: Exception) -> None:
        for taker in self._pop_takers(key):
            taker.set_exception(error)

    def _pop_takers(self, key: _Key) -> list[Future[EncodedPhoto]]:
        with self._changed:
            return self._takers.pop(key)


class PhotoRequest:
    """Photos that a caller waits for. Made by `PhotoPipeline.request`.

    Attributes:
        encoder: computes the embeddings.
        measure: the photos are measured, too.
        futures: address -> outcome, in the order of the request.
        waiting: addresses that no thread has taken yet; guarded by the pipeline.
    """

    def __init__(self, pipeline: PhotoPipeline, encoder: Encoder, urls: Iterable[str], *, measure: bool) -> None:
        self._pipeline = pipeline
        self.encoder = encoder
        self.measure = measure
        self.futures: dict[str, Future[EncodedPhoto]] = {url: Future() for url in urls}
        self.waiting = deque(self.futures)

    def results(self, seconds: float | None = None) -> dict[str, EncodedPhoto | CarcondError]:
        """Wait for the photos, and fetch no more of them afterwards.

        Args:
            seconds: the longest wait. Default: until all are done.

        Returns:
            Address -> the photo, or why there is none; in the order of the request. Photos that time did not suffice
            for are absent.

        Raises:
            Exception: a photo met an unexpected error.
        """
        try:
            wait(self.futures.values(), timeout=seconds)
        finally:
            self.close()
        return {url: _outcome(future) for url, future in self.futures.items() if future.done()}

    def close(self) -> None:
        """Fetch no further photos: the caller does not wait for them any more."""
        self._pipeline.drop(self)


def _outcome(future: Future[EncodedPhoto]) -> EncodedPhoto | CarcondError:
    error = future.exception()
    return error if isinstance(error, CarcondError) else future.result()
