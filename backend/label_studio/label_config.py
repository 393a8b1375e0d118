"""Binding a project's label config to the taxonomy, in any language, order and tag names."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, NoReturn
from xml.parsers import expat

from label_studio_tools.core.label_config import parse_config

from carcond.data.label_studio_export import is_untouched_box, region_words
from carcond.errors import LabelConfigError
from carcond.model.damage_box import Box
from carcond.taxonomy import DAMAGE, DAMAGED, TASK_BY_KEY, TASKS, ConditionClass, Task, find_class, normalise_word

REASON_TAG = "carcond"
"""Name of the TextArea that is filled with version, confidences and reason; others belong to the annotators."""

CONFIDENCE_TAG = "carcond_confidence"
"""Name of the TextArea that is filled with the confidences, in a config that has a Choices of `SHOWN_TAG` too."""
SHOWN_TAG = "carcond_shown"
"""Name of the hidden Choices whose one answer keeps the confidences out of submitted annotations.

Label Studio (1.23.2) submits no text whose TextArea is `visibleWhen="choice-unselected"` while the Choices that it
names have an answer, yet goes on showing it while these Choices are hidden themselves. Nor does it submit their answer.
"""

# Far beyond any config that people label with. Label Studio's parser takes time by the product of some of these.
_MAX_CHARACTERS = 200_000
_MAX_DEPTH = 50
_MAX_TAGS = 5_000
_MAX_INDEX_FLAGS = 20


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
        word: value that Label Studio stores for a damaged region.
    """

    from_name: str
    to_name: str
    word: str


@dataclass(frozen=True)
class LabelBinding:
    """Tags of one label config that ask for the tasks of the taxonomy.

    Attributes:
        choices: task key -> the Choices tag for it.
        image_key: the key of a Label Studio task's `data` that holds the photo's address.
        unknown_words: values of bound tags that mean no class; they are never predicted or learned.
        boxes: the tag for suspected damage; None where the config has none, or does not ask for damage.
        reason_to: name of the Image tag that the line with the reason belongs to; empty where the config has no line.
        confidence_to: the same of the line with the confidences.
    """

    choices: Mapping[str, ChoiceBinding]
    image_key: str
    unknown_words: tuple[str, ...]
    boxes: BoxBinding | None = None
    reason_to: str = ""
    confidence_to: str = ""

    @cached_property
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
                    "id": answer_region_id(task_key),
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
        """Region of a prediction with the line that states the reason; only in configs with such a line."""
        return _text_region("carcond-reason", REASON_TAG, self.reason_to, reason)

    def confidence_regions(self, line: str) -> list[dict[str, Any]]:
        """Regions of a prediction that show the confidences to annotators, and keep them out of annotations."""
        shown = {"from_name": SHOWN_TAG, "to_name": self.confidence_to, "type": "choices"}
        return [
            _text_region("carcond-confidence", CONFIDENCE_TAG, self.confidence_to, line),
            {"id": "carcond-shown", **shown, "value": {"choices": ["shown"]}},
        ]

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


def answer_region_id(task_key: str) -> str:
    """Id of the region that answers a task in our predictions; Label Studio's page keeps it in the annotation."""
    return f"carcond-{task_key}"


def _text_region(region_id: str, tag: str, image: str, text: str) -> dict[str, Any]:
    named = {"id": region_id, "from_name": tag, "to_name": image, "type": "textarea"}
    return {**named, "value": {"text": [text]}, "readonly": True}


@lru_cache(maxsize=64)
def bind_label_config(label_config: str) -> LabelBinding:
    """Find the Choices tags that ask for cleanliness and damage, and the tags for boxes and the reason.

    A Choices tag belongs to the task that most of its values mean. A value's `alias` is what Label
    Studio stores, so it is what is written when there is one; either may be a word of the taxonomy.
    Boxes go into the first RectangleLabels over the image with a label for damage, the reason into
    the TextArea of the name `carcond`, the confidences into that of the name `carcond_confidence`.

    Raises:
        LabelConfigError: the config is no XML, shows no image, or asks for neither task; or it is larger or nested
            deeper than any that people label with, or declares entities.
    """
    _check_extent(label_config)
    try:
        controls = parse_config(label_config)
    except Exception as error:  # the parser raises whatever its XML library does
        raise LabelConfigError(f"the label config could not be read: {type(error).__name__}") from None
    choices: dict[str, ChoiceBinding] = {}
    boxes: BoxBinding | None = None
    unknown: list[str] = []
    image_key = reason_to = confidence_to = ""
    for from_name, control in controls.items():
        image = next((i for i in control["inputs"] if i["type"] == "Image"), None)
        if image and control["type"] == "RectangleLabels":
            boxes = boxes or _bind_boxes(from_name, control)
        if image and control["type"] == "TextArea" and from_name == REASON_TAG:
            reason_to = str(control["to_name"][0])
        if image and control["type"] == "TextArea" and from_name == CONFIDENCE_TAG and SHOWN_TAG in controls:
            confidence_to = str(control["to_name"][0])
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
    # A box alone could not be undone: it is shown together with the answer that it belongs to, or not at all.
    boxes = boxes if DAMAGE.key in choices else None
    return LabelBinding(choices, image_key, tuple(unknown), boxes, reason_to, confidence_to)


def _check_extent(label_config: str) -> None:
    """Refuse what would take long to parse, or much memory, before it is parsed: who may edit it is not trusted.

    Raises:
        LabelConfigError: it is too large or nested too deeply, has a DOCTYPE, which alone can declare entities, or is
            no XML.
    """
    if len(label_config) > _MAX_CHARACTERS:
        raise LabelConfigError(
            f"expected a label config of at most {_MAX_CHARACTERS} characters, got {len(label_config)}"
        )
    if not label_config.strip():
        return  # a new project's
    extent = _Extent()
    parser = expat.ParserCreate()
    parser.StartElementHandler, parser.EndElementHandler = extent.enter, extent.leave
    parser.StartDoctypeDeclHandler = extent.refuse_doctype
    try:
        parser.Parse(label_config, True)
    except (expat.ExpatError, ValueError) as error:  # ValueError: half of a surrogate pair
        raise LabelConfigError(f"expected a label config in XML, it is malformed: {error}") from None


class _Extent:
    """Counts what a config consists of, and stops at a limit."""

    def __init__(self) -> None:
        self._depth = self._tags = self._index_flags = 0

    def enter(self, _tag: str, attributes: Mapping[str, str]) -> None:
        self._depth += 1
        self._tags += 1
        self._index_flags += "indexFlag" in attributes
        counts = (
            ("tags inside of each other", self._depth, _MAX_DEPTH),
            ("tags", self._tags, _MAX_TAGS),
            ("tags with an indexFlag", self._index_flags, _MAX_INDEX_FLAGS),
        )
        for what, count, most in counts:
            if count > most:
                raise LabelConfigError(f"expected a label config of at most {most} {what}, got more")

    def leave(self, _tag: str) -> None:
        self._depth -= 1

    @staticmethod
    def refuse_doctype(*_: object) -> NoReturn:
        raise LabelConfigError("expected a label config without a DOCTYPE, got one: remove it, and its entities")


def _meanings(control: dict[str, Any]) -> dict[str, tuple[Task, ConditionClass] | None]:
    """Meaning of each word that Label Studio stores: the alias if there is one, else the value that people read."""
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
