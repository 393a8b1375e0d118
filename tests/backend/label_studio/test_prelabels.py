from typing import Any

import pytest

from backend.label_studio.client import StoredPrediction
from backend.label_studio.label_config import bind_label_config
from backend.label_studio.prelabels import read_prelabels
from carcond.data.annotations import Prelabel
from carcond.registry.version_names import SUPERSEDED_VERSION
from tests.backend.label_configs import ENGLISH, RUSSIAN

BINDING = bind_label_config(ENGLISH)


def prediction(version: str, result: list[dict[str, Any]], **hidden: tuple[str, float]) -> StoredPrediction:
    return StoredPrediction(9, 1, version, 0.5, 3, result=result, hidden=hidden)


def suggested(**classes: tuple[str, float]) -> list[dict[str, Any]]:
    return BINDING.result(classes)


def submitted(origin: str, **classes: tuple[str, float]) -> list[dict[str, Any]]:
    """Regions as the page submits those that a prediction had."""
    return [region | {"origin": origin} for region in suggested(**classes)]


def manual(**classes: str) -> list[dict[str, Any]]:
    """Regions as the page submits those that it had not opened with."""
    regions = suggested(**{task: (key, 0.0) for task, key in classes.items()})
    return [
        {name: value for name, value in each.items() if name != "score"} | {"id": "u4wi-eGjgV", "origin": "manual"}
        for each in regions
    ]


def test_a_suggestion_that_was_left_as_it_was_is_what_was_shown() -> None:
    """Although the prediction has moved on to another answer meanwhile."""
    result = submitted("prediction", damage=("intact", 0.7))
    moved = prediction("carcond-0009", suggested(damage=("damaged", 0.6)))
    assert read_prelabels(BINDING, result, [moved]) == {"damage": Prelabel("intact", 0.7, shown=True)}


def test_a_changed_suggestion_is_found_by_its_confidence_among_the_versions() -> None:
    result = submitted("prediction-changed", cleanliness=("clean", 0.48))
    others = [
        prediction("carcond-0002", suggested(cleanliness=("very_dirty", 0.48))),
        prediction("carcond-0003", suggested(cleanliness=("clean", 0.64))),
    ]
    assert read_prelabels(BINDING, result, others) == {"cleanliness": Prelabel("very_dirty", 0.48, shown=True)}


def test_a_suggestion_that_was_changed_and_changed_back_equals_the_label() -> None:
    result = submitted("prediction-changed", damage=("damaged", 0.51))
    found = read_prelabels(BINDING, result, [prediction("carcond-0002", suggested(damage=("damaged", 0.51)))])
    assert found == {"damage": Prelabel("damaged", 0.51, shown=True)}


def test_of_a_changed_suggestion_that_no_prediction_has_any_more_the_class_is_not_known() -> None:
    result = submitted("prediction-changed", damage=("damaged", 0.51))
    moved = prediction("carcond-0009", suggested(damage=("intact", 0.6)))
    assert read_prelabels(BINDING, result, [moved]) == {"damage": Prelabel(None, 0.51, shown=True)}
    assert read_prelabels(BINDING, result, []) == {"damage": Prelabel(None, 0.51, shown=True)}


def test_an_answer_that_no_prediction_shows_was_hidden() -> None:
    rows = [
        prediction("carcond-0003", [], damage=("damaged", 0.9)),
        prediction("carcond-0002", [], damage=("intact", 0.6)),
        prediction(SUPERSEDED_VERSION, [], damage=("intact", 0.7)),
    ]
    found = read_prelabels(BINDING, manual(damage="intact"), rows)
    assert found == {"damage": Prelabel("damaged", 0.9, shown=False)}


def test_one_task_may_be_shown_and_the_other_hidden() -> None:
    row = prediction("carcond-0003", suggested(damage=("intact", 0.9)), cleanliness=("clean", 0.4))
    result = submitted("prediction", damage=("intact", 0.9)) + manual(cleanliness="very_dirty")
    assert read_prelabels(BINDING, result, [row]) == {
        "damage": Prelabel("intact", 0.9, shown=True),
        "cleanliness": Prelabel("clean", 0.4, shown=False),
    }


def test_a_suggestion_that_was_taken_back_and_given_anew_is_neither_shown_nor_hidden() -> None:
    rows = [
        prediction("carcond-0002", suggested(damage=("intact", 0.9))),
        prediction("carcond-0003", [], damage=("intact", 0.5)),
    ]
    assert read_prelabels(BINDING, manual(damage="intact"), rows) == {}


def test_labels_of_scripts_and_other_models_tell_of_no_pre_label() -> None:
    copied = suggested(damage=("intact", 0.9))
    others = [region | {"id": "xyz"} for region in submitted("prediction", damage=("intact", 0.9))]
    theirs = prediction("other-v3", [], damage=("intact", 0.9))
    for result in (copied, others, []):
        assert read_prelabels(BINDING, result, [theirs]) == {}


@pytest.mark.parametrize("change", [{"score": None}, {"score": "high"}, {"score": 7}, {"origin": 3}])
def test_odd_regions_are_passed_over(change: dict[str, Any]) -> None:
    result = [region | change for region in submitted("prediction", damage=("intact", 0.9))]
    assert read_prelabels(BINDING, result, []) == {}


def test_a_region_without_a_word_of_the_config_has_no_known_class() -> None:
    result = [region | {"value": 3} for region in submitted("prediction", damage=("intact", 0.9))]
    assert read_prelabels(BINDING, result, []) == {"damage": Prelabel(None, 0.9, shown=True)}


def test_words_of_another_language_are_read() -> None:
    binding = bind_label_config(RUSSIAN)
    result = [region | {"origin": "prediction"} for region in binding.result({"damage": ("damaged", 0.8)})]
    assert read_prelabels(binding, result, []) == {"damage": Prelabel("damaged", 0.8, shown=True)}
