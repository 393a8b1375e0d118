import pytest

from backend.project.label_advice import labelling_advice, outlook


def forecasts(cleanliness: str, damage: str) -> dict[str, dict[str, object]]:
    states = {"cleanliness": cleanliness, "damage": damage}
    return {task: {"state": state, "next_labels": 100} for task, state in states.items()}


@pytest.mark.parametrize(
    ("cleanliness", "damage", "advice"),
    [
        ("rising", "rising", "Go on labelling."),
        ("too few labels", "rising", "Go on labelling."),
        ("rising", "flat", "Go on labelling, for cleanliness; damage will hardly gain from more labels of this kind."),
        ("too few labels", "flat", "Go on labelling, for cleanliness; damage will hardly gain"),
        ("slow", "rising", "Go on labelling, for damage; cleanliness should gain less than a point."),
        ("slow", "flat", "Go on labelling if less than a point matters: 100 more labels should bring no more."),
        ("flat", "flat", "More labels of this kind will hardly help: stop"),
    ],
)
def test_the_advice_is_one_for_all_tasks(cleanliness: str, damage: str, advice: str) -> None:
    assert labelling_advice(forecasts(cleanliness, damage)).startswith(advice)


def test_without_a_label_people_begin() -> None:
    assert labelling_advice({}) == "Go on labelling."


@pytest.mark.parametrize("state", ["rising", "slow", "flat"])
def test_the_outlook_of_one_task_advises_nothing(state: str) -> None:
    words = outlook({"state": state, "next_labels": 100})
    assert words.startswith("100 more labels ")
    assert not any(advice in words.lower() for advice in ("go on", "stop"))


def test_what_is_not_known_has_no_outlook() -> None:
    assert outlook({"state": "too few labels"}) == ""
