import pytest

from carcond.json_fields import count, flag, format_timestamp, mapping, number, rows, sanitize_line, text


def test_control_and_direction_characters_are_replaced() -> None:
    assert sanitize_line("a\x1b[31mb\nc\u202ed") == "a\N{REPLACEMENT CHARACTER}[31mb\N{REPLACEMENT CHARACTER}c" + (
        "\N{REPLACEMENT CHARACTER}d"
    )


def test_letters_of_any_language_stay() -> None:
    assert sanitize_line("Целостность: битый é 車") == "Целостность: битый é 車"


@pytest.mark.parametrize(
    ("stated", "shown"),
    [
        ("2026-03-01T10:00:00+00:00", "2026-03-01 10:00:00 UTC"),
        ("", ""),
        ("yesterday", "yesterday"),
        ("T+00:00", "T+00:00"),
    ],
)
def test_a_time_is_shown_as_people_read_it_and_anything_else_as_it_is(stated: str, shown: str) -> None:
    assert format_timestamp(stated) == shown


def test_a_long_text_is_cut() -> None:
    assert sanitize_line("x" * 5000) == "x" * 79 + "…"
    assert sanitize_line("x" * 80) == "x" * 80


@pytest.mark.parametrize("value", [None, "0.5", True, [], {}, float("nan"), float("inf"), 10**400])
def test_what_is_no_number_that_can_be_shown_is_none(value: object) -> None:
    assert number({"it": value}, "it") is None
    assert count({"it": value}, "it") is None


def test_a_number_is_a_number() -> None:
    assert number({"it": 3}, "it") == 3.0
    assert count({"it": 3.0}, "it") == 3


@pytest.mark.parametrize("value", [None, 3, "text", [1, "two", None]])
def test_what_is_no_object_is_empty(value: object) -> None:
    assert mapping({"it": value}, "it") == {}
    assert rows({"it": value}, "it") == []


def test_objects_are_picked_from_a_list() -> None:
    assert rows({"it": [{"a": 1}, 3, None]}, "it") == [{"a": 1}]


def test_only_true_and_false_are_flags() -> None:
    assert [flag({"it": value}, "it") for value in (True, False, 1, "true", None)] == [True, False, None, None, None]


def test_a_missing_text_is_empty_and_any_other_is_written_out() -> None:
    assert (text({}, "it"), text({"it": 7}, "it")) == ("", "7")
