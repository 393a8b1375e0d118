"""Read labelled photos to train on: from Label Studio's JSON, JSON-MIN and CSV exports, and from tables.

A table is a CSV file with the column `file`, see `carcond.data.label_table`. Unlike there, unusable labels and photos
are no error but listed in a `TrainingReport`.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from carcond.data.annotations import Opinion, merge_opinions
from carcond.data.dataset import source_of
from carcond.data.images import decode_photo, perceptual_hash
from carcond.data.label_studio_export import ExportedAnnotation, ExportedTask, photo_path, read_export, read_records
from carcond.data.label_table import csv_rows
from carcond.data.near_duplicates import Likeness, assign_groups
from carcond.data.photo_folder import PhotoFolder, shown_name
from carcond.data.split import HOLDOUT, TRAIN
from carcond.errors import LabelTableError, UnreadableImageError
from carcond.taxonomy import TASKS, find_class
from carcond.training.data_report import TrainingReport
from carcond.training.dataset import VALIDATION, TrainingPhoto, TrainingSet, validation_groups

Progress = Callable[[int, int], None]
"""Progress callback, called with the number done and the total."""

_HASH_SIZE = 224
# Python refuses to read numbers of thousands of digits.
_MAX_DIGITS = 18


@dataclass(frozen=True)
class ReadOptions:
    """Options for reading a labelled set.

    Attributes:
        when_unmarked: task key -> class key of photos whose annotator left the task unanswered; {} leaves it unknown.
        validation_share: of the photos that are not held out, 0.05 .. 0.5.
        seed: of the split.
        max_pixels: limit of width x height of a photo.
        car_field: field of a task's data, or column, with the name of the car.
        source_field: field of a task's data, or column, with the source of a photo.
    """

    when_unmarked: Mapping[str, str]
    validation_share: float
    seed: int
    max_pixels: int
    car_field: str = "car"
    source_field: str = "source"


@dataclass
class _Named:
    """Annotations of one photo file, possibly from several tasks or rows."""

    name: str
    file: Path | None
    data: Mapping[str, Any]
    annotations: list[ExportedAnnotation]


def read_training_set(
    path: Path, folder: Path, options: ReadOptions, progress: Progress
) -> tuple[TrainingSet, TrainingReport]:
    """Read labels and photos, group near-duplicates, and split.

    Photos with `split` "test" in their row or their task's data are held out. A share of the others is for
    validation, stratified by the classes of all tasks; a group stays in one split.

    Args:
        path: an export, or a table.
        folder: of the photos.
        options: how to read.
        progress: called with the number of photos read.

    Raises:
        LabelTableError: the file cannot be read, or its split has other words than train and test.
    """
    report = TrainingReport()
    photos, data = _labelled_photos(_named_photos(path, PhotoFolder(folder)), options, report)
    photos, hashes = _readable(photos, options.max_pixels, report, progress)
    cars = [_text(data[photo.name], "group") or _text(data[photo.name], options.car_field) or None for photo in photos]
    groups = assign_groups([Likeness(*each) for each in zip(hashes, cars, strict=True)], [], [])
    photos = [replace(photo, group=group) for photo, group in zip(photos, groups, strict=True)]
    held_out = _held_out([_text(data[photo.name], "split") for photo in photos])
    photos = _with_sides(photos, held_out, options)
    report.used = len(photos)
    report.sides = dict(Counter(photo.side for photo in photos))
    for task in TASKS:
        counts = Counter(photo.label.classes.get(task.key) for photo in photos)
        report.labels[task.key] = {key: counts[key] for key in task.class_keys}
    return TrainingSet(photos), report


def _named_photos(path: Path, folder: PhotoFolder) -> list[_Named]:
    rows = csv_rows(path) if path.suffix.lower() in (".csv", ".tsv") else None
    if rows is None:
        tasks = [(photo_path(task.photo_address()), task) for task in read_export(path)]
    elif "file" in rows[0]:
        tasks = [(row["file"], _table_task(number, row)) for number, row in enumerate(rows)]
    else:
        tasks = [(photo_path(task.photo_address()), task) for task in read_records([_parsed(row) for row in rows])]
    named: dict[object, _Named] = {}
    for number, (name, task) in enumerate(tasks):
        file = folder.find(name) if name else None
        # Annotations of one file in several tasks are annotations of one photo.
        entry = named.setdefault(file or name or number, _Named(shown_name(name), file, task.data, []))
        entry.annotations += task.annotations
    return list(named.values())


def _parsed(row: Mapping[str, str]) -> dict[str, Any]:
    """A row of Label Studio's CSV as a JSON-MIN record: there, boxes and several choices are JSON in a cell."""
    record: dict[str, Any] = {}
    for key, cell in row.items():
        record[key] = cell
        if cell[:1] in ("[", "{"):
            try:
                record[key] = json.loads(cell)
            except (ValueError, RecursionError):  # a text that only looks like JSON
                continue
    annotator = row.get("annotator", "")
    if annotator.isdecimal() and len(annotator) <= _MAX_DIGITS:
        record["annotator"] = int(annotator)
    return record


