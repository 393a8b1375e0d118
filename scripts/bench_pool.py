"""Cost of a turn by the size of the pool: a store of made-up photos, and a stand-in that answers as Label Studio does.

Each turn runs in a process of its own, as a worker's jobs do, after a few new labels. Label Studio's time is left out.
"""

import importlib
import itertools
import math
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
from sqlalchemy import func, insert, select

from backend.label_studio.client import (
    Annotation,
    LabelStudioApi,
    LabelStudioTask,
    PredictionDraft,
    ProjectInfo,
    StoredPrediction,
)
from backend.loop.turn import Loop
from backend.services import Services
from carcond.arrays import FloatArray, IntArray
from carcond.data.split import HOLDOUT, TRAIN
from carcond.model.encoder import encoders_dir
from carcond.model.encoder_card import ONNX_NAME
from carcond.settings import Settings
from carcond.store.store import Store
from carcond.store.tables import AnnotationRow, Embedding, Photo, PoolChange, PredictionRow
from carcond.taxonomy import CLEANLINESS, DAMAGE

_PROJECT, _ENCODER, _VERSION = 1, "made-up", "carcond-0001"
_CONFIG = (
    '<View><Image name="image" value="$image"/>'
    + "".join(
        f'<Choices name="{task.key}" toName="image">'
        + "".join(f'<Choice value="{each.en}"/>' for each in task.classes)
        + "</Choices>"
        for task in (CLEANLINESS, DAMAGE)
    )
    + "</View>"
)
_BEGAN = datetime(2026, 1, 1, tzinfo=UTC)
_NEW_LABELS = 5
_PRELOADED = ("imagehash", "scipy.optimize", "sklearn.cluster", "sklearn.linear_model", "sklearn.metrics")
_PART = 5_000
_STAGES = ("read", "embed", "refit", "rank", "publish", "prune")


class StandIn(LabelStudioApi):
    """Answers as a Label Studio with the tasks that a store mirrors, at once, and counts the requests."""

    def __init__(self, store: Store, model_version: str) -> None:
        self.requests = 0
        self.model_version = model_version
        self._store = store
        self._labelled = store.labelled_count(_PROJECT)
        self._predictions = store.prediction_count(_PROJECT)
        self._photos = store.photo_count(_PROJECT)
        self._new_ids = itertools.count(1 + self._greatest_id())
        self._clock = itertools.count(int(time.time() - _BEGAN.timestamp()))
        self._changed: dict[int, LabelStudioTask] = {}

    def _greatest_id(self) -> int:
        with self._store.session() as session:
            return session.scalar(select(func.max(PredictionRow.prediction_id))) or 0

    def _now(self) -> str:
        return (_BEGAN + timedelta(seconds=next(self._clock))).isoformat().replace("+00:00", "Z")

    def label(self, task_ids: Sequence[int], generator: np.random.Generator) -> None:
        """Label tasks, as a person does."""
        for task_id in task_ids:
            now = self._now()
            result = [
                {
                    "from_name": task.key,
                    "to_name": "image",
                    "type": "choices",
                    "value": {"choices": [task.classes[int(generator.integers(len(task.classes)))].en]},
                }
                for task in (CLEANLINESS, DAMAGE)
            ]
            annotation = Annotation(10_000_000 + task_id, 1, cancelled=False, updated_at=now, result=result)
            self._touch(task_id, now, annotations=(annotation,))
            self._labelled += 1

    def _touch(self, task_id: int, now: str, **changes: Any) -> None:
        before = self._changed.get(task_id)
        predictions = tuple(
            StoredPrediction(row.prediction_id, row.task_id, row.model_version, row.score, row.slot)
            for row in self._store.predictions_of(_PROJECT, [task_id])
        )
        kept = {"annotations": before.annotations if before else (), "predictions": predictions}
        self._changed[task_id] = LabelStudioTask(task_id, {"image": _url(task_id)}, now, **(kept | changes))

    def project(self, project_id: int) -> ProjectInfo:
        """The counts of the store."""
        self.requests += 1
        return ProjectInfo(
            id=project_id,
            title="made up",
            label_config=_CONFIG,
            model_version=self.model_version,
            sampling="Uncertainty sampling",
            task_count=self._photos,
            prediction_count=self._predictions,
            labelled_count=self._labelled,
            raw={},
        )

    def update_project(self, project_id: int, **changes: Any) -> None:
        """Keep the served version."""
        self.requests += 1
        self.model_version = changes["model_version"]

    def tasks(
        self,
        project_id: int,
        changed_since: str | None = None,
        on_unreadable: Callable[[int], None] | None = None,
    ) -> Iterator[LabelStudioTask]:
        """Tasks that were labelled since the last time."""
        self.requests += 1
        changed, self._changed = self._changed, {}
        return iter(sorted(changed.values(), key=lambda task: task.id))

    def create_prediction(self, draft: PredictionDraft) -> StoredPrediction:
        """Give it the next number."""
        self._predictions += 1
        return self.update_prediction(next(self._new_ids), draft)

    def update_prediction(self, prediction_id: int, draft: PredictionDraft) -> StoredPrediction:
        """Take it as it is."""
        self.requests += 1
        return StoredPrediction(prediction_id, draft.task_id, draft.model_version, draft.score, draft.slot)

    def set_slot(self, prediction_id: int, slot: int | None) -> StoredPrediction:
        """Change the slot."""
        return self._set(prediction_id, slot=slot)

    def set_version(self, prediction_id: int, model_version: str) -> StoredPrediction:
        """Change the version."""
        return self._set(prediction_id, model_version=model_version)

    def _set(self, prediction_id: int, **changes: Any) -> StoredPrediction:
        self.requests += 1
        with self._store.session() as session:
            row = session.get_one(PredictionRow, (_PROJECT, prediction_id))
            values = {"model_version": row.model_version, "score": row.score, "slot": row.slot} | changes
            return StoredPrediction(prediction_id, row.task_id, **values)


