"""Binding a project's label config to the taxonomy, in whatever language, order or tag names it has."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from label_studio_tools.core.label_config import parse_config

from carcond.errors import LabelConfigError
from carcond.exports import is_untouched_box, region_words
from carcond.suspected_box import Box
from carcond.taxonomy import DAMAGE, DAMAGED, TASK_BY_KEY, TASKS, ConditionClass, Task, find_class, normalise_word

REASON_TAG = "carcond"
"""Name of the TextArea that is filled with version, confidences and reason; others belong to the annotators."""


@dataclass(frozen=True)
class ChoiceBinding:
    """One Choices tag that asks for one task.

    Attributes:
        from_name: name of the Choices tag.
        to_name: name of the Image tag it belongs to.
        word_by_class: class key -> the word that Label Studio stores for it.
        class_by_word: every stored word that means a class -> its class key.
    """

    from_name: str
    to_name: str
    word_by_class: Mapping[str, str]
    class_by_word: Mapping[str, str]


@dataclass(frozen=True)
class BoxBinding:
    """The RectangleLabels tag with a label for damage.

    Attributes:
        from_name: name of the tag.
        to_name: name of the Image tag it belongs to.
        word: what Label Studio stores for a damaged place.
    """

    from_name: str
    to_name: str
    word: str


@dataclass(frozen=True)
class LabelBinding:
    """How one label config asks for the tasks of the taxonomy.

    Attributes:
        choices: task key -> the Choices tag for it.
        image_key: the key of a Label Studio task's `data` that holds the photo's address.
        unknown_words: values of bound tags that mean no class; they are never predicted or learned.
        boxes: the tag for suspected damage; None where the config has none, or does not ask for damage.
        reason_to: name of the Image tag that the line with the reason belongs to; empty where the config has no line.
    """

    choices: Mapping[str, ChoiceBinding]
    image_key: str
    unknown_words: tuple[str, ...]
    boxes: BoxBinding | None = None
    reason_to: str = ""

    @property
    def language(self) -> str:
        """``ru`` when the config's words are Russian, else ``en``."""
        words = [word for binding in self.choices.values() for word in binding.class_by_word]
        return "ru" if any("а" <= letter <= "я" for word in words for letter in normalise_word(word)) else "en"

    def result(self, classes: Mapping[str, tuple[str, float]]) -> list[dict[str, Any]]:
        """Regions of a prediction.

        Args:
            classes: task key -> (class key, its probability in 0..1).

        Returns:
            One region for each task that the config asks for and has a word for the class.
        """
        regions = []
        for task_key, (class_key, probability) in classes.items():
            binding = self.choices.get(task_key)
            word = binding.word_by_class.get(class_key) if binding else None
            if binding is None or word is None:
                continue
            regions.append(
                {
                    "id": f"carcond-{task_key}",
                    "from_name": binding.from_name,
                    "to_name": binding.to_name,
                    "type": "choices",
                    "value": {"choices": [word]},
                    "score": probability,
                }
            )
        return regions

    def box_region(self, box: Box, probability: float) -> dict[str, Any]:
        """Region of a prediction around a place where damage is suspected; only where there are `boxes`.

        Args:
            box: the place.
            probability: that the car is damaged, 0..1.
        """
        if self.boxes is None:
            raise ValueError("expected a label config with a tag for boxes, this one has none")
        percent = {name: round(100 * share, 2) for name, share in (("x", box.left), ("y", box.top))}
        percent |= {"width": round(100 * box.width, 2), "height": round(100 * box.height, 2)}
        return {
            "id": "carcond-box",
            "from_name": self.boxes.from_name,
            "to_name": self.boxes.to_name,
            "type": "rectanglelabels",
            "value": {**percent, "rotation": 0, "rectanglelabels": [self.boxes.word]},
            "score": probability,
        }

    def reason_region(self, reason: str) -> dict[str, Any]:
        """Region of a prediction with the line that tells the reason; only where there is a line."""
        return {
            "id": "carcond-reason",
            "from_name": REASON_TAG,
            "to_name": self.reason_to,
            "type": "textarea",
            "value": {"text": [reason]},
            "readonly": True,
        }

    def labels(self, result: list[dict[str, Any]]) -> dict[str, str]:
        """The classes that an annotation states: task key -> class key.

        A task that is not answered is absent, and so is one answered with two different classes:
        unknown stays unknown. Boxes whose label is a word of the taxonomy count as an answer, but a
        missing box never does. So do words that the config had before it was reworded or translated.
        A suggested box that nobody touched counts only where nothing else answers its task: who
        corrects "damaged" to "intact" has answered, whether the box was removed or not.
        """
        task_by_tag = {binding.from_name: task for task, binding in self.choices.items()}
        stated: dict[str, set[str]] = {}
        for region in sorted(result, key=is_untouched_box):
            is_idle = is_untouched_box(region)
            task = task_by_tag.get(str(region.get("from_name")))
            for word in region_words(region):
                class_key = self.choices[task].class_by_word.get(word) if task else None
                found = find_class(word)
                if task and class_key:
                    stated.setdefault(task, set()).add(class_key)
                elif found and task in (None, found[0].key) and not (is_idle and found[0].key in stated):
                    stated.setdefault(found[0].key, set()).add(found[1].key)
        return {task: classes.pop() for task, classes in stated.items() if len(classes) == 1}


