from typing import Any

from backend.label_studio.annotator_names import annotators_of, known_names, named_card
from backend.label_studio.client import LabelStudioApi
from carcond.analysis.label_quality import RatedPhoto, quality_report
from carcond.reports.card_text import card_text
from tests.carcond.made_cards import full_card

KNOWN = {5: "Anna Kim", 6: "boris@example.com"}


def test_a_report_card_names_its_annotators() -> None:
    text = card_text(named_card(full_card(), KNOWN))
    assert "Anna Kim" in text
    assert "boris@exa" in text  # the rest is on the next line: the column is narrow
    assert "user 5" in card_text(named_card(full_card(), {}))


def test_rows_of_others_together_and_cards_without_annotators_stay_as_they_are() -> None:
    others: dict[str, Any] = {"annotators": [{"annotators": 12, "labels": 3}, {"annotator": "x"}]}
    assert named_card(others, KNOWN) == others
    assert named_card({"version": "carcond-0001"}, KNOWN) == {"version": "carcond-0001"}


def test_everybody_in_the_agreement_has_a_name() -> None:
    said = {5: {"damage": "intact"}, 6: {"damage": "damaged"}, 7: {"damage": "intact"}}
    report = quality_report([RatedPhoto(1, opinions=said)])
    assert annotators_of(report["agreement"], KNOWN) == {"5": "Anna Kim", "6": "boris@example.com", "7": "user 7"}


def test_while_label_studio_is_away_nobody_has_a_name_and_nothing_fails() -> None:
    assert known_names(LabelStudioApi("http://127.0.0.1:1", "key")) == {}
