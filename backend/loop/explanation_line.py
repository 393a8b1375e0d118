"""Lines for annotators: version and confidence of the pre-label, and in some label configs why they are asked."""

from collections.abc import Mapping

from backend.label_studio.label_config import LabelBinding
from carcond.model.inference import SURE
from carcond.query.live_queue import Cause, Reason
from carcond.taxonomy import TASK_BY_KEY, name_in

_SENTENCES: Mapping[Cause, Mapping[str, str]] = {
    "holdout": {
        "en": "Sampled at random for the hold-out.",
        "ru": "Выбрано случайно, для контрольной выборки.",
    },
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


def confidence_line(binding: LabelBinding, version: str, classes: Mapping[str, tuple[str, float]]) -> str:
    """The confidence of each answer and the version, in the language of the label config.

    It is the same for photos of the hold-out and all others, so that annotators cannot distinguish them.

    Args:
        binding: of the label config.
        version: that answers.
        classes: task key -> (class key, its probability in 0..1).

    Returns:
        Empty before there is an answer to a task that the config asks for.
    """
    answers = _answers(binding, classes)
    return f"{', '.join(answers)} · {version}" if answers else ""


def reason_line(
    binding: LabelBinding, version: str, classes: Mapping[str, tuple[str, float]], reason: Reason | None
) -> str:
    """The line, in the language of the label config.

    Args:
        binding: of the label config.
        version: that answers.
        classes: task key -> (class key, its probability in 0..1); empty before there is a model.
        reason: None for a photo that is not in the queue.
    """
    language = binding.language
    line = f"{version}: {', '.join(_answers(binding, classes)) or _NO_ANSWER[language]}."
    if reason is None:
        return line
    task = TASK_BY_KEY.get(reason.task_key)
    name = name_in(language, task).lower() if task else ""
    sentence = _SENTENCES[reason.cause]
    if reason.cause == "uncertain" and classes.get(reason.task_key, ("", 0.0))[1] >= SURE:
        sentence = _LEAST_SURE
    return f"{line} {sentence[language].format(task=name)}"


def _answers(binding: LabelBinding, classes: Mapping[str, tuple[str, float]]) -> list[str]:
    return [
        f"{name_in(binding.language, TASK_BY_KEY[key].condition(class_key))} {100 * probability:.0f} %"
        for key, (class_key, probability) in classes.items()
        if key in binding.choices
    ]
