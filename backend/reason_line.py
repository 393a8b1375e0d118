"""The line that tells annotators which version answers, how sure it is, and why they are asked."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from backend.label_config import LabelBinding
from carcond.taxonomy import TASK_BY_KEY, name_in

Cause = Literal["holdout", "typical", "uncertain"]

_SENTENCES: Mapping[Cause, Mapping[str, str]] = {
    "holdout": {
        "en": "Drawn at random for the hold-out.",
        "ru": "Выбрано случайно, для контрольной выборки.",
    },
    "typical": {"en": "Chosen as typical of the photos.", "ru": "Выбрано как типичное фото."},
    "uncertain": {"en": "Chosen because uncertain about {task}.", "ru": "Выбрано: нет уверенности ({task})."},
}
_NO_ANSWER = {"en": "no answer yet", "ru": "ответа пока нет"}


@dataclass(frozen=True)
class Reason:
    """Why a photo is in the queue.

    Attributes:
        cause: what it was chosen for.
        task_key: of the task that it is most uncertain about, where that is the cause.
    """

    cause: Cause
    task_key: str = ""


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
    answers = [
        f"{name_in(language, TASK_BY_KEY[key].condition(class_key))} {100 * probability:.0f} %"
        for key, (class_key, probability) in classes.items()
        if key in binding.choices
    ]
    line = f"{version}: {', '.join(answers) or _NO_ANSWER[language]}."
    if reason is None:
        return line
    task = TASK_BY_KEY.get(reason.task_key)
    name = name_in(language, task).lower() if task else ""
    return f"{line} {_SENTENCES[reason.cause][language].format(task=name)}"
