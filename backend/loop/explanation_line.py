"""Lines for annotators: version and confidence of the pre-label, and in some label configs why they are asked.

A photo of the hold-out has no suggested answer. Its lines are those of any other photo without one, and name no class.
"""

from collections.abc import Mapping

from backend.label_studio.label_config import LabelBinding
from carcond.model.inference import SURE
from carcond.query.live_queue import Cause, Reason
from carcond.taxonomy import TASK_BY_KEY, name_in

Classes = Mapping[str, tuple[str, float]]
"""Answers of a photo: task key -> (class key, its probability in 0..1)."""

_SENTENCES: Mapping[Cause, Mapping[str, str]] = {
    "representative": {
        "en": "Selected as representative of many photos.",
        "ru": "Выбрано как похожее на многие другие фото.",
    },
    "uncertain": {"en": "Chosen because uncertain about {task}.", "ru": "Выбрано: нет уверенности ({task})."},
}
# The queue holds the least sure photos of those left, and late in a project the model is sure of these too.
_LEAST_SURE = {
    "en": "Chosen because no photo left is much less sure ({task}).",
    "ru": "Выбрано: намного менее уверенных ответов не осталось ({task}).",
}
_NO_ANSWER = {"en": "no answer yet", "ru": "ответа пока нет"}
_BLANK = {"en": "no answer suggested, judge by the photo", "ru": "ответ не предложен, решайте по фото"}
_UNSURE = {"en": "{task}: no suggestion", "ru": "{task}: без подсказки"}


def confidence_line(binding: LabelBinding, version: str, classes: Classes, suggested: Classes) -> str:
    """The confidence of each suggested answer and the version, in the language of the label config.

    Args:
        binding: of the label config.
        version: that answers.
        classes: task key -> (most probable class key, its probability in 0..1).
        suggested: those of them that are chosen; the classes of the others are not named.

    Returns:
        Empty before there is an answer to a task that the config asks for.
    """
    answers = _answers(binding, classes, suggested)
    return f"{answers} · {version}" if answers else ""


def reason_line(
    binding: LabelBinding, version: str, classes: Classes, suggested: Classes, reason: Reason | None
) -> str:
    """The line, in the language of the label config. Without a suggested answer it gives no reason.

    Args:
        binding: of the label config.
        version: that answers.
        classes: task key -> (most probable class key, its probability in 0..1); empty before there is a model.
        suggested: those of them that are chosen.
        reason: None for a photo that is not in the queue.
    """
    language = binding.language
    line = f"{version}: {_answers(binding, classes, suggested) or _NO_ANSWER[language]}."
    if reason is None or reason.cause == "holdout" or not _asked(binding, suggested):
        return line
    task = TASK_BY_KEY.get(reason.task_key)
    name = name_in(language, task).lower() if task else ""
    sentence = _SENTENCES[reason.cause]
    if reason.cause == "uncertain" and classes.get(reason.task_key, ("", 0.0))[1] >= SURE:
        sentence = _LEAST_SURE
    return f"{line} {sentence[language].format(task=name)}"


def _answers(binding: LabelBinding, classes: Classes, suggested: Classes) -> str:
    """The answers to the tasks that the config asks for; empty before there is a model."""
    language, asked = binding.language, _asked(binding, classes)
    if asked and not _asked(binding, suggested):
        return _BLANK[language]
    return ", ".join(
        f"{name_in(language, TASK_BY_KEY[key].condition(class_key))} {100 * probability:.0f} %"
        if key in suggested
        else _UNSURE[language].format(task=name_in(language, TASK_BY_KEY[key]).lower())
        for key, (class_key, probability) in asked.items()
    )


def _asked(binding: LabelBinding, classes: Classes) -> Classes:
    return {key: answer for key, answer in classes.items() if key in binding.choices}
