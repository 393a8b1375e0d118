import pytest

from backend.dashboard.sentences import balance_rows, forecast_sentence, measure_words, saved_sentence
from carcond.analysis.forecast import Forecast, Gain
from carcond.analysis.label_quality import class_balance
from carcond.analysis.labels_saved import LabelsSaved
from carcond.model.version_card import Measure
from carcond.taxonomy import DAMAGE


@pytest.mark.parametrize(
    ("figure", "words"),
    [
        (Measure(0.91234, 0.9, 0.95), ("0.912", "0.900 to 0.950")),
        (Measure(0.5), ("0.500", "")),
        (Measure(), ("–", "")),
    ],
)
def test_a_measure_is_told_with_its_interval(figure: Measure, words: tuple[str, str]) -> None:
    assert measure_words(figure) == words


def test_labels_saved_are_told_with_their_band() -> None:
    told = saved_sentence(LabelsSaved(900, 100, 80, 0.6, 0.4, 0.9).as_json())
    assert told == (
        "Choosing photos saved 40 % of the labels that random ones take (10 % to 60 %, 90 % interval), seen on the "
        "first 80 labels."
    )


def test_a_choice_that_is_worse_than_chance_is_called_so() -> None:
    told = saved_sentence(LabelsSaved(900, 100, 80, 1.25, 1.1, 1.5).as_json())
    assert told == (
        "Chosen labels taught less than random ones: 1.25 times as many are needed (1.10 to 1.50, 90 % interval), seen "
        "on the first 80 labels."
    )


def test_what_is_not_known_says_what_is_missing() -> None:
    assert saved_sentence(LabelsSaved(9, 2, missing="28 more labels").as_json()) == "Not yet known: 28 more labels."
    assert saved_sentence({}) == "Not yet known: too few labels."
    told = forecast_sentence(Forecast(10, 2, {}, "50 more labels to train on").as_json())
    assert told == "Too early to tell: 50 more labels to train on are needed."


@pytest.mark.parametrize(
    ("state", "begin"),
    [("rising", "100 more labels should"), ("slow", "100 more"), ("flat", "100 more labels of this kind will hardly")],
)
def test_a_forecast_says_what_to_expect_and_advises_nothing(state: str, begin: str) -> None:
    gains = {name: Gain(0.9, 0.02, -0.01, 0.05, state) for name in ("accuracy", "macro_f1")}
    told = forecast_sentence(Forecast(100, 20, gains).as_json())
    assert told.startswith(begin)
    assert not any(word in told.lower() for word in ("go on", "stop"))
    assert "accuracy +0.020 (-0.010 to +0.050) and macro-F1 +0.020" in told


def test_every_class_has_a_row_also_one_without_labels() -> None:
    assert balance_rows(class_balance([]), DAMAGE) == [
        {"class": "intact", "labels": 0, "state": "too few"},
        {"class": "damaged", "labels": 0, "state": "too few"},
    ]
