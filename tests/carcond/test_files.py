from pathlib import Path

import pytest

from carcond.files import new_directory, replace_text
from tests.disk import full_disk


def test_replacing_makes_the_file_when_it_is_new(tmp_path: Path) -> None:
    replace_text(tmp_path / "file", "слово\n")
    assert (tmp_path / "file").read_text(encoding="utf-8") == "слово\n"


def test_a_reader_with_the_old_file_open_goes_on_reading_the_old_text(tmp_path: Path) -> None:
    replace_text(tmp_path / "file", "old")
    with (tmp_path / "file").open() as reader:
        replace_text(tmp_path / "file", "new")
        assert reader.read() == "old"
    assert (tmp_path / "file").read_text() == "new"


def test_a_replaced_file_can_be_read_by_other_users(tmp_path: Path) -> None:
    replace_text(tmp_path / "file", "text")
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o644


def test_on_a_full_disk_the_old_text_stays_and_nothing_else(tmp_path: Path) -> None:
    replace_text(tmp_path / "file", "old")
    with full_disk(100), pytest.raises(OSError, match="File too large"):
        replace_text(tmp_path / "file", "x" * 1000)
    assert (tmp_path / "file").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_new_directory_is_not_seen_before_it_is_complete(tmp_path: Path) -> None:
    with new_directory(tmp_path / "parent" / "new") as draft:
        (draft / "file").write_text("text")
        assert not (tmp_path / "parent" / "new").exists()
    assert (tmp_path / "parent" / "new" / "file").read_text() == "text"
    assert [path.name for path in (tmp_path / "parent").iterdir()] == ["new"]


def test_a_block_that_raises_leaves_no_directory_behind(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="stop"), new_directory(tmp_path / "new") as draft:  # noqa: PT012
        (draft / "file").write_text("text")
        raise ValueError("stop")
    assert list(tmp_path.iterdir()) == []


def test_a_directory_that_somebody_made_meanwhile_stays(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="not empty"), new_directory(tmp_path / "new") as draft:  # noqa: PT012
        (draft / "file").write_text("mine")
        (tmp_path / "new").mkdir()
        (tmp_path / "new" / "file").write_text("theirs")
    assert (tmp_path / "new" / "file").read_text() == "theirs"
    assert [path.name for path in tmp_path.iterdir()] == ["new"]
