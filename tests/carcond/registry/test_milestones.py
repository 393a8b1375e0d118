from typing import Any

import pytest

from carcond.registry.milestones import Past, reason_to_keep, size_reached


def row(
    number: int, labels: int, encoder: str = "lite", accepted: bool | None = True, served: bool = True
) -> dict[str, Any]:
    return {
        "number": number,
        "encoder_id": encoder,
        "labels": {"train": labels - labels // 10, "holdout": labels // 10},
        "gate": None if accepted is None else {"accepted": accepted, "reason": ""},
        "promoted": {"when": "2026-03-01T10:00:00+00:00"} if served else None,
    }


def kept(*rows: dict[str, Any], chosen: set[int] | None = None) -> dict[int, str]:
    """Number -> reason of those that are kept, of versions in their order."""
    past, reasons = Past(), {}
    for each in rows:
        reason = reason_to_keep(each, past, chosen or set())
        if reason:
            reasons[each["number"]] = reason
        past = past.after(each)
    return reasons


@pytest.mark.parametrize(
    ("labels", "size"),
    [
        *((0, 0), (9, 0), (10, 10), (24, 10), (25, 25), (50, 50), (99, 50), (100, 100), (149, 100), (150, 150)),
        *((200, 200), (299, 200), (300, 300), (400, 400), (500, 500), (749, 500), (750, 750), (999, 750)),
        *((1000, 1000), (1499, 1000), (1500, 1500), (7500, 7500), (10_000, 10_000), (123_456, 100_000)),
    ],
)
def test_sizes_are_round_numbers(labels: int, size: int) -> None:
    assert size_reached(labels) == size


def test_from_a_hundred_labels_on_half_of_any_number_has_a_milestone_of_two_thirds_of_it_or_more() -> None:
    assert all(size_reached(half) * 3 >= half * 2 for half in range(100, 20_000))


def test_a_thousand_versions_of_a_label_each_have_a_dozen_milestones() -> None:
    reasons = kept(*(row(number, number + 1) for number in range(1, 1000)))
    assert list(reasons) == [1, 9, 24, 49, 99, 149, 199, 299, 399, 499, 749, 999]
    assert reasons[1] == "the first version"
    assert reasons[99] == "the first with 100 labels"


def test_a_size_that_was_passed_over_or_reached_again_has_one_milestone() -> None:
    assert list(kept(row(1, 8), row(2, 60), row(3, 45), row(4, 52))) == [1, 2]


def test_a_refused_version_is_no_milestone_of_its_size() -> None:
    assert kept(row(1, 48), row(2, 50, accepted=False, served=False), row(3, 51)) == {
        1: "the first version",
        2: "refused by the gate",
        3: "the first with 50 labels",
    }


def test_of_refusals_in_a_row_the_first_is_kept() -> None:
    rows = [row(1, 60), *(row(n, 60 + n, accepted=False, served=False) for n in (2, 3, 4)), row(5, 70)]
    assert list(kept(*rows, row(6, 71, accepted=False, served=False))) == [1, 2, 6]


def test_the_first_on_each_encoder_is_kept_and_the_first_there_that_was_tried() -> None:
    rows = [row(1, 60), row(2, 61, "tuned", served=False), row(3, 62, "tuned"), row(4, 63, "tuned"), row(5, 64)]
    assert kept(*rows) == {1: "the first version", 2: "the first on its encoder", 3: "the trial of its encoder"}


def test_what_a_person_chose_and_what_cannot_be_read_is_kept() -> None:
    broken = {"number": 3, "error": "no card"}
    assert kept(row(1, 60), row(2, 61), broken, row(4, 62), chosen={2}) == {
        1: "the first version",
        2: "chosen or replaced by a person",
        3: "its card cannot be read",
    }


def test_versions_of_before_there_was_a_gate_were_refused_by_nobody() -> None:
    assert list(kept(row(1, 60, accepted=None), row(2, 61, accepted=None))) == [1]
