"""Explanations of predictions: class activation maps, as overlays on the photo and reduced to boxes.

The heads are linear on the average of the feature map, so a head's weights applied to the feature map give the
contribution of each location to a class (class activation maps, arXiv 1512.04150). Grad-CAM (arXiv 1610.02391) of
such a network is the same map, divided by the number of locations: no gradients are needed.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from PIL import Image

from carcond.arrays import FloatArray
from carcond.data.images import decode_photo, to_pixels
from carcond.model.activation_map import overlay, side_by_side
from carcond.model.damage_box import Box, suspected_box
from carcond.model.encoder import Encoder
from carcond.model.heads import Head, Heads
from carcond.taxonomy import DAMAGE, DAMAGED, ConditionClass, Task


@dataclass(frozen=True)
class Answer:
    """Prediction for one task, with its class activation map.

    Attributes:
        task: the predicted task.
        probabilities: calibrated, of each class ``(K,)``.
        class_index: of the most probable class.
        activation: ``(h, w)`` of that class, see `activation_map`.
        bias: of that class; where activation plus bias is above 0, the photo supports the class.
    """

    task: Task
    probabilities: FloatArray
    class_index: int
    activation: FloatArray
    bias: float

    @property
    def condition(self) -> ConditionClass:
        """The most probable class."""
        return self.task.classes[self.class_index]

    @property
    def confidence(self) -> float:
        """Its probability, 0..1."""
        return float(self.probabilities[self.class_index])

    @property
    def caption(self) -> str:
        """The answer in a few words, for example ``Damage: damaged 93 %``."""
        return f"{self.task.en}: {self.condition.en} {100 * self.confidence:.0f} %"


@dataclass(frozen=True)
class Explanation:
    """Answers for one photo, with the picture of each.

    Attributes:
        photo: as `carcond.data.images.decode_photo` returned it.
        answers: task key -> answer; a task without a head is missing.
    """

    photo: Image.Image
    answers: Mapping[str, Answer]

    def overlay(self, task_key: str) -> Image.Image:
        """The photo, coloured where it supports one task's answer."""
        answer = self.answers[task_key]
        return overlay(self.photo, answer.activation + answer.bias, answer.caption)

    @cached_property
    def picture(self) -> Image.Image:
        """The overlays of all tasks, side by side."""
        return side_by_side([self.overlay(key) for key in self.answers])

    @property
    def suspected_damage(self) -> Box | None:
        """Bounding box of the damage, if damage is predicted; a rough guess, see docs/explain.md."""
        answer = self.answers.get(DAMAGE.key)
        if answer is None or answer.condition.key != DAMAGED:
            return None
        return suspected_box(answer.activation + answer.bias)


def activation_map(head: Head, feature_map: FloatArray, class_index: int) -> FloatArray:
    """Class activation map of a photo: the contribution of each location to a class (arXiv 1512.04150).

    Args:
        head: of the task.
        feature_map: ``(D, h, w)`` of one photo, from `Encoding.feature_maps`.
        class_index: of the class in `head.task.classes`.

    Returns:
        ``(h, w)`` in units of the uncalibrated logit: its mean plus `head.bias[class_index]` is the class's logit.
    """
    activation: FloatArray = np.tensordot(head.weight[class_index], feature_map, axes=1)
    return activation


def explain(photo: Image.Image, feature_map: FloatArray, heads: Heads) -> Explanation:
    """Predictions for an encoded photo, with their explanations.

    Args:
        photo: as `carcond.data.images.decode_photo` returned it.
        feature_map: ``(D, h, w)`` of the photo, from the encoder that the heads were fitted on.
        heads: of any tasks.
    """
    embedding = feature_map.mean(axis=(1, 2))
    answers = {}
    for key, head in heads.by_task.items():
        probabilities = head.probabilities(embedding[np.newaxis])[0]
        best = int(probabilities.argmax())
        activation = activation_map(head, feature_map, best)
        answers[key] = Answer(head.task, probabilities, best, activation, float(head.bias[best]))
    return Explanation(photo, answers)


def explain_photo(data: bytes, encoder: Encoder, heads: Heads, max_pixels: int) -> Explanation:
    """Predictions for a photo, with their explanations, from the bytes of its file.

    Args:
        data: the file; see `carcond.data.images.decode_photo`.
        encoder: the one that the heads were fitted on.
        heads: of any tasks.
        max_pixels: limit of width x height.

    Raises:
        UnreadableImageError: the bytes are no photo, or one too large.
    """
    photo = decode_photo(data, target=encoder.spec.size, max_pixels=max_pixels)
    encoding = encoder.encode(to_pixels(photo, encoder.spec)[np.newaxis])
    return explain(photo, encoding.feature_maps[0], heads)
