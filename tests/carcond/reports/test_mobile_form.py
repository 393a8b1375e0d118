from dataclasses import replace

import numpy as np
import pytest

from carcond.data.photo_checks import Fault, Remark
from carcond.model.inference import TaskCondition, combine
from carcond.reports.mobile_form import (
    LANGUAGES,
    Language,
    car_condition_form,
    fault_message,
    remark_message,
    safety_level,
)
from carcond.taxonomy import DAMAGE
from tests.carcond.conditions import FINE, photo_condition


def damage_of(intact: float) -> TaskCondition:
    return TaskCondition(DAMAGE, np.array([intact, 1 - intact], np.float32))


def test_the_form_has_the_fields_that_applications_know() -> None:
    car = combine([photo_condition(cleanliness=(0.92, 0.05, 0.03), damage=(0.89, 0.11))])
    assert car_condition_form(car, "en") == {
        "cleanliness": {"status": "clean", "confidence": 0.92, "display_message": "The car is clean. Nice!"},
        "damage": {"status": "intact", "confidence": 0.89, "safety_level": "high"},
    }


@pytest.mark.parametrize(("language", "word"), [("en", "wash"), ("ru", "вымойте")])
def test_a_dirty_car_is_to_be_washed_in_the_language_asked_for(language: Language, word: str) -> None:
    car = combine([photo_condition(cleanliness=(0.0, 0.1, 0.9))])
    assert word in car_condition_form(car, language)["cleanliness"]["display_message"]


def test_a_photo_with_a_fault_gets_an_answer_and_no_guess() -> None:
    car = combine([photo_condition(stats=replace(FINE, brightness=0.01))])
    assert car_condition_form(car, "en") == {
        "cleanliness": {
            "status": "unknown",
            "confidence": 0.0,
            "display_message": "The photo is too dark: please take it again in better light.",
        },
        "damage": {"status": "unknown", "confidence": 0.0, "safety_level": "unknown"},
    }


def test_a_model_that_has_not_learnt_cleanliness_says_so() -> None:
    form = car_condition_form(combine([photo_condition(cleanliness=None)]), "en")
    assert form["cleanliness"]["status"] == "unknown"
    assert "cannot be told yet" in form["cleanliness"]["display_message"]
    assert form["damage"]["status"] == "intact"


@pytest.mark.parametrize(
    ("intact", "level"), [(0.9, "high"), (0.75, "high"), (0.7, "medium"), (0.3, "medium"), (0.1, "low")]
)
def test_safety_goes_by_damage_and_how_sure_it_is(intact: float, level: str) -> None:
    assert safety_level(damage_of(intact)) == level


def test_nothing_known_of_damage_is_no_safety() -> None:
    assert safety_level(None) == "unknown"


def test_every_fault_and_remark_has_a_message_of_its_own_in_each_language() -> None:
    messages = [fault_message(fault, language) for fault in Fault for language in LANGUAGES]
    messages += [remark_message(remark, language) for remark in Remark for language in LANGUAGES]
    assert len(set(messages)) == (len(Fault) + len(Remark)) * len(LANGUAGES)