def _table_task(number: int, row: Mapping[str, str]) -> ExportedTask:
    classes, unknown = {}, []
    for task in TASKS:
        if word := row.get(task.key, "").strip():
            found = find_class(word)
            if found and found[0].key == task.key:
                classes[task.key] = found[1].key
            else:
                unknown.append(word)
    # Each row has an author of its own: two rows of one photo that differ are a conflict.
    return ExportedTask(dict(row), [ExportedAnnotation(Opinion(-1 - number, "", classes), tuple(unknown))])


def _labelled_photos(
    named: Sequence[_Named], options: ReadOptions, report: TrainingReport
) -> tuple[list[TrainingPhoto], dict[str, Mapping[str, Any]]]:
    photos, data = [], {}
    for entry in named:
        said = [each for each in entry.annotations if not each.skipped]
        for word in (word for each in said for word in each.unknown_words):
            report.unmapped_words.setdefault(word, []).append(entry.name)
        for each in said:
            for task, classes in each.contradictions.items():
                report.add_conflict(entry.name, task, classes, "one annotation states them together")
        label = merge_opinions([_completed(each, options.when_unmarked) for each in said])
        for task in label.ties:
            votes = {classes[task] for classes in label.opinions.values() if task in classes}
            report.add_conflict(entry.name, task, votes, "annotators differ, and none of them is the majority")
        if not label.classes:
            if not label.ties and not any(each.contradictions for each in said):
                report.skipped[entry.name] = _why_unlabelled(entry)
        elif entry.file is None:
            report.missing_photos.append(entry.name)
        else:
            source = source_of(_text(entry.data, options.source_field) or None, entry.name)
            photos.append(TrainingPhoto(entry.name, entry.file, label, source=source))
            data[entry.name] = entry.data
    return photos, data


def _completed(annotation: ExportedAnnotation, when_unmarked: Mapping[str, str]) -> Opinion:
    """The opinion, with the configured classes of unanswered tasks.

    A word that maps to no class may be an answer to any task, so then nothing is added.
    """
    if annotation.unknown_words:
        return annotation.opinion
    added = {task: key for task, key in when_unmarked.items() if task not in annotation.contradictions}
    return replace(annotation.opinion, classes={**added, **annotation.opinion.classes})


def _why_unlabelled(entry: _Named) -> str:
    if not entry.annotations:
        return "not annotated"
    if all(each.skipped for each in entry.annotations):
        return "skipped by its annotator"
    if any(each.unknown_words for each in entry.annotations):
        return "its labels mean no class"
    return "annotated without an answer"


def _readable(
    photos: Sequence[TrainingPhoto], max_pixels: int, report: TrainingReport, progress: Progress
) -> tuple[list[TrainingPhoto], list[int]]:
    """The photos that can be decoded, and their perceptual hashes."""
    kept: list[TrainingPhoto] = []
    hashes = []
    by_content: dict[str, list[int]] = {}
    for number, photo in enumerate(photos):
        try:
            content = photo.file.read_bytes()
            image = decode_photo(content, target=_HASH_SIZE, max_pixels=max_pixels)
        except (OSError, UnreadableImageError) as error:
            report.unreadable_photos[photo.name] = str(error)
            continue
        finally:
            progress(number + 1, len(photos))
        by_content.setdefault(hashlib.sha256(content).hexdigest(), []).append(len(kept))
        kept.append(photo)
        hashes.append(perceptual_hash(image))
    for copies in by_content.values():
        _settle_copies(kept, copies, report)
    usable = [i for i, photo in enumerate(kept) if photo.label.classes]
    return [kept[i] for i in usable], [hashes[i] for i in usable]


def _settle_copies(photos: list[TrainingPhoto], copies: Sequence[int], report: TrainingReport) -> None:
    """Remove the label of a task from identical files that differ in it."""
    for task in TASKS:
        stated = {photos[i].label.classes[task.key] for i in copies if task.key in photos[i].label.classes}
        if len(stated) > 1:
            for i in copies:
                photo = photos[i]
                report.add_conflict(photo.name, task.key, stated, "copies of this photo are labelled otherwise")
                others = {key: value for key, value in photo.label.classes.items() if key != task.key}
                photos[i] = replace(photo, label=replace(photo.label, classes=others))


def _held_out(splits: Sequence[str]) -> list[bool]:
    words = set(splits)
    if words - {"", "train", "test"}:
        raise LabelTableError(f"expected train or test in split, got {', '.join(sorted(words - {'train', 'test'}))}")
    return [word == "test" for word in splits]


def _with_sides(photos: Sequence[TrainingPhoto], held_out: Sequence[bool], options: ReadOptions) -> list[TrainingPhoto]:
    dealt = [photo for photo, out in zip(photos, held_out, strict=True) if not out]
    validation = validation_groups(TrainingSet(dealt), options.validation_share, options.seed)
    sides = [
        HOLDOUT if out else VALIDATION if photo.group in validation else TRAIN
        for photo, out in zip(photos, held_out, strict=True)
    ]
    return [replace(photo, side=side) for photo, side in zip(photos, sides, strict=True)]


def _text(data: Mapping[str, Any], key: str) -> str:
    value = data.get(key)
    return str(value).strip() if isinstance(value, str | int) else ""
