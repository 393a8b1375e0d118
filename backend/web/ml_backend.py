"""CarConditionModel: the contract with label-studio-ml, over our own loop."""

import logging
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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
from carcond.store.store import KeptPhoto

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


@dataclass(frozen=True)
class _EmbeddedPhoto:
    """A photo's embedding ``(D,)``, and whether it opens without chosen answers."""

    embedding: FloatArray
    is_blank: bool


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
        urls = [_photo_url(task, binding) for task in tasks]
        photos = self._photos([_task_id(task) for task in tasks], urls, version, deadline)
        predictions = self._predictions(photos, version, binding)
        boxes = DamageBoxes(self._services, binding, version.heads)
        for url, prediction in zip(urls, predictions, strict=True):
            if time.monotonic() < deadline:
                prediction["result"] = boxes.with_box(prediction["result"], url)
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
        self, photos: Sequence[_EmbeddedPhoto | None], version: Version, binding: LabelBinding
    ) -> list[dict[str, Any]]:
        predictions = [_empty(version.name) for _ in photos]
        seen = [(i, photo) for i, photo in enumerate(photos) if photo is not None]
        if not seen:
            return predictions
        probabilities = version.heads.probabilities(np.stack([photo.embedding for _, photo in seen]))
        scores = joint_confidence(probabilities)
        min_confidence = self._services.settings.prelabel_min_confidence
        for (i, photo), score, classes in zip(seen, scores, chosen_classes(probabilities), strict=True):
            suggested = suggested_classes(classes, photo.is_blank, min_confidence)
            predictions[i]["result"] = prediction_result(classes, suggested, binding, version.name, None)
            predictions[i]["score"] = round(float(score), 6)
        return predictions

    def _photos(
        self, task_ids: Sequence[int], urls: Sequence[str], version: Version, deadline: float
    ) -> list[_EmbeddedPhoto | None]:
        """The photos of tasks; None for those that cannot be embedded."""
        encoder_id = version.heads.encoder_id
        kept = self._services.store.kept_photos(self.project_id, encoder_id, list(set(task_ids)))
        embeddings = [_current_embedding(kept.get(i), url) for i, url in zip(task_ids, urls, strict=True)]
        new = [position for position, embedding in enumerate(embeddings) if embedding is None]
        if new:
            encoded = self._encoded([urls[position] for position in new], encoder_id, deadline)
            for position in new:
                embeddings[position] = self._embedding(task_ids[position], encoded.get(urls[position]))
            # Again: while they were encoded, photos may have been sampled for the hold-out.
            kept |= self._services.store.kept_photos(self.project_id, encoder_id, [task_ids[i] for i in new])
        return [
            None if row is None else _EmbeddedPhoto(row, self._is_blank(task_id, kept.get(task_id)))
            for task_id, row in zip(task_ids, embeddings, strict=True)
        ]

    def _is_blank(self, task_id: int, kept: KeptPhoto | None) -> bool:
        return kept is not None and is_blank(kept.split != TRAIN, photo_draw(self.project_id, task_id))

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

    def _embedding(self, task_id: int, found: EncodedPhoto | CarcondError | None) -> FloatArray | None:
        if isinstance(found, EncodedPhoto):
            return found.embedding
        if found is None:
            logger.warning("project %d, task %d: no time left to embed the photo", self.project_id, task_id)
        else:
            logger.warning("project %d, task %d: no prediction: %s", self.project_id, task_id, found)
        return None


def _current_embedding(kept: KeptPhoto | None, url: str) -> FloatArray | None:
    """The kept embedding of a photo, unless its address has changed."""
    return kept.embedding if kept is not None and kept.url == url else None


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
