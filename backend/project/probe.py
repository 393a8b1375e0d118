"""End-to-end probe: a made-up photo goes the way of every photo, in a project of its own, and is removed.

The first probe makes the project with a handful of labelled drawings, so that it has a version, and one without a label
(the witness), whose pre-label shows that a new order was published. They stay; each probe adds one photo.
"""

import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from backend.label_studio.answers import read_id, read_object, read_objects, read_text
from backend.label_studio.backend_address import BackendAddress
from backend.label_studio.client import LabelStudioApi, UploadedPhoto
from backend.label_studio.label_config import bind_label_config
from backend.label_studio.provision import provision
from backend.services import Services
from carcond.data.synthetic_photos import draw_picture
from carcond.errors import CarcondError, ProbeError, RegistryError
from carcond.registry.registry import PROBE_MARK, Registry, is_ours
from carcond.taxonomy import CLEANLINESS, DAMAGE

PROBE_TITLE = "carcond probe"
# By it a project is known as ours to remove: people may choose any title.
_DESCRIPTION = "Made by carcond probe; carcond probe --remove removes it."
_LABELLED = 6  # each cleanliness twice, each damage three times
_PATIENCE_S = 120.0
_POLL_S = 0.5


@dataclass
class ProbeReport:
    """Steps of a probe.

    Attributes:
        project_id: of the probe's project; 0 until it is known.
        seconds: step -> its duration, for the steps that were done.
        failed: the step that was not done; empty when all were.
        problem: one sentence on why.
    """

    project_id: int = 0
    seconds: dict[str, float] = field(default_factory=dict)
    failed: str = ""
    problem: str = ""

    def facts(self) -> dict[str, Any]:
        """JSON-ready."""
        problem = {"failed": self.failed, "problem": self.problem} if self.failed else {}
        return {"ok": not self.failed, "project": self.project_id, "seconds": self.seconds, **problem}


