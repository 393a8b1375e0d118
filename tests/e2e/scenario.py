"""One project in the real Label Studio, with drawn photos and an oracle that knows their classes."""

import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from backend.label_studio.client import LabelStudioApi, LabelStudioTask
from backend.loop.predictions import is_blank
from carcond.data.split import HOLDOUT, photo_draw
from carcond.data.synthetic_photos import draw_samples
from carcond.registry.registry import Registry, Version
from carcond.store.store import Store
from carcond.store.tables import Photo
from scripts.oracle import Labelled, Oracle, read_truth
from scripts.stack import Stack

PATIENCE_S = 300.0


def wait_until(is_done: Callable[[], bool], what: str, patience_s: float = PATIENCE_S) -> None:
    """Poll; fail with words when it takes too long."""
    deadline = time.monotonic() + patience_s
    while not is_done():
        assert time.monotonic() < deadline, f"waited {patience_s:.0f} s for {what}"
        time.sleep(0.5)  # each look costs Label Studio a page of tasks


@dataclass(frozen=True)
class ServedTask:
    """A task as it was served: the project's version and the slots of its predictions at that moment."""

    labelled: Labelled
    project_version: str
    slots: tuple[int | None, ...]


class Scenario:
    """Drives one project as an annotator would."""

    def __init__(self, stack: Stack, title: str, folder: Path, photos: int, label_config: str | None = None) -> None:
        draw_samples(folder, photos, seed=7, labels=True)
        self.stack = stack
        self.api: LabelStudioApi = stack.api()
        project_id = None
        if label_config:
            made = self.api.request("POST", "/api/projects/", json={"title": title, "label_config": label_config})
            project_id = int(made["id"])
        self.project_id = stack.provision(title, project_id).project_id
        stack.import_photos(self.project_id, folder)
        self.registry = Registry(Path(stack.environment["CARCOND_MODELS_DIR"]), self.project_id)
        self.oracle = Oracle(self.api, self.project_id, read_truth(folder / "labels.csv"))
        self.served: list[ServedTask] = []

    def model_version(self) -> str:
        """The version that Label Studio serves."""
        return self.api.project(self.project_id).model_version

    def tasks(self) -> list[LabelStudioTask]:
        """All tasks with annotations and predictions."""
        return list(self.api.tasks(self.project_id))

    def task(self, task_id: int) -> LabelStudioTask:
        """One task."""
        return next(task for task in self.tasks() if task.id == task_id)

    def predictions(self, task_id: int) -> list[dict[str, Any]]:
        """The predictions that Label Studio holds of a task."""
        return list(self.api.request("GET", "/api/predictions/", params={"task": task_id}))

    def prediction(self, task_id: int) -> dict[str, Any]:
        """The prediction of the served version that Label Studio holds of a task."""
        version = self.model_version()
        (prediction,) = [each for each in self.predictions(task_id) if each["model_version"] == version]
        return prediction

    def label_next(self) -> ServedTask:
        """Label the served task, and note how it was served."""
        version = self.model_version()
        done = self.oracle.label_next()
        assert done is not None, "expected a task to be served, but Label Studio has none left"
        slots = tuple(p["cluster"] for p in self.predictions(done.task_id))
        self.served.append(ServedTask(done, version, slots))
        return self.served[-1]

    def version(self) -> Version:
        """The serving version."""
        version = self.registry.current()
        assert version is not None
        return version

    def labels_in_version(self) -> dict[int, dict[str, Any]]:
        """Task id -> row of the serving version's labels; empty before the first version."""
        version = self.registry.current()
        return {row["task"]: row for row in self.registry.labels(version.number)} if version else {}

    def labels_in_label_studio(self) -> set[int]:
        """Tasks with an annotation that was not skipped."""
        return {task.id for task in self.tasks() if any(not a.cancelled for a in task.annotations)}

    def carcond(self, *arguments: str) -> str:
        """What a command of `carcond` prints when it runs beside the stack."""
        command = [str(Path(sys.executable).with_name("carcond")), *arguments]
        return subprocess.run(
            command, env=self.stack.environment, stdout=subprocess.PIPE, text=True, check=True, timeout=120
        ).stdout

    def version_told_by_backend(self) -> str:
        """The version that the backend's web processes say they serve."""
        address = self.stack.backend_address
        body = {"project": f"{self.project_id}.1795378294", "schema": "", "hostname": ""}
        answer = httpx.post(f"{address.url}/setup", json=body, auth=(address.user, address.password), timeout=30)
        answer.raise_for_status()
        return str(answer.json()["model_version"])

    def wait_until_learned(self) -> None:
        """Wait until the served version knows exactly the labels that Label Studio has."""
        wait_until(
            lambda: (
                self.labels_in_version().keys() == self.labels_in_label_studio()
                and self.model_version() == self.version().name
            ),
            "all labels to be learned and served",
        )

    def wait_until_quiet(self) -> None:
        """Wait until every unlabelled task has the served version's prediction."""
        self.wait_until_learned()
        wait_until(lambda: not self.stale_tasks(), "all pre-labels to be of the served version")

    def stale_tasks(self) -> list[int]:
        """Unlabelled tasks without exactly one prediction of the served version, or with predictions of two slots."""
        version = self.model_version()
        return [
            task.id
            for task in self.tasks()
            if not task.annotations
            and (
                [p.slot is None for p in task.predictions if p.model_version == version] != [False]
                or len({p.slot for p in task.predictions}) > 1
            )
        ]

    def opens_blank(self, task_id: int) -> bool:
        """True if no answer is chosen for a photo: it is held out, or one of the few others."""
        return is_blank(self.sides()[task_id] == HOLDOUT, photo_draw(self.project_id, task_id))

    def prelabels(self, task_id: int) -> dict[str, Any]:
        """The pre-labels that the only annotation of a task was made on, from the store."""
        store = Store(self.stack.environment["DATABASE_URL"])
        try:
            (row,) = [each for each in store.annotations(self.project_id) if each.task_id == task_id]
            return row.prelabels or {}
        finally:
            store.close()

    def sides(self) -> dict[int, str | None]:
        """Task id -> side of the split, from the store."""
        store = Store(self.stack.environment["DATABASE_URL"])
        try:
            photos: list[Photo] = store.photos(self.project_id)
            return {photo.task_id: photo.side for photo in photos}
        finally:
            store.close()
