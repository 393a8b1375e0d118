"""The JSON API with EfficientNet-B4 of random weights: one client, many clients, and Label Studio's routes beside them.

Speed does not depend on the weights. Redis and gunicorn run, Label Studio and the worker do not.
"""

import contextlib
import os
import secrets
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from carcond.data.images import decode_photo, to_pixels
from carcond.data.synthetic_photos import draw_picture
from carcond.model.encoder import Encoder
from carcond.model.version_card import VersionCard
from carcond.registry.registry import Registry
from carcond.settings import get_settings
from carcond.taxonomy import CLEANLINESS, DAMAGE
from carcond.training.network import build_encoder
from scripts import redis_server
from scripts.made_up_heads import made_up_heads
from scripts.ports import free_ports
from scripts.processes import ManagedProcess

_SIZE = (1280, 960)
_REQUESTS = 60
_CALLERS = 20
_EACH = 5
_PROJECT = 1


def bench_rest(folder: Path) -> dict[str, Any]:
    """Milliseconds of one client, of the network alone, of 20 clients at once, and of /health and /webhook beside them.

    Args:
        folder: an empty one, for models, store and logs.
    """
    models_dir = folder / "models"
    encoder = _make_models(models_dir)
    photo = _photo()
    with _service(folder, models_dir) as url, httpx.Client(base_url=url, trust_env=False, timeout=60) as client:
        one = _times(lambda: _ask(client, photo))
        overlay = _times(lambda: _ask(client, photo, overlay="true"))
        quiet = {path: _times(partial(_call, client, path)) for path in ("/health", "/webhook")}
        crowd = _crowd(url, photo)
    image = decode_photo(photo, target=encoder.spec.size, max_pixels=10**8)
    pixels = to_pixels(image, encoder.spec)[np.newaxis]
    return {
        "photo_bytes": len(photo),
        "one_caller_ms": one,
        "with_overlay_ms": overlay,
        "network_ms": _times(lambda: encoder.encode(pixels)),
        "quiet": quiet,
        "crowd": crowd,
    }


def _make_models(models_dir: Path) -> Encoder:
    encoder = Encoder.load(build_encoder(models_dir, "efficientnet_b4", "random", get_settings().views))
    registry = Registry(models_dir, _PROJECT)
    registry.promote(registry.write(made_up_heads(encoder), VersionCard(), []))
    return encoder


def _photo() -> bytes:
    """A drawn car of the size of phone photos, with noise, which JPEG cannot compress."""
    rng = np.random.default_rng(0)
    picture = draw_picture(rng, damage=DAMAGE.class_keys[0], cleanliness=CLEANLINESS.class_keys[0]).resize(_SIZE)
    file = BytesIO()
    picture.save(file, "JPEG", quality=92)
    return file.getvalue()


@contextlib.contextmanager
def _service(folder: Path, models_dir: Path) -> Iterator[str]:
    """URL of a backend started for the benchmark."""
    port, redis_port = free_ports(2)
    password = secrets.token_hex(16)
    redis_url = f"redis://:{password}@127.0.0.1:{redis_port}/0"
    environment = os.environ | {
        "CARCOND_BIND": f"127.0.0.1:{port}",
        "CARCOND_MODELS_DIR": str(models_dir),
        "CARCOND_API_PHOTOS_PER_MINUTE": "100000",
        "DATABASE_URL": f"sqlite:///{folder / 'store.sqlite3'}",
        "REDIS_URL": redis_url,
    }
    command = [sys.executable, "-m", "gunicorn", "-c", "python:backend.gunicorn_conf", "backend.app:create_app()"]
    redis = redis_server.redis_process(folder, redis_port, password, folder / "redis.log")
    backend = ManagedProcess("backend", command, environment, folder / "backend.log", Path(__file__).parents[1])
    with contextlib.ExitStack() as stack:
        for process in (redis, backend):
            process.start()
            stack.callback(process.stop)
        redis.wait_until(lambda: redis_server.answers(redis_url), 30)
        url = f"http://127.0.0.1:{port}"
        backend.wait_for_url(f"{url}/health", 60)
        yield url


def _ask(client: httpx.Client, photo: bytes, **fields: str) -> None:
    client.post("/api/v1/condition", files={"image": ("car.jpg", photo)}, data=fields).raise_for_status()


def _call(client: httpx.Client, path: str) -> None:
    """Request of Label Studio to a route."""
    if path == "/health":
        client.get(path).raise_for_status()
    else:
        event = {"action": "ANNOTATION_CREATED", "project": {"id": _PROJECT}}
        client.post(path, json=event).raise_for_status()


def _crowd(url: str, photo: bytes) -> dict[str, Any]:
    """Clients that repeat their request as soon as it is answered, and Label Studio beside them."""
    done = threading.Event()
    beside: dict[str, list[float]] = {"/health": [], "/webhook": []}

    def poll() -> None:
        with httpx.Client(base_url=url, trust_env=False, timeout=60) as client:
            while not done.is_set():
                for path, taken in beside.items():
                    taken.append(_time(partial(_call, client, path)))
                    time.sleep(0.02)

    def ask_often(_: int) -> list[float]:
        with httpx.Client(base_url=url, trust_env=False, timeout=60) as client:
            return [_time(lambda: _ask(client, photo)) for _ in range(_EACH)]

    with ThreadPoolExecutor(_CALLERS + 1) as pool:
        polling = pool.submit(poll)
        began = time.perf_counter()
        callers = list(pool.map(ask_often, range(_CALLERS)))  # an answer that is no 200 is an error here
        seconds = time.perf_counter() - began
        done.set()
        polling.result()
    means = [statistics.mean(each) for each in callers]
    return {
        "answered": sum(map(len, callers)),
        "a_second": round(_CALLERS * _EACH / seconds, 1),
        "wait_ms": _summary([taken for each in callers for taken in each]),
        "slowest_to_fastest_caller": round(max(means) / min(means), 2),
        "beside": {path: _summary(taken) for path, taken in beside.items()},
    }


def _times(call: Callable[[], object]) -> dict[str, float]:
    call()
    return _summary([_time(call) for _ in range(_REQUESTS)])


def _time(call: Callable[[], object]) -> float:
    began = time.perf_counter()
    call()
    return 1000 * (time.perf_counter() - began)


def _summary(milliseconds: list[float]) -> dict[str, float]:
    return {
        "median": round(statistics.median(milliseconds), 1),
        "p99": round(float(np.quantile(milliseconds, 0.99)), 1),
    }
