"""What `scripts/bench.py predict` and `embed` have in common: an installation, the usual way, and turns of both."""

import contextlib
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import numpy as np

from backend.loop.embedding import embed_new_photos
from backend.services import Services
from carcond.model.encoder import Encoder
from carcond.model.version_card import VersionCard
from carcond.registry.registry import Registry
from carcond.settings import Settings
from carcond.store.store import TaskMirror
from carcond.training.network import build_encoder
from scripts.made_up_heads import made_up_heads
from scripts.naive_predictor import NaivePredictor
from scripts.photo_source import PhotoSource

PROJECT = 1

_MATRIX = 1536  # large enough for full speed, small enough for a tenth of a second
_UNLIMITED_S = 3600.0


@dataclass(frozen=True)
class Workload:
    """What is measured.

    Attributes:
        source: the photos.
        backbone: timm's name of the network; its weights are random, on which speed does not depend.
        views: sides of the views of a photo, in pixels.
        rounds: number of measurements of each way.
    """

    source: PhotoSource
    backbone: str
    views: tuple[int, ...]
    rounds: int

    @contextlib.contextmanager
    def installation(self) -> Iterator[Services]:
        """An empty store, and a serving version of made-up heads on the encoder, in a folder of its own."""
        with tempfile.TemporaryDirectory(prefix="carcond-bench-") as name:
            folder = Path(name)
            encoder = Encoder.load(build_encoder(folder / "models", self.backbone, "random", self.views))
            registry = Registry(folder / "models", PROJECT)
            registry.promote(registry.write(made_up_heads(encoder), VersionCard(), []))
            settings = Settings(
                database_url=f"sqlite:///{folder / 'store.sqlite3'}",
                models_dir=folder / "models",
                label_studio_url=self.source.label_studio_url or "http://127.0.0.1:1",
                label_studio_api_key=self.source.token,
                photo_hosts=self.source.hosts,
            )
            services = Services(settings)
            try:
                yield services
            finally:
                services.store.close()
                services.photos.close()

    def naive(self) -> NaivePredictor:
        """The usual way, for the same photos and network."""
        return NaivePredictor(self.backbone, self.views, self.source.token)

    @property
    def fetched_urls(self) -> list[str]:
        """Addresses of the photos for programs that do not know Label Studio's own."""
        return [urljoin(self.source.label_studio_url, url) for url in self.source.urls]

    def embed(self, services: Services, project_id: int) -> float:
        """Embed all photos, new in this project, as the worker does, and return how many seconds it took."""
        tasks = [TaskMirror(number, url, (), ()) for number, url in enumerate(self.source.urls, start=1)]
        services.store.mirror_tasks(project_id, tasks)
        began = time.perf_counter()
        embed_new_photos(services, project_id, services.encoder_id(), _UNLIMITED_S, lambda *_: None)
        seconds = time.perf_counter() - began
        if len(services.store.embeddings(project_id, services.encoder_id())[0]) != len(tasks):
            raise RuntimeError("expected all photos to be embedded: see the log for what was wrong with them")
        return seconds

    def milliseconds(self, ways: Mapping[str, Callable[[], float]], naive: NaivePredictor) -> dict[str, Any]:
        """Milliseconds per photo of each way and of the usual one, measured in turns: medians, and their ratios.

        Args:
            ways: name -> a call that processes all photos, and returns how many seconds it took.
            naive: the usual way.

        Returns:
            `ms_per_photo` of the first way, and of others with their name before it; `NAME_ratio`, how many times as
            long the usual way takes; and `limit_share`, the time in which products of matrices would do as many
            operations as the network, as a share of the first way's time.
        """
        turns: dict[str, Callable[[], float]] = {
            "product": _matrix_product_s,
            **ways,
            "naive": lambda: naive.seconds(self.fetched_urls),
        }
        for turn in turns.values():
            turn()
        taken: dict[str, list[float]] = {name: [] for name in turns}
        for _ in range(self.rounds):
            for name, turn in turns.items():
                taken[name].append(turn())
        count = len(self.source.urls)
        each = {name: 1000 * statistics.median(seconds) / count for name, seconds in taken.items() if name != "product"}
        speed = 2 * _MATRIX**3 / min(taken["product"])  # operations a second: a limit is the best of all
        first = next(iter(ways))
        return {
            "backbone": self.backbone,
            "views": "+".join(map(str, self.views)),
            "photos": count,
            "ms_per_photo": round(each[first], 2),
            **{f"{name}_ms_per_photo": round(ms, 2) for name, ms in each.items() if name != first},
            **{f"{name}_ratio": round(each["naive"] / each[name], 2) for name in ways},
            "gflop_per_photo": round(naive.operations / 1e9, 2),
            "sgemm_gflop_per_s": round(speed / 1e9),
            "limit_share": round(1000 * naive.operations / speed / each[first], 2),
        }


def _matrix_product_s() -> float:
    """Seconds of a product of two matrices in single precision, on all cores."""
    matrix = np.ones((_MATRIX, _MATRIX), np.float32)
    began = time.perf_counter()
    matrix @ matrix
    return time.perf_counter() - began
