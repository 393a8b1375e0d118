"""One project with its people, its photos, and the processes of the backend, which come and go."""

import shutil
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from flask.testing import FlaskClient
from redis import Redis
from rq import Queue
from rq.serializers import JSONSerializer
from sqlalchemy import update

from backend.jobs.queue import JobQueue, get_job_queue, reconcile
from backend.services import Services, get_services
from backend.web.app import create_app
from carcond.arrays import UNKNOWN, FloatArray, IntArray
from carcond.errors import NotEnoughLabelsError
from carcond.model.heads import Head, Heads
from carcond.settings import Settings
from carcond.store.tables import Photo
from carcond.taxonomy import TASKS
from tests.backend.drawings import draw_photo
from tests.backend.fake_label_studio import FakeLabelStudio
from tests.backend.garage import CLEANLINESS, DAMAGE

PICTURES = 30
"""Number of different pictures; a further photo is one of them again, and so a near-duplicate."""
UNREADABLE = "/unreadable.jpg"
_DEAD_REDIS = "redis://127.0.0.1:1/0"


class Album:
    """Photos in memory, in the place of the fetcher that asks Label Studio for them."""

    def fetch(self, url: str) -> bytes:
        return b"no photo" if url == UNREADABLE else picture(int(url.removesuffix(".jpg").rpartition("/")[2]))

    def close(self) -> None:
        """Nothing to close."""


@cache
def picture(number: int) -> bytes:
    """A drawn photo."""
    return draw_photo(number, CLEANLINESS[number % 3], DAMAGE[number // 3 % 2])


def fit_means(encoder_id: str, embeddings: FloatArray, classes: Mapping[str, IntArray], **_: Any) -> Heads:
    """Heads that compare a photo with the mean of each class: fitted in microseconds, and as deterministic."""
    by_task = {}
    for task in TASKS:
        indices = classes[task.key]
        if len(set(indices[indices != UNKNOWN].tolist())) >= 2:
            weight = np.zeros((len(task.classes), embeddings.shape[1]), np.float32)
            bias = np.full(len(task.classes), -30, np.float32)
            for k in np.unique(indices[indices != UNKNOWN]):
                weight[k] = embeddings[indices == k].mean(axis=0)
                bias[k] = -(weight[k] @ weight[k]) / 2
            by_task[task.key] = Head(task, weight, bias, 1.0, False)
    if not by_task:
        raise NotEnoughLabelsError("expected labels of at least two classes of one task")
    return Heads(encoder_id, by_task)


class Site:
    """A Label Studio, a worker and a web process over one directory and one Redis.

    Attributes:
        studio: outlives all processes.
        events: webhooks that have not arrived yet.
    """

    def __init__(self, settings: Settings, directory: Path) -> None:
        self.settings = settings
        self.studio = FakeLabelStudio()
        self.studio.wait(int((datetime.now(UTC) - datetime(2026, 1, 1, tzinfo=UTC)).total_seconds()) - 3600)
        self.events: list[dict[str, Any]] = []
        self._directory = directory
        self._opened: list[Services] = []
        self._embeddings: dict[int, FloatArray] = {}
        self.start_worker()
        self.start_web()

    # Processes

    @property
    def services(self) -> Services:
        """Of the worker."""
        return get_services()

    @property
    def queue(self) -> JobQueue:
        """Of the worker."""
        return get_job_queue()

    def start_worker(self) -> None:
        """Have a worker that remembers nothing of the last one."""
        if get_services.cache_info().currsize:
            self.services.store.close()
        for cached in (get_services, get_job_queue):
            cached.cache_clear()
        self._equip(self.services)

    def start_web(self) -> None:
        """Have a web process that remembers nothing of the last one."""
        services = Services(self.settings)
        self._equip(services)
        self.web: FlaskClient = create_app(services).test_client()

    def _equip(self, services: Services) -> None:
        services.api = self.studio
        services.photos = Album()  # type: ignore[assignment]  # all that is asked of a fetcher
        self._opened.append(services)

    def close(self) -> None:
        """End all processes, and remove what they have written."""
        self._close_stores()
        shutil.rmtree(self._directory)
        for cached in (get_services, get_job_queue):
            cached.cache_clear()

    def _close_stores(self) -> None:
        for services in self._opened:
            if "store" in vars(services):
                services.store.close()

    def embed(self, url: str) -> FloatArray:
        """Embedding ``(D,)`` of a photo with the encoder in use."""
        number = int(url.removesuffix(".jpg").rpartition("/")[2])
        if number not in self._embeddings:
            encoder = self.services.encoder(self.services.encoder_id())
            self._embeddings[number] = encoder.embed_photo(picture(number), 10**8)
        return self._embeddings[number]

    # Webhooks

    def post(self, event: Mapping[str, Any]) -> int:
        """Deliver a webhook. Returns the status of the answer."""
        return self.web.post("/webhook", json=event).status_code

    def post_without_redis(self, event: Mapping[str, Any]) -> int:
        """Deliver a webhook while nobody listens where Redis was."""
        alive = self.queue.redis
        with Redis.from_url(_DEAD_REDIS) as dead:
            self.queue.redis = dead
            try:
                return self.post(event)
            finally:
                self.queue.redis = alive

    # Jobs

    def run_next_job(self) -> bool:
        """Run the most urgent job that waits, as a worker does. Returns False when none does."""
        queue = self.queue
        self._forget("carcond:rest:*")  # as if we had waited
        found = Queue.dequeue_any(queue.queues(), None, connection=queue.redis, serializer=JSONSerializer)
        if found is None:
            return False
        job, _ = found
        job.func(*job.args)
        return True

    def recover(self) -> None:
        """Let an undisturbed hour go by: what the dead have locked is free, and all jobs are done."""
        self._forget("carcond:waiting:*", "carcond:lock:*")
        with self.services.store.session() as session:
            session.execute(update(Photo).where(Photo.retry_at.is_not(None)).values(retry_at=0.0))
        reconcile(self.queue, self.services.store.project_ids())
        done = 0
        while self.run_next_job():
            done += 1
            assert done < 30, "the jobs of a project at rest do not end"

    def _forget(self, *patterns: str) -> None:
        for pattern in patterns:
            for key in self.queue.redis.keys(pattern):
                self.queue.redis.delete(key)

    # A killed process

    def freeze(self) -> None:
        """Keep the disk as it is now: a killed process tidies nothing up."""
        shutil.copytree(self._directory, self._frozen)

    def thaw(self) -> None:
        """Have the disk as it was when the process was killed, and a new worker."""
        self._close_stores()
        shutil.rmtree(self._directory)
        self._frozen.rename(self._directory)
        self.start_worker()

    @property
    def _frozen(self) -> Path:
        return self._directory.with_name(f"{self._directory.name}-frozen")
