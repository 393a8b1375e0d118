"""What the checks look at: the settings, and what Label Studio says of itself and of a project, asked once."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from time import time
from typing import Any, Self
from urllib.parse import urlsplit, urlunsplit

import httpx

from backend.backend_address import BackendAddress
from backend.jobs import JobQueue
from backend.labelstudio import LabelStudioApi, ProjectInfo
from backend.ml_backends import find_ours, read_backends
from backend.services import Services
from backend.webhooks import read_webhooks
from carcond.settings import Settings

VERSION_PATH = "/api/version/"
# Label Studio gets so long for one answer: all of an examination is to take seconds.
_PATIENCE_S = 4.0
# An answer that is meant for programs is short.
_LONGEST_ANSWER = 100_000


@dataclass(frozen=True)
class Answer:
    """What an address answered to a request without credentials.

    Attributes:
        status: HTTP status.
        body: decoded JSON; None when it is none.
        date: its clock, as it says; empty when it does not.
        location: where it redirects to; empty when it does not.
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
        backend_url: where Label Studio should find the backend, as far as a project does not say.
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
        """The queues of each worker that has reported lately.

        Raises:
            redis.exceptions.RedisError: Redis cannot be reached.
        """
        from rq import Worker  # noqa: PLC0415 - takes long to load

        from backend.queue_metrics import is_alive  # noqa: PLC0415

        workers = Worker.all(connection=self.queue.redis)
        return [worker.queue_names() for worker in workers if is_alive(worker)]

    @cached_property
    def greeting(self) -> Answer:
        """What Label Studio answers to anybody who asks for its version.

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
        """Its ML backends; Label Studio has just called each of them. Raises like `info`."""
        return read_backends(self.whole.api, self.id)

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
        """Where the backend is for Label Studio: where it is connected, else where it should be."""
        return self.whole.backend_at(self.ours["url"] if self.ours else self.whole.backend_url)


def ask(url: str, auth: tuple[str, str] | None = None) -> Answer:
    """Ask an address for a few bytes.

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