@lru_cache(maxsize=64)
def bind_label_config(label_config: str) -> LabelBinding:
    """Find the Choices tags that ask for cleanliness and damage, and room for boxes and the reason.

    A Choices tag belongs to the task that most of its values mean. A value's `alias` is what Label
    Studio stores, so it is what is written when there is one; either may be a word of the taxonomy.
    Boxes go into the first RectangleLabels over the image with a label for damage, the reason into
    the TextArea of the name `carcond`.

    Raises:
        LabelConfigError: the config is no XML, shows no image, or asks for neither task.
    """
    try:
        controls = parse_config(label_config)
    except Exception as error:  # the parser raises whatever its XML library does
        raise LabelConfigError(f"the label config could not be read: {type(error).__name__}") from None
    choices: dict[str, ChoiceBinding] = {}
    boxes: BoxBinding | None = None
    unknown: list[str] = []
    image_key = reason_to = ""
    for from_name, control in controls.items():
        image = next((i for i in control["inputs"] if i["type"] == "Image"), None)
        if image and control["type"] == "RectangleLabels":
            boxes = boxes or _bind_boxes(from_name, control)
        if image and control["type"] == "TextArea" and from_name == REASON_TAG:
            reason_to = str(control["to_name"][0])
        bound = _bind_choices(from_name, control) if image and control["type"] == "Choices" else None
        if image and bound and bound[0] not in choices:
            image_key = image_key or image["value"]
            choices[bound[0]] = bound[1]
            unknown += bound[2]
    if not choices:
        words = "; ".join(f"{task.key}: {', '.join(c.en for c in task.classes)}" for task in TASKS)
        raise LabelConfigError(
            f"expected Choices over an Image with the words of at least one task ({words}), found none"
        )
    if not image_key:
        raise LabelConfigError('expected the Image tag to name its field, like value="$image", but it does not')
    # A box alone could not be taken back: it is shown beside the answer that it belongs to, or not at all.
    return LabelBinding(choices, image_key, tuple(unknown), boxes if DAMAGE.key in choices else None, reason_to)


def _meanings(control: dict[str, Any]) -> dict[str, tuple[Task, ConditionClass] | None]:
    """What each word means that Label Studio stores: the alias where there is one, else the value that people read."""
    return {
        stored: find_class(stored) or find_class(attributes.get("value", ""))
        for stored, attributes in control["labels_attrs"].items()
    }


def _bind_boxes(from_name: str, control: dict[str, Any]) -> BoxBinding | None:
    for word, match in _meanings(control).items():
        if match and match[1].key == DAMAGED:
            return BoxBinding(from_name, str(control["to_name"][0]), word)
    return None


def _bind_choices(from_name: str, control: dict[str, Any]) -> tuple[str, ChoiceBinding, list[str]] | None:
    found = _meanings(control)
    votes = [match[0].key for match in found.values() if match]
    if not votes:
        return None
    task_key = max(TASK_BY_KEY, key=votes.count)
    class_by_word = {word: match[1].key for word, match in found.items() if match and match[0].key == task_key}
    word_by_class: dict[str, str] = {}
    for word, class_key in class_by_word.items():
        word_by_class.setdefault(class_key, word)
    unknown = [word for word in found if word not in class_by_word]
    return task_key, ChoiceBinding(from_name, str(control["to_name"][0]), word_by_class, class_by_word), unknown
