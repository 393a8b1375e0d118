"""Cold and warm `/predict` beside the usual way, in turns in one run."""

import contextlib
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx

from backend.label_studio.provision import shipped_label_config
from carcond.settings import Settings, variable_name
from scripts.photo_workload import PROJECT, Workload
from scripts.ports import free_ports
from scripts.processes import ManagedProcess

# Ids of tasks of which the store knows nothing.
_UNKNOWN = 10**6


def bench_predict(work: Workload) -> dict[str, Any]:
    """Milliseconds per photo of cold and warm requests, and of the usual way, see `Workload.milliseconds`.

    All photos are sent in one request, as Label Studio does. Cold: each is fetched and encoded. Warm: the embeddings
    of all are in the store.
    """
    with (
        work.installation() as services,
        _backend(services.settings) as client,
        work.naive() as naive,
    ):
        work.embed(services, PROJECT)
        ways = {
            "cold": lambda: _seconds(client, work, first_id=_UNKNOWN),
            "warm": lambda: _seconds(client, work, first_id=1),
        }
        return work.milliseconds(ways, naive)


def _seconds(client: httpx.Client, work: Workload, first_id: int) -> float:
    """Seconds of a request for all photos."""
    tasks = [{"id": number, "data": {"image": url}} for number, url in enumerate(work.source.urls, start=first_id)]
    body = {"tasks": tasks, "project": f"{PROJECT}.1", "label_config": shipped_label_config()}
    began = time.perf_counter()
    answer = client.post("/predict", json=body).raise_for_status().json()
    seconds = time.perf_counter() - began
    if not all(each["score"] for each in answer["results"]):
        raise RuntimeError("expected a prediction of each photo: see the log of the backend for those that have none")
    return seconds


@contextlib.contextmanager
def _backend(settings: Settings) -> Iterator[httpx.Client]:
    """Client of a backend that is started with the settings."""
    (port,) = free_ports(1)
    given = {
        "database_url": settings.database_url,
        "models_dir": str(settings.models_dir),
        "label_studio_url": settings.label_studio_url,
        "label_studio_api_key": settings.label_studio_api_key.get_secret_value(),
        "photo_hosts": ",".join(settings.photo_hosts),
    }
    environment = os.environ | {variable_name(name): value for name, value in given.items()}
    command = [sys.executable, "-m", "gunicorn", "-c", "python:backend.gunicorn_conf", "backend.app:create_app()"]
    folder = settings.models_dir.parent
    server = ManagedProcess(
        "backend",
        command,
        environment | {"CARCOND_BIND": f"127.0.0.1:{port}"},
        folder / "backend.log",
        Path(__file__).parents[1],
    )
    server.start()
    try:
        server.wait_for_url(f"http://127.0.0.1:{port}/health", 120)
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=120) as client:
            yield client
    finally:
        server.stop()
