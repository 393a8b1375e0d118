"""The loop, driven by an oracle on a real stack: learning curve, its replay, and waiting time of annotators."""

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from redis import Redis

from backend.jobs.turn_log import Turns, read_turns
from backend.label_studio.client import LabelStudioApi
from backend.loop.predictions import queue_settings
from carcond.analysis.replay_set import ReplayDataset
from carcond.arrays import UNKNOWN
from carcond.data.label_table import TaskLabels
from carcond.registry.registry import Registry
from carcond.settings import Settings
from carcond.store.store import Store
from carcond.taxonomy import TASKS
from scripts.loop_replay import compare, measure_heads, replay_curves
from scripts.oracle import TEST, Labelled, Oracle, Truth, file_of_task, read_truth
from scripts.preflight import StackError
from scripts.stack import Stack

_PATIENCE_S = 300.0
_POLL_S = 0.05


def bench_loop(
    stack: Stack, photos: Path, labels: Path, *, count: int, every: int, replays: int, say: Callable[[str], None]
) -> dict[str, Any]:
    """Label `count` photos in the order served; see the keys of the returned JSON in README.

    Photos of the test split are in the pool like all others; when one is served the oracle skips it.

    Args:
        stack: a running stack.
        photos: folder of the pool.
        labels: CSV of the true classes.
        count: number of photos to label.
        every: number of labels between two measurements.
        replays: number of replays of the service to compare it with.
        say: progress callback.
    """
    truth = read_truth(labels)
    project_id = stack.provision("bench").project_id
    imported = stack.import_photos(project_id, photos)
    say(f"{imported} photos imported; embedding them")
    bench = LoopBench(stack, project_id, truth)
    bench.wait_until_embedded(imported)
    curve = []
    waits: list[float] = []
    stages: list[Mapping[str, float]] = []
    labelled = skipped = 0
    while labelled < count and (done := bench.oracle.label_next()):
        if done.skipped:
            skipped += 1
            continue
        labelled += 1
        wait = bench.wait_for_order(done)
        if wait is not None:
            waits.append(wait)
            stages.append(split_wait(wait, bench.turn_seconds))
        if labelled % every == 0 or labelled == count:
            point = bench.measure(labelled)
            say(f"{point}")
            curve.append(point)
    return {
        "curve": curve,
        "submit_to_order_s": {
            "median": round(float(np.median(waits)), 3),
            "p95": round(float(np.quantile(waits, 0.95)), 3),
        },
        "stages_s": median_stages(stages),
        "events": labelled + skipped,
        "skipped": skipped,
        **bench.accounts(),
        "photos": imported,
        "encoder": bench.encoder_id,
        "replay": bench.compare(curve, replays, say) if replays else [],
    }


def split_wait(wait: float, turn_seconds: Mapping[str, float]) -> dict[str, float]:
    """Split a wait for the order, in seconds, into the stages of the turn and the time until it began."""
    return {"until the turn": round(wait - sum(turn_seconds.values()), 3), **turn_seconds}