def bench_pool(
    sizes: Sequence[int],
    *,
    dimension: int,
    labels: int,
    turns: int,
    database_url: str,
    say: Callable[[str], None],
) -> dict[str, Any]:
    """Seconds, memory, requests and photos read of a turn, by the size of the pool.

    Args:
        sizes: numbers of photos, ascending.
        dimension: of the embeddings.
        labels: number of labels before the first turn.
        turns: number of measured turns of each size, of which the median counts.
        database_url: of an empty PostgreSQL database; empty for SQLite in a temporary folder. One size only.
        say: receives the progress.

    Returns:
        `rows`: figures by size, `first_s` those of a turn that finds no files; `exponents`: growth of the seconds from
        one size to the next, 1 for linear growth.
    """
    rows = []
    for photos in sizes:
        with tempfile.TemporaryDirectory(prefix="carcond-bench-") as folder:
            url = database_url or f"sqlite:///{folder}/carcond.sqlite3"
            settings = Settings(database_url=url, models_dir=Path(folder) / "models")
            began = time.perf_counter()
            _fill(settings, photos, dimension, labels)
            say(f"{photos} photos written in {time.perf_counter() - began:.0f} s")
            first = _in_own_process(_measured_turn, settings, 0)
            say(f"first turn: {first}")
            later = [_in_own_process(_measured_turn, settings, number) for number in range(1, turns + 1)]
            say(f"further turns: {later}")
            median = {name: statistics.median(each[name] for each in later) for name in later[0]}
            rows.append({"photos": photos, "first_s": first["total_s"], "first_mb": first["peak_mb"], **median})
    return {"rows": rows, "exponents": [_growth(*pair) for pair in itertools.pairwise(rows)]}


def _growth(small: dict[str, Any], large: dict[str, Any]) -> dict[str, Any]:
    ratio = math.log(large["photos"] / small["photos"])
    names = [name for name in small if name.endswith("_s") and small[name] > 0 and large[name] > 0]
    return {"from": small["photos"], "to": large["photos"]} | {
        name: round(math.log(large[name] / small[name]) / ratio, 2) for name in names
    }


def _in_own_process(function: Callable[..., dict[str, float]], *arguments: object) -> dict[str, float]:
    with multiprocessing.get_context("spawn").Pool(1) as process:
        return process.apply(function, arguments)


