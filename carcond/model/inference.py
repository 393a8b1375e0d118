"""The condition of a car, from one photo or several of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from carcond.arrays import FloatArray
from carcond.data.images import decode_photo, measure_image, to_pixels
from carcond.data.photo_checks import Fault, PhotoChecks, Remark
from carcond.errors import EncoderError
from carcond.model.encoder import Encoder
from carcond.model.heads import Heads
from carcond.taxonomy import TASK_BY_KEY, Task

SURE = 0.75
"""Minimum confidence of an answer that needs no review by a human.

Of 315 real photos unseen by the heads (damage, EfficientNet-Lite0), 93 % have more, and 97 % of those answers
are right; of the others 82 %.
"""

# Logarithms are taken of probabilities: a class that no label has shown has zero.
_LEAST_PROBABILITY = 1e-6


@dataclass(frozen=True)
class TaskCondition:
    """Prediction for one task.

    Attributes:
        task: cleanliness, damage, ...
        probabilities: calibrated, ``(K,)``, in the order of the task's classes.
    """

    task: Task
    probabilities: FloatArray

    @property
    def status(self) -> str:
        """Key of the most likely class."""
        return self.task.class_keys[int(self.probabilities.argmax())]

    @property
    def confidence(self) -> float:
        """Its probability."""
        return float(self.probabilities.max())

    @property
    def is_sure(self) -> bool:
        """True if the answer needs no review by a human."""
        return self.confidence >= SURE


@dataclass(frozen=True)
class PhotoCondition:
    """Condition of the car in one photo.

    Attributes:
        version: name of the predicting model version.
        checks: checks of the photo's fitness.
        by_task: task key -> prediction, whether the photo is fit or not; a task without a head is absent.
        photo: as `carcond.data.images.decode_photo` returned it.
        feature_map: ``(D, h, w)``; with the photo, `carcond.model.explain.explain` shows why.
    """

    version: str
    checks: PhotoChecks
    by_task: Mapping[str, TaskCondition]
    photo: Image.Image = field(repr=False)
    feature_map: FloatArray = field(repr=False)


@dataclass(frozen=True)
class CarCondition:
    """Condition of a car, combined from all its photos.

    Attributes:
        version: name of the predicting model version.
        photos: condition in each photo, unfit ones too.
        by_task: task key -> prediction combined from the fit photos; empty when none is fit.
    """

    version: str
    photos: tuple[PhotoCondition, ...]
    by_task: Mapping[str, TaskCondition]

    @property
    def faults(self) -> tuple[Fault, ...]:
        """Why there is no condition; empty when at least one photo is fit."""
        if any(not photo.checks.faults for photo in self.photos):
            return ()
        found = {fault for photo in self.photos for fault in photo.checks.faults}
        return tuple(fault for fault in Fault if fault in found)

    @property
    def remarks(self) -> tuple[Remark, ...]:
        """Why the condition is less reliable: remarks on any of the photos that it was read from."""
        found = {remark for photo in self.photos if not photo.checks.faults for remark in photo.checks.remarks}
        return tuple(remark for remark in Remark if remark in found)


def read_condition(data: bytes, encoder: Encoder, heads: Heads, version: str, max_pixels: int) -> PhotoCondition:
    """The condition that a photo shows.

    Args:
        data: the file; see `carcond.data.images.decode_photo`.
        encoder: the one that the heads were fitted on.
        heads: of the model version.
        version: its name.
        max_pixels: limit of width x height.

    Raises:
        UnreadableImageError: the bytes are no photo, or one too large.
        EncoderError: the heads were fitted on another encoder.
    """
    if heads.encoder_id != encoder.encoder_id:
        raise EncoderError(f"{version} was fitted on the encoder {heads.encoder_id}, got {encoder.encoder_id}")
    image = decode_photo(data, target=encoder.spec.size, max_pixels=max_pixels)
    look = measure_image(data, image)
    encoding = encoder.encode(to_pixels(image, encoder.spec)[np.newaxis])
    embeddings = encoding.embeddings  # (1, D)
    is_car = None if encoder.car_head is None else float(encoder.car_head.car_probability(embeddings)[0])
    by_task = {key: TaskCondition(TASK_BY_KEY[key], p[0]) for key, p in heads.probabilities(embeddings).items()}
    return PhotoCondition(version, PhotoChecks(look, is_car), by_task, image, encoding.feature_maps[0])


def combine(photos: Sequence[PhotoCondition]) -> CarCondition:
    """Combine predictions of one model version on N >= 1 photos of a car into one condition.

    Photos with a fault are left out. A task visible from one side only (damage) is taken from the photo that shows
    the worst: an intact left door is no evidence about the right one, and no further photo may hide a dent. All else
    (dirt is mostly on the whole car) is the geometric mean of the photos' probabilities, the logarithmic opinion pool
    (Genest and Zidek 1986, doi:10.1214/ss/1177013825): errors on photos of one car in one light are correlated, so a
    product, which assumes independence, would be overconfident. The order of the photos does not matter.
    """
    fit = [photo for photo in photos if not photo.checks.faults]
    by_task = {}
    for key, task in TASK_BY_KEY.items():
        seen = [photo.by_task[key].probabilities for photo in fit if key in photo.by_task]
        if seen:
            by_task[key] = TaskCondition(task, _worst(seen) if task.on_one_side else _pool(seen))
    return CarCondition(photos[0].version, tuple(photos), by_task)


def _worst(seen: Sequence[FloatArray]) -> FloatArray:
    # Classes go from good to bad.
    return max(seen, key=lambda probabilities: float(probabilities @ np.arange(len(probabilities))))


def _pool(seen: Sequence[FloatArray]) -> FloatArray:
    if len(seen) == 1:
        return seen[0]
    logarithms: NDArray[np.float64] = np.log(np.maximum(np.stack(seen), _LEAST_PROBABILITY)).mean(axis=0)  # (K,)
    shares = np.exp(logarithms - logarithms.max())
    return np.asarray(shares / shares.sum(), np.float32)
