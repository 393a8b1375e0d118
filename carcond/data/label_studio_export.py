"""Label Studio's exports: JSON (whole tasks), JSON-MIN and CSV (one flat record an annotation).

An export has no label config, so the words decide: a choice or a box maps to the class that lists its word in
the taxonomy. A missing answer stays unknown, and so does one with words of two classes of a task.
"""

import json
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from carcond.data.annotations import Opinion, merge_opinions
from carcond.errors import LabelTableError
from carcond.taxonomy import find_class

# Keys of a JSON-MIN record that are neither answers nor the task's data.
_RECORD_KEYS = {"id", "annotator", "annotation_id", "created_at", "updated_at", "lead_time", "agreement"}
# Fields of a region's value that hold a list of label words.
_WORD_LISTS = ("choices", "rectanglelabels")
_PHOTO_NAME = re.compile(r"\.(jpe?g|png|webp|bmp|gif)$", re.IGNORECASE)
# Of longer paths the end is looked for: each start of a path is a file that might be there.
_MAX_FOLDERS = 100
_UPLOAD_PREFIX = re.compile(r"^[0-9a-f]{8}-")


@dataclass(frozen=True)
class ExportedAnnotation:
    """Annotation of a photo by one annotator.

    Attributes:
        opinion: the chosen classes; none when no answer maps to a class.
        unknown_words: words of choices and boxes that map to no class.
        contradictions: task key -> the classes of it that were chosen together; such a task has no class.
        skipped: True if the annotator skipped the photo; the annotation's content is ignored then.
    """

    opinion: Opinion
    unknown_words: tuple[str, ...] = ()
    contradictions: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    skipped: bool = False


@dataclass
class ExportedTask:
    """A task of an export.

    Attributes:
        data: its data, as imported.
        annotations: all of it, also those without an answer.
    """

    data: dict[str, Any]
    annotations: list[ExportedAnnotation] = field(default_factory=list)

    @property
    def opinions(self) -> list[Opinion]:
        """Opinions of annotations that were not skipped and have a class."""
        return [each.opinion for each in self.annotations if not each.skipped and each.opinion.classes]

    @property
    def unknown_words(self) -> list[str]:
        """Words of choices and boxes that map to no class."""
        return [word for each in self.annotations if not each.skipped for word in each.unknown_words]

    def photo_address(self) -> str:
        """Value of `image`, else the first field with a photo's address; empty when there is none."""
        texts = [value for value in (self.data.get("image"), *self.data.values()) if isinstance(value, str)]
        return next((text for text in texts if _PHOTO_NAME.search(photo_path(text))), "")


def region_words(region: Mapping[str, Any]) -> list[str]:
    """The label words of a region. Its `type` is not relied on: annotations written by scripts may lack it."""
    value = region.get("value")
    lists = [value.get(name) for name in _WORD_LISTS] if isinstance(value, dict) else []
    return [word for words in lists if isinstance(words, list) for word in words if isinstance(word, str)]


def is_untouched_box(region: Mapping[str, Any]) -> bool:
    """True for a box that a model suggested and the annotator left unchanged."""
    value = region.get("value")
    return region.get("origin") == "prediction" and isinstance(value, dict) and "rectanglelabels" in value


def photo_path(address: str) -> str:
    """The path of a photo inside its storage, from its address: a URL, a local-files address or a bucket's.

    `/data/local-files/?d=cars/a%20b.jpg` is ``cars/a b.jpg``, `s3://bucket/cars/a.jpg` is ``cars/a.jpg``; a text that
    is no address at all has an empty path.
    """
    try:
        parts = urlsplit(address)
    except ValueError:  # brackets that do not match
        return ""
    named = parse_qs(parts.query).get("d")
    return (named[0] if named else unquote(parts.path)).lstrip("/")


