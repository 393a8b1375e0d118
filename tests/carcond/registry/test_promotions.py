from pathlib import Path

import pytest

from carcond.registry.promotions import (
    Action,
    Promotion,
    append_promotion,
    chosen_by_people,
    pin_in_force,
    read_promotions,
    served_in_turn,
)


def change(before: int | None, version: int, action: Action = "promote") -> Promotion:
    return Promotion("2026-03-01T10:00:00+00:00", action, before, version, "anna", "why not")


def test_without_a_file_there_are_no_promotions(tmp_path: Path) -> None:
    assert read_promotions(tmp_path / "promotions.jsonl") == []


def test_promotions_are_read_as_they_were_written(tmp_path: Path) -> None:
    path = tmp_path / "promotions.jsonl"
    written = [change(None, 1), change(1, 2), change(2, 1, "rollback")]
    for each in written:
        append_promotion(path, each)
    assert read_promotions(path) == written
    assert path.read_bytes().count(b"\n") == 3


def test_the_time_of_a_promotion_is_that_of_now_in_utc() -> None:
    assert Promotion.now("promote", None, 1, "loop", "").when.endswith("+00:00")


@pytest.mark.parametrize("kept", range(1, 40, 7))
def test_a_torn_last_line_loses_neither_what_was_before_nor_what_follows(kept: int, tmp_path: Path) -> None:
    path = tmp_path / "promotions.jsonl"
    append_promotion(path, change(None, 1))
    whole = path.read_bytes()
    append_promotion(path, change(1, 2))
    path.write_bytes(path.read_bytes()[: len(whole) + kept])
    append_promotion(path, change(1, 3))
    assert read_promotions(path) == [change(None, 1), change(1, 3)]


@pytest.mark.parametrize(
    "line", ["", "nonsense", "[1]", "7", "null", '{"to": "x", "action": "promote"}', '{"to": 1, "action": "x"}', "\xff"]
)
def test_a_line_that_is_no_promotion_is_skipped(line: str, tmp_path: Path) -> None:
    path = tmp_path / "promotions.jsonl"
    path.write_bytes(line.encode("latin-1") + b"\n")
    append_promotion(path, change(None, 1))
    assert read_promotions(path) == [change(None, 1)]


def test_names_and_reasons_may_be_in_any_alphabet(tmp_path: Path) -> None:
    path = tmp_path / "promotions.jsonl"
    said = Promotion("now", "promote", None, 1, "Анна\n", 'видит "грязь"\u2028\x85')
    append_promotion(path, said)
    assert read_promotions(path) == [said]


@pytest.mark.parametrize(
    ("promotions", "serving", "expected"),
    [
        ([], None, []),
        ([], 4, [4]),
        ([change(None, 1), change(1, 2), change(2, 5)], 5, [1, 2, 5]),
        ([change(None, 1), change(1, 2), change(2, 1, "rollback")], 1, [1]),
        ([change(None, 1), change(1, 2), change(2, 1, "rollback"), change(1, 3)], 3, [1, 3]),
        ([change(None, 1), change(1, 2), change(2, 1)], 1, [1, 2, 1]),
        # 2 -> 3 was not recorded
        ([change(None, 1), change(1, 2)], 3, [1, 2, 3]),
        ([change(None, 1), change(1, 2), change(3, 4)], 4, [1, 2, 3, 4]),
        # a rollback was not recorded
        ([change(None, 1), change(1, 2), change(2, 3)], 2, [1, 2]),
        ([change(None, 1), change(1, 2), change(2, 3), change(2, 4)], 4, [1, 2, 4]),
        # back to a version that served before there was a record
        ([change(5, 6), change(6, 4, "rollback")], 4, [4]),
    ],
)
def test_the_versions_that_brought_us_here(promotions: list[Promotion], serving: int, expected: list[int]) -> None:
    assert served_in_turn(promotions, serving) == expected


def person(action: Action, version: int, *, pinned: bool, who: str = "anna") -> Promotion:
    return Promotion("2026-03-01T10:00:00+00:00", action, 1, version, who, "why not", pinned)


PIN, UNPIN = person("pin", 2, pinned=True), person("unpin", 2, pinned=False)


@pytest.mark.parametrize(
    ("promotions", "pinned"),
    [
        ([], None),
        ([change(None, 1), change(1, 2)], None),
        ([PIN], 2),
        ([PIN, UNPIN], None),
        ([UNPIN], None),
        ([PIN, UNPIN, person("rollback", 1, pinned=True)], 1),
        ([PIN, person("promote", 3, pinned=True)], 3),
        # a candidate was promoted in the very moment
        ([PIN, person("promote", 3, pinned=False, who="loop")], 2),
        # a program that knows no pins
        ([PIN, person("promote", 3, pinned=False)], None),
    ],
)
def test_the_pin_in_force_is_the_last_that_nobody_ended(promotions: list[Promotion], pinned: int | None) -> None:
    pin = pin_in_force(promotions)
    assert (pin.version if pin else None) == pinned


def test_pins_are_read_as_they_were_written_and_change_nothing_of_what_served(tmp_path: Path) -> None:
    path = tmp_path / "promotions.jsonl"
    written = [change(None, 1), change(1, 2), PIN, UNPIN, person("rollback", 1, pinned=True)]
    for each in written:
        append_promotion(path, each)
    assert read_promotions(path) == written
    assert served_in_turn(written[:4], 2) == [1, 2]


def test_a_record_of_before_there_were_pins_has_none(tmp_path: Path) -> None:
    path = tmp_path / "promotions.jsonl"
    line = '{"when": "2026", "action": "rollback", "from": 2, "to": 1, "who": "anna", "why": "worse"}'
    path.write_text(f"{line}\n")
    assert read_promotions(path) == [Promotion("2026", "rollback", 2, 1, "anna", "worse")]
    assert pin_in_force(read_promotions(path)) is None


def test_what_people_chose_and_what_that_replaced_is_known() -> None:
    record = [change(None, 1), Promotion("now", "promote", 1, 2, "loop", ""), change(2, 4), UNPIN]
    assert chosen_by_people(record) == {1, 2, 4}
