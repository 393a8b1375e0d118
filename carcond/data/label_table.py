"""A labelled set in a file: which photos there are, what they show, and which are only measured on.

The file is an export of Label Studio (`carcond.data.label_studio_export`), where texts of the tasks' data make further
columns, or a CSV file. Columns: `file` (path of the photo), one for each task, by its key, with class words (empty =
unknown), and if there are any, `split` ("train" or "test") and `group` (photos of one car or near-duplicates).
"""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from carcond.arrays import UNKNOWN, IntArray
from carcond.data.label_studio_export import export_rows, read_export
from carcond.errors import LabelTableError
from carcond.taxonomy import TASK_BY_KEY, TASKS, ConditionClass, Task, find_class

BoolArray = npt.NDArray[np.bool_]
Row = Mapping[str, str]


@dataclass(frozen=True)
class TaskLabels:
    """Labels of one task.

    Attributes:
        task: its classes are those of the taxonomy, or those found in the column that stands for it.
        indices: class indices ``(N,)``, `UNKNOWN` where the cell is empty.
    """

    task: Task
    indices: IntArray

    @property
    def known(self) -> BoolArray:
        """``(N,)``, True where the class is known."""
        return np.asarray(self.indices != UNKNOWN, dtype=np.bool_)


def read_rows(path: Path, where: Mapping[str, str] | None = None) -> list[dict[str, str]]:
    """Rows of a CSV file with a header, or of an export (`.json`); both as UTF-8.

    Args:
        path: the file.
        where: column -> value; only rows that have all these values are kept.

    Raises:
        LabelTableError: the file cannot be read, has no `file` column, or no row is kept.
    """
    rows = export_rows(read_export(path)) if path.suffix.lower() == ".json" else csv_rows(path)
    if not rows:
        raise LabelTableError(f"expected at least one row in {path}, got none")
    column_values(rows, "file")
    for column, value in (where or {}).items():
        values = column_values(rows, column)
        rows = [row for row in rows if row[column] == value]
        if not rows:
            raise LabelTableError(f"no row has {column}={value}; that column has {_some(values)}")
    return rows


def csv_rows(path: Path) -> list[dict[str, str]]:
    """Rows of a CSV file with a header, UTF-8; of a `.tsv` file with tabs between the cells.

    Raises:
        LabelTableError: the file cannot be read, or has no row.
    """
    delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = [{k: v or "" for k, v in row.items() if k} for row in csv.DictReader(file, delimiter=delimiter)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise LabelTableError(f"{path} cannot be read as a CSV file in UTF-8: {error}") from error
    if not rows:
        raise LabelTableError(f"expected at least one row in {path}, got none")
    return rows


def column_values(rows: Sequence[Row], column: str) -> list[str]:
    """The cells of a column.

    Raises:
        LabelTableError: there is no such column.
    """
    if column not in rows[0]:
        raise LabelTableError(f"expected a column {column!r}, got the columns {', '.join(rows[0])}")
    return [row[column].strip() for row in rows]


def task_labels(rows: Sequence[Row], stand_ins: Mapping[str, str] | None = None) -> dict[str, TaskLabels]:
    """Task key -> labels, for the tasks of which at least two classes occur.

    Args:
        rows: from `read_rows`.
        stand_ins: task key -> column that stands for the task, with the classes found in it.

    Raises:
        LabelTableError: a column is missing, a word is no class of its task, or no task has two classes.
    """
    stand_ins = stand_ins or {}
    for key in stand_ins:
        if key not in TASK_BY_KEY:
            raise LabelTableError(f"expected a column for {' or '.join(TASK_BY_KEY)}, got one for {key!r}")
    found = {}
    for task in TASKS:
        if task.key in stand_ins:
            labels = _found_classes(task, column_values(rows, stand_ins[task.key]))
        elif task.key in rows[0]:
            labels = _taxonomy_classes(task, column_values(rows, task.key))
        else:
            continue
        if len(np.unique(labels.indices[labels.known])) >= 2:
            found[task.key] = labels
    if not found:
        raise LabelTableError(
            f"expected at least two classes of {' or '.join(TASK_BY_KEY)} in {len(rows)} rows, got fewer of each"
        )
    return found


def _found_classes(task: Task, words: Sequence[str]) -> TaskLabels:
    keys = sorted({word for word in words if word})
    classes = tuple(ConditionClass(key, key, key) for key in keys)
    indices = [keys.index(word) if word else UNKNOWN for word in words]
    return TaskLabels(Task(task.key, task.en, task.ru, classes), np.array(indices, dtype=np.int64))


def _taxonomy_classes(task: Task, words: Sequence[str]) -> TaskLabels:
    indices = np.full(len(words), UNKNOWN, dtype=np.int64)
    for position, word in enumerate(words):
        meant = find_class(word) if word else None
        if meant and meant[0].key == task.key:
            indices[position] = task.class_keys.index(meant[1].key)
        elif word:
            raise LabelTableError(
                f"expected {', '.join(task.class_keys)} or nothing in the column {task.key}, got {word!r}"
            )
    return TaskLabels(task, indices)


def measured_rows(rows: Sequence[Row]) -> BoolArray | None:
    """``(N,)``, True for rows marked "test" in the column `split`; None where no row is marked.

    Raises:
        LabelTableError: the column has other values than train and test, or only one of them.
    """
    if not any(row.get("split") for row in rows):
        return None
    values = column_values(rows, "split")
    if set(values) != {"train", "test"}:
        raise LabelTableError(f"expected train and test in the column split, got {_some(values)}")
    return np.array([value == "test" for value in values])


def _some(values: Sequence[str]) -> str:
    distinct = sorted(set(values))
    more = f" and {len(distinct) - 10} more" if len(distinct) > 10 else ""
    return ", ".join(value or "(empty)" for value in distinct[:10]) + more
