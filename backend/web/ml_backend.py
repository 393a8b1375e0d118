"""CarConditionModel: the contract with label-studio-ml, over our own loop."""

import logging
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from backend.jobs.queue import get_job_queue
from backend.label_studio.label_config import LabelBinding, bind_label_config
from backend.loop.damage_boxes import DamageBoxes
from backend.loop.predictions import chosen_classes, is_blank, prediction_result, suggested_classes
from backend.photo_pipeline import EncodedPhoto
from backend.services import Services, get_services
from carcond.arrays import FloatArray
from carcond.data.split import TRAIN, photo_draw
from carcond.errors import CarcondError, LabelConfigError
from carcond.model.heads import joint_confidence
from carcond.registry.registry import COLD_START_VERSION, Version

_torch = sys.modules.get("torch")
if _torch is None:
    # label-studio-ml imports torch when it can: a second and 200 MB that serving has no use for.
    sys.modules["torch"] = None  # type: ignore[assignment]  # makes the import fail, as if it were not installed
from label_studio_ml.model import LabelStudioMLBase  # noqa: E402

if _torch is None:
    del sys.modules["torch"]

logger = logging.getLogger(__name__)

# Label Studio gives up after 100 s; photos not embedded by then get an empty prediction.
_PREDICT_SECONDS = 80.0


