from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from carcond.arrays import UNKNOWN
from carcond.data.label_table import measured_rows, read_rows, task_labels
from carcond.errors import LabelTableError

Write = Callable[[str], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(text: str) -> Path:
        path = tmp_path / "labels.csv"
        path.write_text(text, encoding="utf-8")
        return path

    return write


def test_words_in_any_known_language_become_classes_and_empty_cells_unknown(write: Write) -> None:
    rows = read_rows(write("file,damage\na.jpg,битый\nb.jpg,intact\nc.jpg,\n"))
    labels = task_labels(rows)["damage"]
    assert [labels.task.class_keys[i] if i != UNKNOWN else None for i in labels.indices] == ["damaged", "intact", None]
    assert list(labels.known) == [True, True, False]


def test_a_column_that_stands_for_a_task_brings_its_own_classes(write: Write) -> None:
    rows = read_rows(write("file,damage,detail\na.jpg,damaged,minor\nb.jpg,damaged,severe\nc.jpg,intact,\n"))
    labels = task_labels(rows, {"damage": "detail"})["damage"]
    assert labels.task.class_keys == ("minor", "severe")
    assert list(labels.indices) == [0, 1, UNKNOWN]


def test_a_task_of_one_class_is_left_out(write: Write) -> None:
    rows = read_rows(write("file,damage,cleanliness\na.jpg,damaged,clean\nb.jpg,intact,clean\n"))
    assert list(task_labels(rows)) == ["damage"]


def test_rows_are_kept_by_the_value_of_a_column(write: Write) -> None:
    path = write("file,damage,source\na.jpg,intact,x\nb.jpg,damaged,y\nc.jpg,intact,y\n")
    assert [row["file"] for row in read_rows(path, {"source": "y"})] == ["b.jpg", "c.jpg"]


def test_a_byte_order_mark_is_no_part_of_the_header(write: Write) -> None:
    assert read_rows(write("\ufefffile,damage\na.jpg,intact\n"))[0]["file"] == "a.jpg"


def test_the_split_of_the_file_is_kept(write: Write) -> None:
    rows = read_rows(write("file,damage,split\na.jpg,intact,train\nb.jpg,damaged,test\n"))
    np.testing.assert_array_equal(measured_rows(rows), [False, True])


@pytest.mark.parametrize("text", ["file,damage\na.jpg,intact\n", "file,damage,split\na.jpg,intact,\n"])
def test_without_a_marked_row_there_is_no_split(text: str, write: Write) -> None:
    assert measured_rows(read_rows(write(text))) is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "at least one row"),
        ("file,damage\n", "at least one row"),
        ("photo,damage\na.jpg,intact\n", "expected a column 'file', got the columns photo, damage"),
        ("file,damage\na.jpg,rusty\nb.jpg,intact\n", "got 'rusty'"),
        ("file,damage\na.jpg,clean\nb.jpg,intact\n", "got 'clean'"),
        ("file,damage\na.jpg,intact\n", "at least two classes"),
        ("file,colour\na.jpg,red\n", "at least two classes"),
    ],
)
def test_a_table_that_cannot_be_used_is_refused_with_what_came(write: Write, text: str, message: str) -> None:
    path = write(text)
    with pytest.raises(LabelTableError, match=message):
        task_labels(read_rows(path))


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LabelTableError, match="cannot be read"):
        read_rows(tmp_path / "none.csv")


def test_a_file_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    path.write_bytes("file,damage\na.jpg,битый\n".encode("cp1251"))
    with pytest.raises(LabelTableError, match="UTF-8"):
        read_rows(path)


def test_a_value_that_no_row_has_is_refused_with_those_there_are(write: Write) -> None:
    path = write("file,source\na.jpg,x\nb.jpg,y\n")
    with pytest.raises(LabelTableError, match="no row has source=z; that column has x, y"):
        read_rows(path, {"source": "z"})


def test_a_column_for_something_that_is_no_task_is_refused(write: Write) -> None:
    rows = read_rows(write("file,damage\na.jpg,intact\nb.jpg,damaged\n"))
    with pytest.raises(LabelTableError, match="got one for 'colour'"):
        task_labels(rows, {"colour": "damage"})


@pytest.mark.parametrize("split", [("train", "train"), ("train", ""), ("train", "dev")])
def test_a_split_other_than_train_and_test_is_refused(write: Write, split: tuple[str, str]) -> None:
    rows = read_rows(write(f"file,damage,split\na.jpg,intact,{split[0]}\nb.jpg,damaged,{split[1]}\n"))
    with pytest.raises(LabelTableError, match="expected train and test"):
        measured_rows(rows)