def find_photo(folder: Path, path: str) -> Path | None:
    """The file of a photo in a folder, or None.

    Args:
        folder: where photos are.
        path: from `photo_path`. Its leading folders may be missing below `folder`, and so may the eight digits
            that Label Studio puts before the name of an uploaded file.
    """
    parts = [part for part in path.split("/") if part not in ("", ".", "..")][-_MAX_FOLDERS:]
    for start in range(len(parts)):
        named = folder.joinpath(*parts[start:])
        for file in (named, named.with_name(_UPLOAD_PREFIX.sub("", named.name) or named.name)):
            if _is_file(file):
                return file
    return None


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a name that is too long for any file
        return False


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
    return [_whole_task(record) for record in records] if any(whole) else read_records(records)


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


def read_records(records: Sequence[Mapping[str, Any]]) -> list[ExportedTask]:
    """Tasks of flat records, one an annotation, as JSON-MIN and Label Studio's CSV have them.

    There, an answer and a text of the task's data look alike: a column holds answers if a word in it, of any
    record, maps to a class.
    """
    answers = {key for record in records for key, value in record.items() if _means_a_class(value)} - _RECORD_KEYS
    tasks: dict[object, ExportedTask] = {}
    for number, record in enumerate(records):
        fields = {key: value for key, value in record.items() if key not in _RECORD_KEYS}
        stated = record.get("id")
        key = stated if isinstance(stated, int | str) else f"record {number}"
        task = tasks.setdefault(key, ExportedTask(fields))
        words = list(_flat_words(fields, answers))
        _add_annotation(task, record.get("annotator"), record.get("updated_at"), words)
    return list(tasks.values())


def _means_a_class(value: object) -> bool:
    return isinstance(value, str) and find_class(value) is not None


def _whole_task(record: Mapping[str, Any]) -> ExportedTask:
    data = record.get("data")
    task = ExportedTask(dict(data) if isinstance(data, dict) else {})
    for annotation in record["annotations"]:
        if isinstance(annotation, dict):
            result = annotation.get("result")
            regions = [region for region in result if isinstance(region, dict)] if isinstance(result, list) else []
            words = _annotator_words(regions)
            by, when = annotation.get("completed_by"), annotation.get("updated_at")
            _add_annotation(task, by, when, words, skipped=bool(annotation.get("was_cancelled")))
    return task


def _annotator_words(regions: Sequence[Mapping[str, Any]]) -> list[str]:
    """Words of all regions; an untouched box counts only where nothing else answers its task."""
    words = [word for region in regions if not is_untouched_box(region) for word in region_words(region)]
    answered = {found[0].key for found in map(find_class, words) if found}
    suggested = [word for region in regions if is_untouched_box(region) for word in region_words(region)]
    return words + [word for word in suggested if not ((found := find_class(word)) and found[0].key in answered)]


def _flat_words(fields: Mapping[str, Any], answers: Collection[str]) -> Iterator[str]:
    for key, value in fields.items():
        if isinstance(value, str):
            if key in answers and value.strip():
                yield value
        else:
            for region in value if isinstance(value, list) else [value]:
                yield from region_words({"value": region})


def _add_annotation(
    task: ExportedTask, annotator: object, updated_at: object, words: Iterable[str], skipped: bool = False
) -> None:
    if isinstance(annotator, dict):
        annotator = annotator.get("id")
    stated: dict[str, set[str]] = {}
    unknown_words = []
    for word in words:
        found = find_class(word)
        if found:
            stated.setdefault(found[0].key, set()).add(found[1].key)
        else:
            unknown_words.append(word)
    classes = {key: next(iter(meant)) for key, meant in stated.items() if len(meant) == 1}
    contradictions = {key: tuple(sorted(meant)) for key, meant in stated.items() if len(meant) > 1}
    known = annotator if isinstance(annotator, int) else -1 - len(task.annotations)  # nobody twice
    opinion = Opinion(known, str(updated_at or ""), classes)
    task.annotations.append(ExportedAnnotation(opinion, tuple(unknown_words), contradictions, skipped))