def median_stages(waits: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Median duration of each stage, in seconds; empty without a wait."""
    names = waits[0] if waits else ()
    return {name: round(float(np.median([wait[name] for wait in waits])), 3) for name in names}


class LoopBench:
    """Labels one photo after the other, and waits for the order of a model that knows each."""

    def __init__(self, stack: Stack, project_id: int, truth: Mapping[str, Truth]) -> None:
        environment = stack.environment
        self._models_dir = Path(environment["CARCOND_MODELS_DIR"])
        self._project_id = project_id
        self._truth = truth
        self._api: LabelStudioApi = stack.api()
        self._store = Store(environment["DATABASE_URL"])
        self._registry = Registry(self._models_dir, project_id)
        self.oracle = Oracle(self._api, project_id, truth)
        self.encoder_id = (self._models_dir / "encoders" / "current").read_text(encoding="utf-8").strip()
        self._redis = Redis.from_url(stack.redis_url)
        self._turn = Turns(0, 0.0, {})
        self._dataset: ReplayDataset | None = None

    def wait_until_embedded(self, photos: int) -> None:
        """Wait until every photo has an embedding and the first queue is served."""
        wait_for(
            lambda: (
                len(self._store.embeddings(self._project_id, self.encoder_id)[0]) == photos
                and self._api.project(self._project_id).model_version.startswith("carcond-")
            ),
            "the photos to be embedded",
            patience_s=_PATIENCE_S + photos,
        )

    def wait_for_order(self, done: Labelled) -> float | None:
        """Seconds from the submit until the order of a model fitted with the label is served.

        None while too few classes are labelled for a first version.
        """
        if self._registry.current() is None and not self._classes_seen():
            return None
        wait_for(lambda: self._serves_label(done.task_id), f"the label of task {done.task_id} to be learned")
        return time.monotonic() - done.submitted_at

    def _serves_label(self, task_id: int) -> bool:
        # Label Studio is asked once a turn: asked all the time, it would be busy with that while it is written to.
        turn = read_turns(self._redis).get(self._project_id, self._turn)
        if turn == self._turn:
            return False
        self._turn = turn
        version = self._registry.current()
        if version is None or not any(row["task"] == task_id for row in self._registry.labels(version.number)):
            return False
        project = self._api.project(self._project_id)
        return project.model_version == version.name

    @property
    def turn_seconds(self) -> Mapping[str, float]:
        """Stage -> its duration in the turn that was waited for."""
        return self._turn.seconds

    def _classes_seen(self) -> list[str]:
        """Tasks with two labelled classes outside the hold-out."""
        stated: dict[str, set[str]] = {}
        sides = {photo.task_id: photo.side for photo in self._store.photos(self._project_id)}
        for row in self._store.annotations(self._project_id):
            for task, class_key in row.classes.items():
                if sides.get(row.task_id) != "holdout":
                    stated.setdefault(task, set()).add(class_key)
        return [task for task, classes in stated.items() if len(classes) > 1]

    def measure(self, labels: int) -> dict[str, Any]:
        """Accuracy and macro-F1 of the serving version on the test split."""
        version = self._registry.current()
        point: dict[str, Any] = {"labels": labels}
        if version is not None:
            for task, figures in measure_heads(version.heads, self._photo_set()).items():
                # A test split of one class has no macro-F1.
                point[task] = {name: value and round(value, 4) for name, value in figures.items()}
        return point

    def compare(
        self, curve: Sequence[Mapping[str, Any]], replays: int, say: Callable[[str], None]
    ) -> list[dict[str, Any]]:
        """The service's curve beside replays on the photos outside the test split."""
        counts = [int(point["labels"]) for point in curve]
        queue = queue_settings(Settings())
        return compare(curve, replay_curves(self._photo_set(), counts, seeds=replays, queue=queue, say=say))

    def _photo_set(self) -> ReplayDataset:
        """Embeddings, true classes and groups of all photos, from the store."""
        if self._dataset is None:
            photos = {photo.task_id: photo for photo in self._store.photos(self._project_id)}
            task_ids, embeddings = self._store.embeddings(self._project_id, self.encoder_id)
            rows = [photos[task_id] for task_id in task_ids.tolist()]
            truths = [self._truth[file_of_task({"image": photo.url}, "image")] for photo in rows]
            labels = {
                task.key: TaskLabels(
                    task,
                    np.array(
                        [
                            task.class_keys.index(truth.classes[task.key]) if task.key in truth.classes else UNKNOWN
                            for truth in truths
                        ],
                        dtype=np.int64,
                    ),
                )
                for task in TASKS
                if any(task.key in truth.classes for truth in truths)
            }
            groups = np.array([photo.group for photo in rows], dtype=np.int64)
            test = np.array([truth.split == TEST for truth in truths], dtype=np.bool_)
            self._dataset = ReplayDataset(embeddings, labels, groups, test)
        return self._dataset

    def accounts(self) -> dict[str, int]:
        """Number of labels in Label Studio, and of those that the serving version was fitted or measured on."""
        raw = self._api.project(self._project_id).raw
        version = self._registry.current()
        return {
            "labels_in_label_studio": int(raw["num_tasks_with_annotations"]),
            "labels_trained_or_held": version.card.labels.used if version else 0,
        }


def wait_for(is_done: Callable[[], bool], what: str, patience_s: float = _PATIENCE_S) -> None:
    """Wait until something is done.

    Raises:
        StackError: it is not within `patience_s` seconds.
    """
    deadline = time.monotonic() + patience_s
    while not is_done():
        if time.monotonic() > deadline:
            raise StackError(f"waited {patience_s:.0f} s for {what}; see the stack's logs")
        time.sleep(_POLL_S)
