from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from carcond.model.version_card import ONE_CLASS, Measure, VersionCard
from carcond.reports.card_page import card_page
from carcond.reports.card_text import card_text
from tests.carcond.made_cards import broken_cards, full_card, old_card


def test_tasks_come_in_their_usual_order_with_their_names() -> None:
    card = full_card()
    card["holdout"] = dict(reversed(card["holdout"].items()))
    assert [task.name for task in VersionCard.read(card).tasks] == ["Cleanliness", "Damage"]


def test_a_figure_has_its_interval() -> None:
    assert VersionCard.read(full_card()).combined.accuracy_measure == Measure(0.6543, 0.55, 0.75)


def test_classes_have_the_names_that_people_read() -> None:
    cleanliness = VersionCard.read(full_card()).tasks[0]
    assert [name for name, _ in cleanliness.classes] == ["clean", "slightly dirty", "very dirty"]


def test_an_old_card_has_its_confusion_and_its_likelihood() -> None:
    cleanliness, damage = VersionCard.read(old_card()).tasks
    assert (cleanliness.metrics.photos, cleanliness.labels) == (None, 0)
    assert damage.metrics.confusion == [[2, 0], [1, 0]]
    assert [name for name, _ in damage.classes] == ["intact", "damaged"]
    assert damage.metrics.nll == 0.51
    assert damage.metrics.before.ece is None


def test_an_unknown_task_is_shown_by_its_key() -> None:
    card = {"holdout": {"rust": {"photos": 4, "accuracy": 0.5, "confusion": [[1, 1], [1, 1]]}}}
    (task,) = VersionCard.read(card).tasks
    assert (task.name, [name for name, _ in task.classes]) == ("rust", ["class 1", "class 2"])


def test_what_is_left_of_the_sources_is_named_by_its_number() -> None:
    assert VersionCard.read(full_card()).sources[1].name == "12 others"


def test_an_empty_card_is_an_empty_report() -> None:
    report = VersionCard.read({})
    assert (report.tasks, report.gate, report.sources, report.annotators) == ([], None, (), ())


def test_no_malformed_part_stops_the_reading() -> None:
    for card in broken_cards():
        for task in VersionCard.read(card).tasks:
            assert not task.metrics.confusion or len(task.metrics.confusion) == len(task.classes)


def test_a_holdout_of_one_class_has_no_macro_f1_even_in_a_card_that_says_so() -> None:
    card = full_card()
    card["holdout"]["damage"] |= {"confusion": [[9, 1], [0, 0]], "macro_f1": 1.0}
    report = VersionCard.read(card)
    damage = report.holdout["damage"]
    assert (damage.is_one_class, damage.macro_f1_measure) == (True, Measure())
    both = (VersionCard.read(full_card()), report)
    shown = [[set(compared) for name, _, compared in each.gate_tasks if name == "Damage"] for each in both]
    assert [{"macro-F1"} <= names for (names,) in shown] == [True, False]
    assert ONE_CLASS in card_text(card)
    assert ONE_CLASS.capitalize() in card_page(card)


def test_a_key_that_no_text_can_hold_stops_nothing() -> None:
    report = VersionCard.read({"\ud800": 1, "version": "\ud800", "holdout": {"\ud800": {"\ud800": 1, "photos": 3}}})
    assert [report.version, *(task.name for task in report.tasks)] == ["\N{REPLACEMENT CHARACTER}"] * 2


def test_what_is_written_is_what_was_given_and_unknown_keys_of_later_programs_are_left_out() -> None:
    card = full_card()
    assert VersionCard(**card).facts() == card
    assert VersionCard.read(card | {"weather": "rain"}) == VersionCard.read(card)


@pytest.mark.parametrize(
    "mistake",
    [
        {"weather": "rain"},
        {"created": None},
        {"fit_seconds": "3.8"},
        {"labels": {"train": np.float32(3)}},
        {"labels": {"train": 3.0}},
        {"labels": {"train": True}},
        {"labels": {"training": 3}},
        {"holdout": {"damage": {"confusion": [[1, "2"], [3, 4]]}}},
        {"holdout": {"damage": None}},
        {"gate": {"accepted": "yes"}},
        {"gate": {"tasks": {"damage": {"macro_f1": 0.5}}}},
        {"sources": [{"labels": "many"}]},
    ],
)
def test_a_card_with_a_mistake_cannot_be_made(mistake: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        VersionCard(**mistake)
