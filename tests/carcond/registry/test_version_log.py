from pathlib import Path
from typing import Any

import pytest

from carcond.registry.version_log import VersionLog, figures
from tests.carcond.made_cards import broken_cards, full_card
from tests.disk import full_disk


def line(number: int, pruned: str = "2026-03-01T10:00:00+00:00") -> dict[str, Any]:
    return {"version": f"carcond-{number:04d}", "number": number, "kept": "", "pruned": pruned}


def test_without_a_file_there_are_no_rows(tmp_path: Path) -> None:
    assert VersionLog(tmp_path / "versions.jsonl").rows() == {}


def test_rows_are_read_as_they_were_written_and_the_last_one_of_a_version_holds(tmp_path: Path) -> None:
    log = VersionLog(tmp_path / "versions.jsonl")
    log.append([line(2), line(1)])
    assert log.rows() == {1: line(1), 2: line(2)}
    log.append([line(2, pruned="")])
    assert log.rows() == {1: line(1), 2: line(2, pruned="")}


@pytest.mark.parametrize(
    "text", ["", "nonsense", "[1]", "null", '{"number": "1"}', '{"number": 1, "kept": ""}', "\xff"]
)
def test_a_line_that_is_none_is_skipped(text: str, tmp_path: Path) -> None:
    path = tmp_path / "versions.jsonl"
    path.write_bytes(text.encode("latin-1"))
    log = VersionLog(path)
    log.append([line(1)])
    assert log.rows() == {1: line(1)}


def test_a_line_that_a_full_disk_tore_is_written_anew(tmp_path: Path) -> None:
    log = VersionLog(tmp_path / "versions.jsonl")
    log.append([line(1)])
    with full_disk(len((tmp_path / "versions.jsonl").read_bytes()) + 20), pytest.raises(OSError, match="too large"):
        log.append([line(2)])
    assert log.rows() == {1: line(1)}
    log.append([line(2)])
    assert list(log.rows()) == [1, 2]


def test_figures_are_those_of_the_card() -> None:
    found = figures(full_card())
    assert found["labels"] == {"train": 310, "holdout": 90}
    assert set(found["holdout"]["damage"]) == {"photos", "accuracy", "macro_f1"}
    assert found["gate"].keys() == {"accepted", "reason"}


def test_no_card_is_too_broken_for_figures() -> None:
    for card in broken_cards():
        assert figures(card).keys() == {"created", "encoder_id", "labels", "holdout", "gate"}
