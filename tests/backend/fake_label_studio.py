"""An in-memory Label Studio with the requests that the loop makes, as Label Studio 1.23 answers them."""

import itertools
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from backend.label_studio.client import (
    Annotation,
    LabelStudioApi,
    LabelStudioTask,
    PredictionDraft,
    ProjectInfo,
    StoredPrediction,
)
from backend.label_studio.label_config import bind_label_config
from carcond.errors import LabelStudioError
from tests.backend.label_configs import ENGLISH, prediction_errors

PROJECT = 1


@dataclass
class _Task:
    id: int
    data: dict[str, Any]
    updated_at: str
    annotations: dict[int, Annotation] = field(default_factory=dict)
    predictions: dict[int, StoredPrediction] = field(default_factory=dict)
    results: dict[int, list[dict[str, Any]]] = field(default_factory=dict)


class FakeLabelStudio(LabelStudioApi):
    """One project. What people do in the browser are further methods.

    Attributes:
        writes: what was asked to be changed, in order: ("create", task id), ("project", version), ...
        tabs: id -> what is kept of a tab of the Data Manager.
        writes_until_failure: after so many further writes nothing is answered any more; None: never.
    """

    def __init__(self, label_config: str = ENGLISH) -> None:
        self.label_config = label_config
        self.model_version = ""
        self.writes: list[tuple[str, Any]] = []
        self.writes_until_failure: int | None = None
        self.tabs: dict[int, dict[str, Any]] = {}
        self._tasks: dict[int, _Task] = {}
        self._ids = itertools.count(1)
        self._now = datetime(2026, 1, 1, tzinfo=UTC)
        self._lock = threading.RLock()

    # What people do

    def import_photos(self, *urls: str, key: str = "image", **data: Any) -> list[int]:
        ids = []
        for url in urls:
            task = _Task(next(self._ids), {key: url, **data}, self._tick())
            self._tasks[task.id] = task
            ids.append(task.id)
        return ids

    def annotate(self, task_id: int, annotator: int = 1, cancelled: bool = False, **classes: str) -> int:
        """Submit an annotation that states these classes; returns its id."""
        result = bind_label_config(self.label_config).result({task: (c, 1.0) for task, c in classes.items()})
        annotation_id = next(self._ids)
        task = self._tasks[task_id]
        task.updated_at = self._tick()
        task.annotations[annotation_id] = Annotation(annotation_id, annotator, cancelled, task.updated_at, result)
        return annotation_id

    def annotate_page(self, task_id: int, annotator: int = 1, **classes: str) -> int:
        """Submit the page that opened with the served prediction after the answers of these tasks were chosen."""
        binding = bind_label_config(self.label_config)
        shown = {region["id"]: region for region in self.result(task_id) if region["type"] == "choices"}
        result = []
        for region in binding.result({task: (class_key, 0.0) for task, class_key in classes.items()}):
            suggested = shown.get(region["id"])
            # The page keeps id and score of what was suggested; other regions have an id of its own, and no score.
            change = {
                "id": region["id"] if suggested else f"drawn-{region['id']}",
                "score": suggested and suggested["score"],
                "origin": "manual",
            }
            if suggested:
                same = suggested["value"] == region["value"]
                change["origin"] = "prediction" if same else "prediction-changed"
            result.append(region | change)
        annotation_id = self.annotate(task_id, annotator)
        annotations = self._tasks[task_id].annotations
        annotations[annotation_id] = replace(annotations[annotation_id], result=result)
        return annotation_id

    def change_annotation(self, task_id: int, annotation_id: int, **classes: str) -> None:
        task = self._tasks[task_id]
        task.updated_at = self._tick()
        result = bind_label_config(self.label_config).result({key: (c, 1.0) for key, c in classes.items()})
        old = task.annotations[annotation_id]
        task.annotations[annotation_id] = replace(old, result=result, updated_at=task.updated_at)

    def delete_annotation(self, task_id: int, annotation_id: int) -> None:
        task = self._tasks[task_id]
        del task.annotations[annotation_id]
        task.updated_at = self._tick()

    def delete_task(self, task_id: int) -> None:
        del self._tasks[task_id]

    def change_photo(self, task_id: int, url: str) -> None:
        task = self._tasks[task_id]
        task.data, task.updated_at = {"image": url}, self._tick()

    def copy_prediction(self, task_id: int) -> None:
        """Two browsers open a task at once: each asks the backend, and both answers are kept."""
        prediction = self.predictions_of(task_id)[0]
        draft = PredictionDraft(
            task_id,
            self._tasks[task_id].results[prediction.id],
            prediction.score or 0.0,
            prediction.model_version,
            None,
        )
        self._store(self._tasks[task_id], next(self._ids), draft)

    def predict_by_another(self, *task_ids: int, version: str = "other-v3") -> None:
        """Another model's prediction, which is the project's own affair."""
        for task_id in task_ids:
            self._store(self._tasks[task_id], next(self._ids), PredictionDraft(task_id, [], 0.99, version, None))

    def wait(self, seconds: int) -> None:
        """Let time go by."""
        self._now += timedelta(seconds=seconds)

    def delete_predictions_in_bulk(self) -> None:
        """The Data Manager's action, which leaves the tasks' `updated_at` as it is."""
        for task in self._tasks.values():
            task.predictions.clear()

    # What a test asks

    def predictions_of(self, task_id: int) -> list[StoredPrediction]:
        return list(self._tasks[task_id].predictions.values())

    def prediction(self, task_id: int) -> StoredPrediction:
        """The only prediction of a task, or the one of the version that is served."""
        found = self.predictions_of(task_id)
        (prediction,) = found if len(found) == 1 else [p for p in found if p.model_version == self.model_version]
        return prediction

    def result_of(self, prediction: StoredPrediction) -> list[dict[str, Any]]:
        """Regions of one prediction."""
        return self._tasks[prediction.task_id].results[prediction.id]

    def result(self, task_id: int) -> list[dict[str, Any]]:
        """Regions of the only prediction of a task."""
        return self._tasks[task_id].results[self.prediction(task_id).id]

    def words(self, task_id: int) -> dict[str, str]:
        """What the only prediction of a task says: tag -> word."""
        result = self.result(task_id)
        return {region["from_name"]: region["value"]["choices"][0] for region in result}

    def errors(self, task_id: int) -> list[str]:
        """What Label Studio's own validation has to say of the only prediction of a task."""
        prediction = self.prediction(task_id)
        result = self._tasks[task_id].results[prediction.id]
        return prediction_errors(
            self.label_config, {"result": result, "score": prediction.score, "model_version": prediction.model_version}
        )

    def served(self) -> list[int]:
        """Tasks in the order in which uncertainty sampling serves them to one annotator who has not labelled any."""
        waiting = [
            (prediction.score or 0.0, task.id)
            for task in self._tasks.values()
            if not task.annotations
            for prediction in task.predictions.values()
            if prediction.model_version == self.model_version
        ]
        return [task_id for _, task_id in sorted(waiting)]

    def listed(self, title: str) -> list[int]:
        """Tasks that the only tab of a title shows, in its order."""
        (data,) = (data for data in self.tabs.values() if data["title"] == title)
        these, unchanged = data["filters"]["items"]
        assert (these["filter"], these["operator"]) == ("filter:tasks:annotations_ids", "contains")
        assert (unchanged["filter"], unchanged["operator"]) == ("filter:tasks:updated_at", "less")
        assert data["ordering"] == ["-tasks:updated_at"]
        datetime.strptime(unchanged["value"], "%Y-%m-%dT%H:%M:%S.%fZ")  # as Label Studio reads it
        shown = [
            task
            for task in self._tasks.values()
            for annotation_id in task.annotations  # a join: a task comes once for each annotation that is named
            if str(annotation_id) in these["value"].split()
            if _moment(task.updated_at) < _moment(unchanged["value"])
        ]
        return [task.id for task in sorted(shown, key=lambda task: _moment(task.updated_at), reverse=True)]

    # What the loop asks

    def close(self) -> None:
        """Nothing to close."""

    def project(self, project_id: int) -> ProjectInfo:
        self._answer()
        if project_id != PROJECT:
            raise LabelStudioError("no such project", 404)
        return ProjectInfo(
            id=PROJECT,
            title="cars",
            label_config=self.label_config,
            model_version=self.model_version,
            sampling="Uncertainty sampling",
            task_count=len(self._tasks),
            prediction_count=sum(len(task.predictions) for task in self._tasks.values()),
            labelled_count=sum(
                any(not annotation.cancelled for annotation in task.annotations.values())
                for task in self._tasks.values()
            ),
            raw={},
        )

    def update_project(self, project_id: int, **changes: Any) -> None:
        with self._write("project", changes["model_version"]):
            known = {p.model_version for task in self._tasks.values() for p in task.predictions.values()}
            if changes["model_version"] not in {"", self.model_version, *known}:
                raise LabelStudioError("Model version doesn't exist either as live model or as static predictions", 400)
            self.model_version = changes["model_version"]

    def tasks(
        self,
        project_id: int,
        changed_since: str | None = None,
        on_unreadable: Callable[[int], None] | None = None,
    ) -> Iterator[LabelStudioTask]:
        self._answer()
        for task in sorted(self._tasks.values(), key=lambda task: task.id):
            if changed_since is None or _moment(task.updated_at) > _moment(changed_since):
                annotations, predictions = tuple(task.annotations.values()), tuple(task.predictions.values())
                yield LabelStudioTask(task.id, task.data, task.updated_at, annotations, predictions)

    def task_ids(self, project_id: int) -> set[int]:
        self._answer()
        return set(self._tasks)

    def create_prediction(self, draft: PredictionDraft) -> StoredPrediction:
        with self._write("create", draft.task_id):
            task = self._tasks.get(draft.task_id)
            if task is None:
                raise LabelStudioError("Invalid pk: object does not exist", 400)
            return self._store(task, next(self._ids), draft)

    def update_prediction(self, prediction_id: int, draft: PredictionDraft) -> StoredPrediction:
        with self._write("update", draft.task_id):
            return self._store(self._owner(prediction_id), prediction_id, draft)

    def set_slot(self, prediction_id: int, slot: int | None) -> StoredPrediction:
        return self._change("slot", prediction_id, slot=slot)

    def set_version(self, prediction_id: int, model_version: str) -> StoredPrediction:
        return self._change("version", prediction_id, model_version=model_version)

    def _change(self, kind: str, prediction_id: int, **change: Any) -> StoredPrediction:
        with self._write(kind, prediction_id):
            task = self._owner(prediction_id)
            task.updated_at = self._tick()
            changed = replace(task.predictions[prediction_id], **change, updated_at=task.updated_at)
            task.predictions[prediction_id] = changed
            return changed

    def delete_prediction(self, prediction_id: int) -> None:
        with self._write("delete", prediction_id):
            task = self._owner(prediction_id)
            del task.predictions[prediction_id]
            task.updated_at = self._tick()

    # What the review asks

    def request(self, method: str, path: str, json: Any = None, params: dict[str, Any] | None = None) -> Any:
        parts = path.strip("/").split("/")[1:]
        match method, parts:
            case "PATCH", ["predictions", number]:
                assert set(json) == {"mislabeling"}
                task = self._owner(int(number))
                with self._write("mark", task.id):
                    task.updated_at = self._tick()
                    marked = replace(task.predictions[int(number)], **json, updated_at=task.updated_at)
                    task.predictions[int(number)] = marked
            case "POST", ["dm", "views", "order"]:
                if not json["ids"]:
                    raise LabelStudioError("This list may not be empty.", 400)
                with self._write("tab", "order"):
                    self.tabs = {number: self.tabs[number] for number in json["ids"]}
            case _, ["dm", "views", *number]:
                return self._answer_tabs(method, json, *map(int, number))
            case _:
                raise LabelStudioError(f"not known here: {method} {path}", 404)
        return {}

    def _answer_tabs(self, method: str, json: Any, tab_id: int | None = None) -> Any:
        self._answer()
        if method == "GET":
            return [{"id": number, "data": data} for number, data in self.tabs.items()]
        with self._write("tab", method):
            if method == "DELETE":
                del self.tabs[tab_id or 0]
                return None
            tab_id = tab_id or next(self._ids)
            self.tabs[tab_id] = json["data"]
            return {"id": tab_id, "data": json["data"]}

    def _owner(self, prediction_id: int) -> _Task:
        for task in self._tasks.values():
            if prediction_id in task.predictions:
                return task
        raise LabelStudioError("no such prediction", 404)

    def _store(self, task: _Task, prediction_id: int, draft: PredictionDraft) -> StoredPrediction:
        # A change leaves the fields that it does not name.
        kept = task.predictions.get(prediction_id)
        mark = kept.mislabeling if kept else 0.0
        now = self._tick()
        stored = StoredPrediction(
            prediction_id,
            task.id,
            draft.model_version,
            draft.score,
            draft.slot,
            mark,
            now,
            draft.result,
            json.loads(json.dumps(draft.hidden)),
        )
        task.predictions[prediction_id] = stored
        task.results[prediction_id] = draft.result
        task.updated_at = now
        return stored

    def _write(self, kind: str, what: Any) -> threading.RLock:
        """The lock, to be held while a write is done, if Label Studio still answers."""
        with self._lock:
            self._answer()
            self.writes.append((kind, what))
            if self.writes_until_failure is not None:
                self.writes_until_failure -= 1
        return self._lock

    def _answer(self) -> None:
        if self.writes_until_failure is not None and self.writes_until_failure <= 0:
            raise LabelStudioError("Label Studio could not be reached")

    def _tick(self) -> str:
        self._now += timedelta(seconds=1)
        return self._now.isoformat().replace("+00:00", "Z")


def _moment(stamp: str) -> datetime:
    return datetime.fromisoformat(stamp)