class CarConditionModel(LabelStudioMLBase):  # type: ignore[misc]  # the base publishes no types
    """Pre-labels cleanliness and damage of car photos.

    Works with the constructor and the calls of label-studio-ml 1.x and of its 2.x.
    """

    def __init__(
        self,
        project_id: str | int | None = None,
        label_config: str | None = None,
        train_output: dict[str, Any] | None = None,
        services: Services | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(label_config=None, train_output=train_output, **kwargs)
        self.label_config = label_config
        self.project_id = parse_project_id(project_id)
        self._services = services or get_services()

    def current_version(self) -> Version | None:
        """The serving version, None before the first one."""
        return self._services.registry(self.project_id).current()

    @property
    def version_name(self) -> str:
        """Version name for Label Studio: never empty, always a string."""
        version = self.current_version()
        return version.name if version else COLD_START_VERSION

    def predict(
        self, tasks: Sequence[Mapping[str, Any]], context: Mapping[str, Any] | None = None, **_: Any
    ) -> list[dict[str, Any]]:
        """One prediction for each task, in their order.

        A photo that cannot be read gets an empty result and a line in the log, never a shorter list. The answers are
        those that the loop publishes: none for photos of the hold-out. A photo that has no split yet gets answers:
        labelled before it has one, it is for training.

        Args:
            tasks: Label Studio's task objects with `id` and `data`.
            context: what the annotator has drawn so far; not used.
        """
        version = self.current_version()
        try:
            binding = bind_label_config(self.label_config or "")
        except LabelConfigError as error:
            logger.warning("project %d: no predictions: %s", self.project_id, error)
            return [_empty(self.version_name) for _ in tasks]
        if version is None:
            return [_empty(COLD_START_VERSION) for _ in tasks]
        deadline = time.monotonic() + _PREDICT_SECONDS
        embeddings = self._embeddings(tasks, version, binding, deadline)
        predictions = self._predictions(tasks, embeddings, version, binding)
        boxes = DamageBoxes(self._services, binding, version.heads)
        for task, prediction in zip(tasks, predictions, strict=True):
            if time.monotonic() < deadline:
                prediction["result"] = boxes.with_box(prediction["result"], _photo_url(task, binding))
        return predictions

    def fit(self, event: Any = None, data: Any = None, **kwargs: Any) -> dict[str, Any]:
        """Make the worker refit on the project's labels; returns at once.

        Args:
            event: name of Label Studio's event (2.x), or the tasks (1.x, where the event is a keyword).
            data: the event's payload.
            kwargs: 1.x also passes `event` under this name; it is not needed.

        Raises:
            QueueUnavailableError: Redis cannot be reached.
        """
        return {"enqueued": get_job_queue().request_turn(self.project_id)}

    def _predictions(
        self,
        tasks: Sequence[Mapping[str, Any]],
        embeddings: Sequence[FloatArray | None],
        version: Version,
        binding: LabelBinding,
    ) -> list[dict[str, Any]]:
        predictions = [_empty(version.name) for _ in embeddings]
        seen = [(i, row) for i, row in enumerate(embeddings) if row is not None]
        if not seen:
            return predictions
        task_ids = [_task_id(tasks[i]) for i, _ in seen]
        splits = self._services.store.splits(self.project_id, task_ids)
        probabilities = version.heads.probabilities(np.stack([row for _, row in seen]))
        scores = joint_confidence(probabilities)
        for (i, _), task_id, score, classes in zip(seen, task_ids, scores, chosen_classes(probabilities), strict=True):
            known = task_id in splits
            blank = known and is_blank(splits[task_id] != TRAIN, photo_draw(self.project_id, task_id))
            suggested = suggested_classes(classes, blank, self._services.settings.prelabel_min_confidence)
            predictions[i]["result"] = prediction_result(classes, suggested, binding, version.name, None)
            predictions[i]["score"] = round(float(score), 6)
        return predictions

    def _embeddings(
        self, tasks: Sequence[Mapping[str, Any]], version: Version, binding: LabelBinding, deadline: float
    ) -> list[FloatArray | None]:
        urls = {_task_id(task): _photo_url(task, binding) for task in tasks}
        encoder_id = version.heads.encoder_id
        kept = self._services.store.embeddings_by_task(self.project_id, encoder_id, urls)
        # By task id for kept embeddings, by address for others: tasks without an id share the id 0.
        new = [_photo_url(task, binding) for task in tasks if _task_id(task) not in kept]
        encoded = self._encoded(new, encoder_id, deadline) if new else {}
        return [self._embedding(task, binding, kept, encoded) for task in tasks]

    def _encoded(
        self, urls: Sequence[str], encoder_id: str, deadline: float
    ) -> Mapping[str, EncodedPhoto | CarcondError]:
        """Address -> the photo, or why there is none; photos that time does not suffice for are absent."""
        seconds = deadline - time.monotonic()
        if seconds <= 0:
            return {}
        try:
            encoder = self._services.encoder(encoder_id)
        except CarcondError as error:
            return dict.fromkeys(urls, error)
        return self._services.photo_pipeline.request(encoder, urls).results(seconds)

    def _embedding(
        self,
        task: Mapping[str, Any],
        binding: LabelBinding,
        kept: Mapping[int, FloatArray],
        encoded: Mapping[str, EncodedPhoto | CarcondError],
    ) -> FloatArray | None:
        task_id = _task_id(task)
        if task_id in kept:
            return kept[task_id]
        found = encoded.get(_photo_url(task, binding))
        if isinstance(found, EncodedPhoto):
            return found.embedding
        if found is None:
            logger.warning("project %d, task %d: no time left to embed the photo", self.project_id, task_id)
        else:
            logger.warning("project %d, task %d: no prediction: %s", self.project_id, task_id, found)
        return None


def parse_project_id(project: str | int | None) -> int:
    """The number in Label Studio's "<id>.<time of creation>"; 0 when no project is named."""
    digits = str(project or "").split(".")[0]
    return _database_id(int(digits)) if digits.isdecimal() and len(digits) < 20 else 0


def _task_id(task: Mapping[str, Any]) -> int:
    task_id = task.get("id")
    return _database_id(task_id) if isinstance(task_id, int) else 0


def _database_id(number: int) -> int:
    """0 for a number that is no id in any database: a query for it would fail."""
    return number if 0 < number < 2**63 else 0


def _photo_url(task: Mapping[str, Any], binding: LabelBinding) -> str:
    data = task.get("data")
    return str(data.get(binding.image_key) or "") if isinstance(data, Mapping) else ""


def _empty(version_name: str) -> dict[str, Any]:
    return {"result": [], "score": 0.0, "model_version": version_name}
