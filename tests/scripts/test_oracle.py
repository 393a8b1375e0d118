from pathlib import Path

import pytest

from scripts.oracle import read_truth
from scripts.preflight import StackError


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "labels.csv"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_task_without_a_column_is_unknown(tmp_path: Path) -> None:
    [truth] = read_truth(written(tmp_path, "file,damage\na.jpg,intact\n")).values()
    assert truth.classes == {"damage": "intact"}


def test_a_table_without_any_task_or_without_files_is_refused(tmp_path: Path) -> None:
    for text in ("file,colour\na.jpg,red\n", "photo,damage\na.jpg,intact\n", ""):
        with pytest.raises(StackError, match="expected the column file and at least one of cleanliness, damage"):
            read_truth(written(tmp_path, text))


def test_a_class_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StackError, match="'bent' is no class of damage"):
        read_truth(written(tmp_path, "file,damage\na.jpg,bent\n"))
