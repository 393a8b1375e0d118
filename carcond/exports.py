"""Label Studio's exports: JSON (whole tasks) and JSON-MIN (one flat record an annotation).

An export has no label config, so the words decide: a choice or a box means the class of which its word is in
the taxonomy. An answer that is missing stays unknown, and so does one with words of two classes of a task.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from carcond.errors import LabelTableError
from carcond.labels import Opinion, merge_opinions
from carcond.taxonomy import find_class

# Keys of a JSON-MIN record that are neither answers nor the task's data.
_RECORD_KEYS = {"id", "annotator", "annotation_id", "created_at", "updated_at", "lead_time", "agreement"}
# Fields of a region's value that hold a list of label words.
_WORD_LISTS = ("choices", "rectanglelabels")
_PHOTO_NAME = re.compile(r"\.(jpe?g|png|webp|bmp|gif)$", re.IGNORECASE)
_UPLOAD_PREFIX = re.compile(r"^[0-9a-f]{8}-")


@dataclass
class ExportedTask:
    """A task of an export.

    Attributes:
        data: its data, as imported.
        opinions: of each annotation that was not skipped and states a class.
        unknown_words: words of choices and boxes that mean no class.
    """

    data: dict[str, Any]
    opinions: list[Opinion] = field(default_factory=list)
    unknown_words: list[str] = field(default_factory=list)

    def photo_address(self) -> str:
        """The value of `image`, else the first that names a photo; empty when there is none."""
        texts = [value for value in (self.data.get("image"), *self.data.values()) if isinstance(value, str)]
        return next((text for text in texts if _PHOTO_NAME.search(photo_path(text))), "")


def region_words(region: Mapping[str, Any]) -> list[str]:
    """The label words of a region. Its `type` is not relied on: annotations written by scripts may lack it."""
    value = region.get("value")
    lists = [value.get(name) for name in _WORD_LISTS] if isinstance(value, dict) else []
    return [word for words in lists if isinstance(words, list) for word in words if isinstance(word, str)]


def photo_path(address: str) -> str:
    """The path of a photo inside its storage, from its address: a URL, a local-files address or a bucket's.

    `/data/local-files/?d=cars/a%20b.jpg` is ``cars/a b.jpg``, `s3://bucket/cars/a.jpg` is ``cars/a.jpg``.
    """
    parts = urlsplit(address)
    named = parse_qs(parts.query).get("d")
    return (named[0] if named else unquote(parts.path)).lstrip("/")


def find_photo(folder: Path, path: str) -> Path | None:
    """The file of a photo in a folder, or None.

    Args:
        folder: where photos are.
        path: from `photo_path`. Its leading folders may be missing below `folder`, and so may the eight digits
            that Label Studio puts before the name of an uploaded file.
    """
    parts = [part for part in path.split("/") if part not in ("", ".", "..")]
    for start in range(len(parts)):
        named = folder.joinpath(*parts[start:])
        for file in (named, named.with_name(_UPLOAD_PREFIX.sub("", named.name) or named.name)):
            if file.is_file():
                return file
    return None


def read_export(path: Path) -> list[ExportedTask]:
    """Read an export, in order of its tasks.

    Raises:
        LabelTableError: it cannot be read, or is no export.
    """
    try:
        records = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise LabelTableError(f"{path} cannot be read as JSON: {error}") from error
    if not isinstance(records, list) or not all(isinstance(record, dict) for record in records):
        raise LabelTableError(
            f"expected a list of tasks in {path}, as Label Studio exports them in the formats JSON and JSON-MIN"
        )
    whole = [isinstance(record.get("annotations"), list) for record in records]
    if any(whole) and not all(whole):
        raise LabelTableError(f"expected annotations in every task of {path}; task {whole.index(False)} has none")
    return [_whole_task(record) for record in records] if any(whole) else _flat_tasks(records)


def export_rows(tasks: Iterable[ExportedTask]) -> list[dict[str, str]]:
    """Rows as of a table of labels: `file`, a column each task of the taxonomy, and the texts of the tasks' data.

    The opinions of several annotators are merged by majority; a tie is unknown.
    """
    rows = []
    for task in tasks:
        merged = merge_opinions(task.opinions)
        texts = {key: str(value) for key, value in task.data.items() if isinstance(value, str | int | float)}
        rows.append(texts | {"file": photo_path(task.photo_address()), **merged.classes})
    columns = dict.fromkeys(key for row in rows for key in row)
    return [{column: row.get(column, "") for column in columns} for row in rows]


def _whole_task(record: Mapping[str, Any]) -> ExportedTask:
    data = record.get("data")
    task = ExportedTask(dict(data) if isinstance(data, dict) else {})
    for annotation in record["annotations"]:
        if isinstance(annotation, dict) and not annotation.get("was_cancelled"):
            result = annotation.get("result")
            regions = [region for region in result if isinstance(region, dict)] if isinstance(result, list) else []
            words = [word for region in regions for word in region_words(region)]
            _add_opinion(task, annotation.get("completed_by"), annotation.get("updated_at"), words)
    return task


def _flat_tasks(records: Iterable[Mapping[str, Any]]) -> list[ExportedTask]:
    tasks: dict[object, ExportedTask] = {}
    for number, record in enumerate(records):
        fields = {key: value for key, value in record.items() if key not in _RECORD_KEYS}
        task = tasks.setdefault(record.get("id", f"record {number}"), ExportedTask(fields))
        _add_opinion(task, record.get("annotator"), record.get("updated_at"), list(_flat_words(fields)))
    return list(tasks.values())


def _flat_words(fields: Mapping[str, Any]) -> Iterator[str]:
    """Words of a flat record: there, an answer and a text of the task's data look alike."""
    for value in fields.values():
        if isinstance(value, str):
            if find_class(value):
                yield value
        else:
            for region in value if isinstance(value, list) else [value]:
                yield from region_words({"value": region})


def _add_opinion(task: ExportedTask, annotator: object, updated_at: object, words: Iterable[str]) -> None:
    if isinstance(annotator, dict):
        annotator = annotator.get("id")
    stated: dict[str, set[str]] = {}
    for word in words:
        found = find_class(word)
        if found:
            stated.setdefault(found[0].key, set()).add(found[1].key)
        else:
            task.unknown_words.append(word)
    classes = {key: next(iter(meant)) for key, meant in stated.items() if len(meant) == 1}
    if classes:
        known = annotator if isinstance(annotator, int) else -1 - len(task.opinions)  # nobody twice
        task.opinions.append(Opinion(known, str(updated_at or ""), classes))
