import pytest

from backend.label_studio.label_config import bind_label_config
from backend.loop.explanation_line import confidence_line, reason_line
from carcond.query.live_queue import Reason
from tests.backend.label_configs import DAMAGE_ONLY, ENGLISH, RUSSIAN

CLASSES = {"cleanliness": ("very_dirty", 0.934), "damage": ("intact", 0.61)}


def test_the_line_tells_version_both_confidences_and_why() -> None:
    line = reason_line(bind_label_config(ENGLISH), "carcond-0007", CLASSES, CLASSES, Reason("uncertain", "damage"))
    assert line == "carcond-0007: very dirty 93 %, intact 61 %. Chosen because uncertain about damage."


def test_a_russian_config_is_answered_in_russian() -> None:
    line = reason_line(bind_label_config(RUSSIAN), "carcond-0007", CLASSES, CLASSES, Reason("uncertain", "damage"))
    assert line == "carcond-0007: очень грязный 93 %, целый 61 %. Выбрано: нет уверенности (целостность)."


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (ENGLISH, "Chosen because no photo left is much less sure (cleanliness)."),
        (RUSSIAN, "Выбрано: намного менее уверенных ответов не осталось (чистота)."),
    ],
)
def test_an_answer_that_is_sure_is_not_called_uncertain(config: str, words: str) -> None:
    line = reason_line(bind_label_config(config), "carcond-0007", CLASSES, CLASSES, Reason("uncertain", "cleanliness"))
    assert line.endswith(words)


def test_a_representative_photo_names_no_task() -> None:
    line = reason_line(bind_label_config(ENGLISH), "carcond-0007", CLASSES, CLASSES, Reason("representative"))
    assert line.endswith("Selected as representative of many photos.")


@pytest.mark.parametrize(
    "reason", [None, Reason("holdout"), Reason("representative"), Reason("uncertain", "damage")], ids=str
)
@pytest.mark.parametrize(
    ("config", "words"),
    [
        (ENGLISH, "no answer suggested, judge by the photo"),
        (RUSSIAN, "ответ не предложен, решайте по фото"),
        (DAMAGE_ONLY, "no answer suggested, judge by the photo"),
    ],
)
def test_photos_without_a_suggested_answer_have_the_same_lines_whatever_they_are(
    config: str, words: str, reason: Reason | None
) -> None:
    binding = bind_label_config(config)
    suggested = {key: answer for key, answer in CLASSES.items() if key not in binding.choices}
    assert reason_line(binding, "carcond-0007", CLASSES, suggested, reason) == f"carcond-0007: {words}."
    assert confidence_line(binding, "carcond-0007", CLASSES, suggested) == f"{words} · carcond-0007"


def test_a_task_without_a_suggestion_is_named_and_its_class_is_not() -> None:
    suggested = {"cleanliness": CLASSES["cleanliness"]}
    english, russian = bind_label_config(ENGLISH), bind_label_config(RUSSIAN)
    line = confidence_line(english, "carcond-0007", CLASSES, suggested)
    assert line == "very dirty 93 %, damage: no suggestion · carcond-0007"
    line = reason_line(english, "carcond-0007", CLASSES, suggested, Reason("uncertain", "damage"))
    assert line == ("carcond-0007: very dirty 93 %, damage: no suggestion. Chosen because uncertain about damage.")
    line = confidence_line(russian, "carcond-0007", CLASSES, suggested)
    assert line == "очень грязный 93 %, целостность: без подсказки · carcond-0007"


def test_a_photo_outside_the_queue_gets_no_sentence() -> None:
    line = reason_line(bind_label_config(ENGLISH), "carcond-0007", CLASSES, CLASSES, None)
    assert line == "carcond-0007: very dirty 93 %, intact 61 %."


def test_before_there_is_a_model_the_line_says_so() -> None:
    line = reason_line(bind_label_config(ENGLISH), "carcond-0000", {}, {}, Reason("representative"))
    assert line == "carcond-0000: no answer yet."


def test_a_task_that_the_config_does_not_ask_for_is_not_told() -> None:
    assert "dirty" not in reason_line(bind_label_config(DAMAGE_ONLY), "carcond-0007", CLASSES, CLASSES, None)
