import pytest

from backend.label_studio.label_config import bind_label_config
from backend.loop.explanation_line import reason_line
from carcond.query.live_queue import Cause, Reason
from tests.backend.label_configs import DAMAGE_ONLY, ENGLISH, RUSSIAN

CLASSES = {"cleanliness": ("very_dirty", 0.934), "damage": ("intact", 0.61)}


def test_the_line_tells_version_both_confidences_and_why() -> None:
    line = reason_line(bind_label_config(ENGLISH), "carcond-0007", CLASSES, Reason("uncertain", "damage"))
    assert line == "carcond-0007: very dirty 93 %, intact 61 %. Chosen because uncertain about damage."


def test_a_russian_config_is_answered_in_russian() -> None:
    line = reason_line(bind_label_config(RUSSIAN), "carcond-0007", CLASSES, Reason("uncertain", "damage"))
    assert line == "carcond-0007: очень грязный 93 %, целый 61 %. Выбрано: нет уверенности (целостность)."


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (ENGLISH, "Chosen because no photo left is much less sure (cleanliness)."),
        (RUSSIAN, "Выбрано: намного менее уверенных ответов не осталось (чистота)."),
    ],
)
def test_an_answer_that_is_sure_is_not_called_uncertain(config: str, words: str) -> None:
    line = reason_line(bind_label_config(config), "carcond-0007", CLASSES, Reason("uncertain", "cleanliness"))
    assert line.endswith(words)


@pytest.mark.parametrize(
    ("cause", "words"), [("holdout", "random for the hold-out"), ("representative", "representative")]
)
def test_other_causes_name_no_task(cause: Cause, words: str) -> None:
    line = reason_line(bind_label_config(ENGLISH), "carcond-0007", CLASSES, Reason(cause))
    assert words in line
    assert "{" not in line


def test_a_photo_outside_the_queue_gets_no_sentence() -> None:
    line = reason_line(bind_label_config(ENGLISH), "carcond-0007", CLASSES, None)
    assert line == "carcond-0007: very dirty 93 %, intact 61 %."


def test_before_there_is_a_model_the_line_says_so() -> None:
    line = reason_line(bind_label_config(ENGLISH), "carcond-0000", {}, Reason("representative"))
    assert line == "carcond-0000: no answer yet. Selected as representative of many photos."


def test_a_task_that_the_config_does_not_ask_for_is_not_told() -> None:
    assert "dirty" not in reason_line(bind_label_config(DAMAGE_ONLY), "carcond-0007", CLASSES, None)
