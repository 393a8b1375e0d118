"""A Label Studio of many tasks on a real stack: what a turn costs there, and where Label Studio itself is the limit."""

import secrets
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from redis import Redis

from backend.jobs.turn_log import Turns, read_turns
from carcond.data.synthetic_photos import draw_samples
from carcond.registry.registry import Registry
from carcond.store.store import Store
from scripts.bench_load import import_again
from scripts.bench_loop import LoopBench, wait_for
from scripts.oracle import read_truth
from scripts.preflight import StackError
from scripts.process_use import measured_processes
from scripts.stack import Stack

_PHOTOS = 60
_PATIENCE_S = 3600.0
_CHUNK = 1000
_COUNTING_S = 20.0
# Of the noise that makes one embedding out of another, as a share of the embeddings' own spread.
_NOISE = 0.3


def bench_scale(stack: Stack, *, tasks: int, labels: int, say: Callable[[str], None]) -> dict[str, Any]:
    """Seconds and memory of turns with many tasks; see docs/scaling.md.

    All tasks show one of a few drawn cars. Embedding them is measured by `bench.py embed`; here the store is filled
    with embeddings of those cars, each with a noise of its own.

    Args:
        stack: a running stack.
        tasks: number of tasks.
        labels: number of labels made one by one.
        say: progress callback.
    """
    with tempfile.TemporaryDirectory(prefix="carcond-bench-") as folder:
        photos = Path(folder)
        draw_samples(photos, _PHOTOS, seed=0, labels=True)
        project_id = stack.provision("scale").project_id
        stack.import_photos(project_id, photos)
        bench = LoopBench(stack, project_id, read_truth(photos / "labels.csv"))
        bench.oracle.label_until_versioned()
        scale = _Scale(stack, project_id, bench)
        report: dict[str, Any] = {
            "tasks": tasks,
            "import_s": _seconds(lambda: import_again(stack, project_id, tasks - _PHOTOS)),
        }
        say(f"imported after {report['import_s']} s")
        report["read_s"] = _seconds(lambda: scale.wait_until_read(tasks))
        say(f"read after another {report['read_s']} s")
        report["fill_s"] = _seconds(scale.fill)
        with measured_processes(stack) as uses:
            report["first_queue_s"] = _seconds(scale.wait_until_queued)
            say(f"first queue after {report['first_queue_s']} s")
            rows = [scale.label() for _ in range(labels)]
            report["predictions_a_second"] = scale.predictions_a_second()
        report["memory_mb"] = {server: round(max(use[1] for use in rows)) for server, rows in uses.items()}
        report["median_s"] = {key: round(float(np.median([row[key] for row in rows])), 3) for key in rows[-1]}
        report["p95_s"] = {key: round(float(np.quantile([row[key] for row in rows], 0.95)), 3) for key in rows[-1]}
        return report


class _Scale:
    def __init__(self, stack: Stack, project_id: int, bench: LoopBench) -> None:
        environment = stack.environment
        self._project_id = project_id
        self._bench = bench
        self._redis_url = stack.redis_url
        self._store = Store(environment["DATABASE_URL"])
        self._registry = Registry(Path(environment["CARCOND_MODELS_DIR"]), project_id)

    @property
    def _encoder_id(self) -> str:
        version = self._registry.current()
        if version is None:
            raise StackError("expected a serving version; see the stack's logs")
        return version.heads.encoder_id

    def wait_until_read(self, tasks: int) -> None:
        """Wait until the store has all tasks."""
        wait_for(lambda: self._store.photo_count(self._project_id) >= tasks, "the tasks to be read", _PATIENCE_S)

    def fill(self) -> None:
        """Give every photo without an embedding one, and a hash of its own, so that it is nobody's near-duplicate."""
        task_ids, embeddings = self._store.embeddings(self._project_id, self._encoder_id)
        spread = _NOISE * embeddings.std(axis=0)
        generator = np.random.default_rng(0)
        known = set(task_ids.tolist())
        missing = [photo.task_id for photo in self._store.photos(self._project_id) if photo.task_id not in known]
        for start in range(0, len(missing), _CHUNK):
            chunk = missing[start : start + _CHUNK]
            facts = {"width": 640, "height": 480, "sharpness": 100.0, "brightness": 0.5}
            self._store.update_photos(
                self._project_id, [{"task_id": each, "phash": secrets.token_hex(8), **facts} for each in chunk]
            )
            rows = embeddings[generator.integers(len(embeddings), size=len(chunk))]
            noisy = (rows + spread * generator.standard_normal(rows.shape)).astype(np.float32)
            self._store.put_embeddings(self._project_id, self._encoder_id, dict(zip(chunk, noisy, strict=True)))

    def wait_until_queued(self) -> None:
        """Wait for a turn that began after the store was filled."""
        began = time.time()
        wait_for(lambda: self._last_turn_began() > began, "a turn over all photos", _PATIENCE_S)

    def label(self) -> dict[str, float]:
        """Label one photo, and wait for the order of a version that knows it: seconds of all stages."""
        asked = time.monotonic()
        done = self._bench.oracle.label_next()
        if done is None:
            raise StackError("expected a task to label, and there is none")
        served = time.monotonic() - asked
        wait = self._bench.wait_for_order(done) or 0.0
        return {"serve_and_submit": served, "submit_to_order": wait, **self._bench.turn_seconds}

    def predictions_a_second(self) -> float:
        """New predictions a second while nobody labels."""
        before = self._store.prediction_count(self._project_id)
        time.sleep(_COUNTING_S)
        return round((self._store.prediction_count(self._project_id) - before) / _COUNTING_S, 1)

    def _last_turn(self) -> Turns:
        with Redis.from_url(self._redis_url) as redis:
            return read_turns(redis)[self._project_id]

    def _last_turn_began(self) -> float:
        turn = self._last_turn()
        return turn.ended - sum(turn.seconds.values())


def _seconds(work: Callable[[], None]) -> float:
    began = time.monotonic()
    work()
    return round(time.monotonic() - began, 1)
