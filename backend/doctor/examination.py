"""Inputs of the checks: the settings, and Label Studio's answers about itself and a project, each requested once."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from time import time
from typing import Any, Self
from urllib.parse import urlsplit, urlunsplit

import httpx
from rq import Worker

from backend.jobs.queue import JobQueue
from backend.jobs.queue_state import is_alive
from backend.label_studio.backend_address import BackendAddress
from backend.label_studio.client import LabelStudioApi, ProjectInfo
from backend.label_studio.ml_backends import DISCONNECTED, find_ours, read_backends
from backend.label_studio.webhooks import read_webhooks
from backend.services import Services
from carcond.settings import Settings

VERSION_PATH = "/api/version/"
# Time limit of one answer of Label Studio: a whole examination takes seconds.
_PATIENCE_S = 4.0
# An answer that is meant for programs is short.
_LONGEST_ANSWER = 100_000


@dataclass(frozen=True)
class Answer:
    """Answer of an address to a request without credentials.

    Attributes:
        status: HTTP status.
        body: decoded JSON; None when it is none.
        date: its Date header; empty without one.
        location: target of its redirect; empty without one.
    """

    status: int
    body: Any
    date: str
    location: str


class Examination:
    """The stack as the settings name it. Threads may share it.

    Attributes:
        settings: with shorter time limits than those of the servers.
        services: over these settings.
        backend_url: address of the backend for Label Studio, unless a project has its own.
        now: this machine's clock, Unix time.
    """

    def __init__(self, settings: Settings, backend_url: str, now: Callable[[], float] = time) -> None:
        patience = {
            "label_studio_timeout_s": min(settings.label_studio_timeout_s, _PATIENCE_S),
            "photo_timeout_s": min(settings.photo_timeout_s, _PATIENCE_S),
        }
        self.settings = settings.model_copy(update=patience)
        self.services = Services(self.settings)
        self.backend_url = backend_url.rstrip("/")
        self.now = now

    def __enter__(self) -> Self:
        """Nothing is opened before it is needed."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close all connections."""
        made = vars(self.services)
        for name in ("store", "api", "photos"):
            if name in made:
                made[name].close()
        if "queue" in vars(self):
            self.queue.redis.close()

    @property
    def api(self) -> LabelStudioApi:
        """The way to Label Studio."""
        return self.services.api

    @property
    def label_studio(self) -> str:
        """Label Studio's address, fit to be shown."""
        return shown_url(self.settings.label_studio_url)

    def backend_at(self, url: str) -> BackendAddress:
        """The backend at an address, with the user and password of the settings."""
        return BackendAddress.of(url, self.settings)

    @cached_property
    def queue(self) -> JobQueue:
        """The jobs.

        Raises:
            ValueError: an option in REDIS_URL means nothing.
        """
        return JobQueue(self.settings)

    @cached_property
    def workers(self) -> list[list[str]]:
        """Queues of each worker with a recent heartbeat.

        Raises:
            redis.exceptions.RedisError: Redis cannot be reached.
        """
        workers = Worker.all(connection=self.queue.redis)
        return [worker.queue_names() for worker in workers if is_alive(worker)]

    @cached_property
    def greeting(self) -> Answer:
        """Answer of Label Studio's public version endpoint.

        Raises:
            httpx.HTTPError: it did not answer.
        """
        return ask(f"{self.settings.label_studio_url}{VERSION_PATH}")


class ProjectExamination:
    """One project of Label Studio."""

    def __init__(self, whole: Examination, project_id: int) -> None:
        self.whole = whole
        self.id = project_id

    @cached_property
    def info(self) -> ProjectInfo:
        """Its settings.

        Raises:
            LabelStudioError: Label Studio refused, or could not be reached.
        """
        return self.whole.api.project(self.id)

    @cached_property
    def backends(self) -> list[dict[str, Any]]:
        """Its ML backends; Label Studio has just called each of them, twice if need be. Raises like `info`."""
        found = read_backends(self.whole.api, self.id)
        # It waits a second for an answer, which a busy machine may exceed once.
        if any(row["state"] == DISCONNECTED for row in found):
            found = read_backends(self.whole.api, self.id)
        return found

    @cached_property
    def webhooks(self) -> list[dict[str, Any]]:
        """Its webhooks. Raises like `info`."""
        return read_webhooks(self.whole.api, self.id)

    @property
    def ours(self) -> dict[str, Any] | None:
        """The carcond backend among its ML backends: by its title, else by its address."""
        at_home = (row for row in self.backends if row["url"].rstrip("/") == self.whole.backend_url)
        return find_ours(self.backends) or next(at_home, None)

    @property
    def backend(self) -> BackendAddress:
        """Address of the backend for Label Studio: the connected one, else the expected one."""
        return self.whole.backend_at(self.ours["url"] if self.ours else self.whole.backend_url)


def ask(url: str, auth: tuple[str, str] | None = None) -> Answer:
    """Request a few bytes of an address.

    Raises:
        httpx.HTTPError: it did not answer in time.
    """
    with (
        httpx.Client(trust_env=False, timeout=_PATIENCE_S) as client,
        client.stream("GET", url, auth=auth) as response,
    ):
        text = b""
        for chunk in response.iter_bytes():
            text += chunk
            if len(text) > _LONGEST_ANSWER:
                break
        answer = httpx.Response(response.status_code, content=text)
    try:
        body = answer.json()
    except ValueError:
        body = None
    headers = response.headers
    return Answer(response.status_code, body, headers.get("date", ""), headers.get("location", ""))


def shown_url(url: str) -> str:
    """An address without the user and password that may stand in it, and without its query."""
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))