class Probe:
    """One probe. Only one may run at a time: it removes what an interrupted one has left."""

    def __init__(self, services: Services, backend: BackendAddress, patience_s: float = _PATIENCE_S) -> None:
        self._services = services
        self._api: LabelStudioApi = services.api
        self._backend = backend
        self._patience_s = patience_s
        self._rng = np.random.default_rng()

    def run(self) -> ProbeReport:
        """Take all steps: project, photo, pre-label, label, order, removal. The photo is removed in any case."""
        report = ProbeReport()
        with suppress(CarcondError):  # it is in the report
            with _step(report, "project"):
                report.project_id, witness = self._prepare()
            with _step(report, "photo"):
                classes = self._classes(int(self._rng.integers(_LABELLED)))
                photo = self._upload(report.project_id, classes)
            try:
                self._follow(report, photo, classes, witness)
            finally:
                with _step(report, "removal"):
                    self._api.delete_upload(photo)
        return report

    def _follow(self, report: ProbeReport, photo: UploadedPhoto, classes: Mapping[str, str], witness: int) -> None:
        project_id = report.project_id
        with _step(report, "pre-label"):
            self._await(lambda: bool(self._versions(photo.task_id)), "Label Studio has no pre-label of the photo")
        with _step(report, "label"):
            self._label(project_id, photo.task_id, classes)
            self._await(lambda: photo.task_id in self._learnt(project_id), "no version has learnt the photo's label")
        with _step(report, "order"):
            self._await(lambda: self._is_published(project_id, witness), "no order of the new version is published")

    def _prepare(self) -> tuple[int, int]:
        """Find or make the project with its labelled photos and a first version. Returns its id and the witness."""
        project_id = find_project(self._api) or _make_project(self._api)
        provision(self._api, self._backend, PROBE_TITLE, project_id)
        tasks = list(self._api.tasks(project_id))
        for left in tasks[_LABELLED + 1 :]:
            self._api.request("DELETE", f"/api/tasks/{left.id}/")
        kept = {task.id: bool(task.annotations) for task in tasks[: _LABELLED + 1]}
        for number in range(len(kept), _LABELLED + 1):
            kept[self._upload(project_id, self._classes(number)).task_id] = False
        *labelled, witness = kept
        for number, task_id in enumerate(labelled):
            if not kept[task_id]:
                self._label(project_id, task_id, self._classes(number))
        self._await(
            lambda: self._learnt(project_id) >= set(labelled) and self._is_published(project_id, witness),
            "the project has no first version",
        )
        (self._services.registry(project_id).root / PROBE_MARK).touch()
        return project_id, witness

    @staticmethod
    def _classes(number: int) -> dict[str, str]:
        """Classes of a drawing; each occurs among the first six numbers."""
        return {
            CLEANLINESS.key: CLEANLINESS.class_keys[number % 3],
            DAMAGE.key: DAMAGE.class_keys[number % 2],
        }

    def _upload(self, project_id: int, classes: Mapping[str, str]) -> UploadedPhoto:
        file = BytesIO()
        picture = draw_picture(self._rng, damage=classes[DAMAGE.key], cleanliness=classes[CLEANLINESS.key])
        picture.save(file, "JPEG", quality=88)
        return self._api.upload_photo(project_id, "probe.jpg", file.getvalue())

    def _label(self, project_id: int, task_id: int, classes: Mapping[str, str]) -> None:
        binding = bind_label_config(self._api.project(project_id).label_config)
        result = binding.result({task: (chosen, 1.0) for task, chosen in classes.items()})
        self._api.request("POST", f"/api/tasks/{task_id}/annotations/", json={"result": result})

    def _versions(self, task_id: int) -> set[str]:
        """Our versions whose pre-label of a task Label Studio has."""
        rows = self._api.request("GET", "/api/predictions/", params={"task": task_id})
        names = [read_text(row, "model_version") for row in read_objects(rows, "predictions")]
        return {name for name in names if is_ours(name)}

    def _learnt(self, project_id: int) -> set[int]:
        """Task ids of the newest version's labels; empty before the first version."""
        self._services.pull_models(project_id)
        registry = self._services.registry(project_id)
        with suppress(RegistryError):  # just pruned: the next look finds a newer one
            return {row["task"] for number in registry.numbers()[-1:] for row in registry.labels(number)}
        return set()

    def _is_published(self, project_id: int, witness: int) -> bool:
        """True if the newest version serves or was refused, and the order of the serving one is in Label Studio."""
        registry = self._services.registry(project_id)
        serving, newest = registry.current(), registry.newest()
        return (
            serving is not None
            and newest is not None
            and (newest.number == serving.number or newest.card.is_refused)
            and self._api.project(project_id).model_version == serving.name
            and serving.name in self._versions(witness)
        )

    def _await(self, is_done: Callable[[], bool], problem: str) -> None:
        deadline = time.monotonic() + self._patience_s
        while not is_done():
            if time.monotonic() > deadline:
                raise ProbeError(f"{problem} after {self._patience_s:.0f} s: see carcond doctor and the worker's log")
            time.sleep(_POLL_S)


@contextmanager
def _step(report: ProbeReport, name: str) -> Iterator[None]:
    """Note the duration of a step, or the first failure."""
    began = time.monotonic()
    try:
        yield
    except CarcondError as error:
        if not report.failed:
            report.failed, report.problem = name, str(error)
        raise
    report.seconds[name] = round(time.monotonic() - began, 2)


def find_project(api: LabelStudioApi) -> int | None:
    """Number of the probe's project; None when there is none."""
    reply = api.request("GET", "/api/projects/", params={"title": PROBE_TITLE, "page_size": 100})
    rows = read_objects(read_object(reply, "projects").get("results"), "projects")
    ours = [read_id(row) for row in rows if (row.get("title"), row.get("description")) == (PROBE_TITLE, _DESCRIPTION)]
    return min(ours, default=None)


def _make_project(api: LabelStudioApi) -> int:
    body = {"title": PROBE_TITLE, "description": _DESCRIPTION}
    return read_id(read_object(api.request("POST", "/api/projects/", json=body), "a project"))


def remove_project(api: LabelStudioApi, models_dir: Path) -> int | None:
    """Delete the probe's project from Label Studio, and its versions. Returns its number, None when there was none.

    Raises:
        LabelStudioError: Label Studio refused.
    """
    project_id = find_project(api)
    if project_id is not None:
        api.request("DELETE", f"/api/projects/{project_id}/")
        folder = Registry(models_dir, project_id).root
        if (folder / PROBE_MARK).exists():
            shutil.rmtree(folder)
    return project_id
