"""Readiness: whether each part of the stack does its work, asked at once and answered in a second."""

import logging
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, wait
from threading import Lock, Thread

import httpx

from backend.jobs.queue import TURNS, get_job_queue, redis_errors
from backend.jobs.queue_state import alive_workers
from backend.services import Services
from carcond.errors import CarcondError
from carcond.registry.registry import serving_projects

logger = logging.getLogger(__name__)

_PATIENCE_S = 1.0
# Probes come from many sides, and none needs a password: they must not become a flood against Label Studio.
_KEPT_S = 2.0


class Readiness:
    """The checks of one web process. Safe to share between threads."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._checks: Mapping[str, Callable[[], str]] = {
            "worker": self._worker,
            "redis": self._redis,
            "store": self._store,
            "registry": self._registry,
            "label_studio": self._label_studio,
        }
        self._running: dict[str, Future[str]] = {}
        self._lock = Lock()
        self._kept: Mapping[str, str] = {}
        self._kept_until = 0.0

    def problems(self) -> Mapping[str, str]:
        """Check -> one sentence on what is wrong, empty where nothing is.

        Takes a second at most. Answers are kept for two seconds; while one caller checks again, others get the last.
        """
        if not self._lock.acquire(blocking=not self._kept):
            return self._kept
        try:
            if time.monotonic() >= self._kept_until:
                self._kept = self._check()
                self._kept_until = time.monotonic() + _KEPT_S
            return self._kept
        finally:
            self._lock.release()

    def _check(self) -> Mapping[str, str]:
        for name, check in self._checks.items():
            if name not in self._running:  # else it hangs since an earlier time: one thread a check is enough
                self._running[name] = _start(check)
        done, _ = wait(self._running.values(), _PATIENCE_S)
        silent = f"no answer within {_PATIENCE_S:.0f} s"
        problems = {
            name: _problem(name, self._running[name]) if self._running[name] in done else silent
            for name in self._checks
        }
        self._running = {name: future for name, future in self._running.items() if future not in done}
        return problems

    @staticmethod
    def _worker() -> str:
        with redis_errors():
            return (
                "" if alive_workers(get_job_queue(), TURNS) else "no worker is alive: labels are kept, none is learnt"
            )

    @staticmethod
    def _redis() -> str:
        with redis_errors():
            get_job_queue().redis.ping()
        return ""

    def _store(self) -> str:
        self._services.store.project_ids()
        return ""

    def _registry(self) -> str:
        self._services.encoder_id()
        projects = serving_projects(self._services.settings.models_dir)
        broken = [str(project) for project in projects if self._services.registry(project).current() is None]
        return f"no version can be read of project {', '.join(broken)}" if broken else ""

    def _label_studio(self) -> str:
        url = f"{self._services.settings.label_studio_url.rstrip('/')}/api/current-user/whoami"
        try:
            status = httpx.get(url, auth=self._services.api.auth, timeout=_PATIENCE_S, trust_env=False).status_code
        except httpx.HTTPError as error:
            return f"Label Studio could not be reached ({type(error).__name__})"
        return "" if status == httpx.codes.OK else f"Label Studio answered HTTP {status} to our token"


def _start(check: Callable[[], str]) -> Future[str]:
    """Run a check in a thread that nobody has to wait for, not even the end of the process."""
    future: Future[str] = Future()

    def run() -> None:
        try:
            future.set_result(check())
        except Exception as error:
            future.set_exception(error)

    Thread(target=run, daemon=True).start()
    return future


def _problem(name: str, future: Future[str]) -> str:
    error = future.exception()
    if error is None:
        return future.result()
    if isinstance(error, CarcondError):
        return str(error)
    logger.error("the check of %s failed", name, exc_info=error)
    return "an unexpected error; see the backend's log"
