import pytest

from carcond.model.version_card import Calibration
from carcond.reports.card_text import card_text, temperature_words
from tests.carcond.made_cards import broken_cards, full_card, old_card


def test_every_line_fits_a_terminal_of_100_columns() -> None:
    card = full_card()
    card["gate"]["reason"] = "long " * 100
    assert max(map(len, card_text(card).splitlines())) <= 100


def test_the_text_has_what_the_card_says() -> None:
    card = full_card()
    shown = card_text(card)
    accuracy = card["holdout"]["damage"]["accuracy"]
    low, high = card["holdout"]["damage"]["accuracy_interval"]
    for words in (
        "Report card of carcond-0007",
        "310 for training, 90 in the hold-out, 3 without a usable photo",
        f"accuracy  {accuracy:.3f} ({low:.3f} to {high:.3f})",
        "temperature 1.23, chosen on 310 photos by cross-fitting",
        f"{card['holdout']['damage']['before']['ece']:.3f}",
        "All tasks right together: 0.654 (0.550 to 0.750) of 88 photos",
        "Gate: accepted, compared with carcond-0006. not worse",
        "Cleanliness: not tested on 4 hold-out photos: too few hold-out labels, 4 of 20",
        "probability score",
        "0.020 (-0.010 to 0.050)",
        "12 others",
    ):
        assert words in shown


@pytest.mark.parametrize(
    ("photos", "held_out", "words"),
    [
        (60, 0, "chosen on 60 training photos by cross-fitting"),
        (60, 10, "chosen on 50 training photos by cross-fitting and 10 photos of the hold-out"),
        (10, 10, "chosen on 10 photos of the hold-out"),
        (60, None, "chosen on 60 photos by cross-fitting"),
        (None, None, "chosen by cross-fitting"),
    ],
)
def test_the_photos_that_a_temperature_was_chosen_on_are_named(
    photos: int | None, held_out: int | None, words: str
) -> None:
    calibration = Calibration(temperature=1.234, cross_fitted=True, photos=photos, holdout_photos=held_out)
    assert temperature_words(calibration) == f"temperature 1.23, {words}"


def test_a_refusal_is_called_one() -> None:
    assert "Gate: refused. too bad" in card_text({"gate": {"accepted": False, "reason": "too bad"}})


def test_an_old_card_is_shown_as_far_as_it_goes() -> None:
    shown = card_text(old_card())
    assert "temperature 1.00: too few labels to choose one" in shown
    assert "Sources" not in shown


def test_an_empty_card_is_a_short_text() -> None:
    assert card_text({}).startswith("Report card of an unnamed version")


def test_a_hostile_name_neither_commands_the_terminal_nor_is_taken_for_markup() -> None:
    shown = card_text(full_card())
    assert all(c.isprintable() or c == "\n" for c in shown)
    assert "[bold]" in card_text({"version": "[bold]7"})


def test_no_malformed_part_stops_the_text() -> None:
    for card in broken_cards()[::11]:
        assert card_text(card)