def _measured_turn(settings: Settings, number: int) -> dict[str, float]:
    services = Services(settings)
    version = services.registry(_PROJECT).current()
    api = StandIn(services.store, version.name if version else _VERSION)
    services.api = api
    loop = Loop(services, _PROJECT, lambda *_: None)
    generator = np.random.default_rng(number)
    labelled = {row.task_id for row in services.store.annotations(_PROJECT)}
    picked = generator.choice(services.store.photo_count(_PROJECT), len(labelled) + _NEW_LABELS, replace=False) + 1
    api.label([task_id for task_id in picked.tolist() if task_id not in labelled][:_NEW_LABELS], generator)
    for module in _PRELOADED:  # a worker has them before its first job
        importlib.import_module(module)
    began, began_cpu = time.perf_counter(), time.process_time()
    report = loop.turn()
    total, cpu = time.perf_counter() - began, time.process_time() - began_cpu
    stages = {f"{stage}_s": report.seconds[stage] for stage in _STAGES}
    figures = {"total_s": round(total, 3), "without_refit_s": round(total - report.seconds["refit"], 3), **stages}
    return figures | {"cpu_s": round(cpu, 3), "peak_mb": _peak_mb(), "requests": api.requests}


def _peak_mb() -> int:
    """Greatest memory of this process. Not the system's count for its parent, which holds before it has begun."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.partition("VmHWM:")[2].split()[0]) // 1024


def _fill(settings: Settings, photos: int, dimension: int, labels: int) -> None:
    """Write a store as turns leave it: all photos embedded, in groups and in the split, and predicted."""
    folder = encoders_dir(settings.models_dir) / _ENCODER
    folder.mkdir(parents=True)
    (folder / ONNX_NAME).touch()
    (folder.parent / "current").write_text(f"{_ENCODER}\n", encoding="utf-8")
    store = Store(settings.database_url)
    store.add_project(_PROJECT)
    store.mark_read(_PROJECT, _BEGAN.isoformat().replace("+00:00", "Z"), _CONFIG)
    generator = np.random.default_rng(0)
    directions = generator.standard_normal((6, dimension), dtype=np.float32)
    noise = generator.standard_normal((min(photos, _PART), dimension), dtype=np.float32)
    for start in range(0, photos, _PART):
        ids = np.arange(start + 1, min(start + _PART, photos) + 1)
        kinds = generator.integers(6, size=len(ids))
        vectors = noise[generator.permutation(len(noise))[: len(ids)]] + 0.2 * directions[kinds]
        _write_part(store, ids, kinds, np.maximum(vectors, 0), generator, labels)
    with store.session() as session:
        session.add(PoolChange(project_id=_PROJECT, number=1))
    store.close()


def _write_part(
    store: Store,
    ids: IntArray,
    kinds: IntArray,
    vectors: FloatArray,
    generator: np.random.Generator,
    labels: int,
) -> None:
    packed = [half.tobytes() for half in vectors.astype("<f2")]
    scores: list[float] = generator.random(len(ids)).tolist()
    rows: dict[type[Photo | Embedding | AnnotationRow | PredictionRow], list[dict[str, Any]]] = {
        Photo: [],
        Embedding: [],
        AnnotationRow: [],
        PredictionRow: [],
    }
    for task_id, kind, vector, score in zip(ids.tolist(), kinds.tolist(), packed, scores, strict=True):
        of_task = {"project_id": _PROJECT, "task_id": task_id}
        held = task_id % 10 == 0
        rows[Photo].append(
            of_task
            | {
                "url": _url(task_id),
                "phash": f"{int(generator.integers(2**63)):016x}",
                "group": task_id,
                "side": HOLDOUT if held else TRAIN,
                "drawn": held,
                "failures": 0,
                "retry_at": 0.0,
                "gone": False,
                "change": 1,
            }
        )
        rows[Embedding].append(of_task | {"encoder_id": _ENCODER, "vector": vector})
        prediction = {"model_version": _VERSION, "score": round(score, 6), "slot": 0 if held else 1 + task_id % 9}
        rows[PredictionRow].append(of_task | {"prediction_id": task_id} | prediction)
        if task_id <= labels:
            classes = {
                CLEANLINESS.key: CLEANLINESS.class_keys[kind % 3],
                DAMAGE.key: DAMAGE.class_keys[kind // 3],
            }
            at = (_BEGAN - timedelta(days=2)).isoformat().replace("+00:00", "Z")
            annotation = {"annotation_id": task_id, "annotator": 1, "updated_at": at, "cancelled": False}
            rows[AnnotationRow].append(of_task | annotation | {"classes": classes})
    with store.session() as session:
        for table, values in rows.items():
            if values:
                session.execute(insert(table), values)


def _url(task_id: int) -> str:
    return f"/data/upload/1/{task_id:08d}.jpg"
