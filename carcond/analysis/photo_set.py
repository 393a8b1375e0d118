"""A folder of photos, with or without a file of labels, for `carcond.analysis.label_quality`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from carcond.analysis.label_quality import RatedPhoto
from carcond.arrays import UNKNOWN, FloatArray, IntArray
from carcond.data.annotations import merge_opinions
from carcond.data.images import STATS_SIDE, decode_photo, measure_image, perceptual_hash
from carcond.data.label_studio_export import export_rows, find_photo, read_export
from carcond.data.label_table import Row, read_rows, task_labels
from carcond.data.near_duplicates import Likeness, assign_groups
from carcond.data.photo_folder import photo_files, shown_name
from carcond.errors import LabelTableError, UnreadableImageError
from carcond.model.embedding_cache import Progress, embed_files
from carcond.model.encoder import Encoder
from carcond.taxonomy import TASKS


@dataclass(frozen=True)
class FileLabel:
    """Label of one photo from a file of labels; see `carcond.analysis.label_quality.RatedPhoto`.

    Attributes:
        group: name of the car, or of the near-duplicates, that the photo belongs to; empty when not known.
    """

    classes: Mapping[str, str]
    opinions: Mapping[int, Mapping[str, str]]
    group: str = ""


@dataclass(frozen=True)
class LabelledFolder:
    """The readable, labelled photos of a folder, in one order.

    Attributes:
        names: N paths inside the folder.
        embeddings: ``(N, D)``.
        classes: task key -> class indices ``(N,)``, `UNKNOWN` where not labelled.
        groups: ``(N,)``, equal for near-duplicates and photos of one group of the file.
    """

    names: Sequence[str]
    embeddings: FloatArray
    classes: Mapping[str, IntArray]
    groups: IntArray


def read_file_labels(path: Path, folder: Path) -> dict[Path, FileLabel]:
    """Photo -> its label, from a CSV file or an export of Label Studio; see `carcond.data.label_table`.

    Raises:
        LabelTableError: the file cannot be used, or names no photo of the folder.
    """
    rows: Sequence[Row]
    if path.suffix.lower() == ".json":
        tasks = read_export(path)
        rows = export_rows(tasks)
        opinions = [merge_opinions(task.opinions).opinions for task in tasks]
    else:
        rows = read_rows(path)
        opinions = [{} for _ in rows]
    if not rows:
        raise LabelTableError(f"expected at least one task in {path}, got none")
    labels = task_labels(rows)
    found = {}
    for i, row in enumerate(rows):
        file = find_photo(folder, row["file"])
        if file:
            known = {key: each for key, each in labels.items() if each.known[i]}
            classes = {key: each.task.class_keys[each.indices[i]] for key, each in known.items()}
            found[file] = FileLabel(classes, opinions[i], row.get("group", "").strip())
    if not found:
        raise LabelTableError(f"none of the {len(rows)} photos is in {folder}; the first should be {rows[0]['file']}")
    return found


def rate_folder(
    folder: Path, labels: Mapping[Path, FileLabel], max_pixels: int, progress: Progress
) -> list[RatedPhoto]:
    """Measure every photo of a folder, those in folders inside it too.

    Raises:
        LabelTableError: there is none.
    """
    files = photo_files(folder)
    photos = []
    for done, file in enumerate(files, start=1):
        photos.append(_rate(file, shown_name(file.relative_to(folder)), labels.get(file), max_pixels))
        progress(done, len(files))
    return photos


def _rate(file: Path, name: str, label: FileLabel | None, max_pixels: int) -> RatedPhoto:
    classes, opinions = (label.classes, label.opinions) if label else ({}, {})
    try:
        data = file.read_bytes()
        image = decode_photo(data, target=STATS_SIDE, max_pixels=max_pixels)
    except (OSError, UnreadableImageError) as error:
        return RatedPhoto(name, problem=str(error), classes=classes, opinions=opinions)
    return RatedPhoto(name, measure_image(data, image), perceptual_hash(image), None, classes, opinions)


def embed_labelled(
    photos: Sequence[RatedPhoto],
    folder: Path,
    labels: Mapping[Path, FileLabel],
    encoder: Encoder,
    *,
    cache_dir: Path,
    max_pixels: int,
    progress: Progress,
) -> LabelledFolder:
    """Embed the labelled photos of a folder that can be read; embeddings are kept in `cache_dir`."""
    chosen = [photo for photo in photos if photo.classes and photo.phash is not None]
    by_name = {shown_name(file.relative_to(folder)): file for file in labels}
    files = [by_name[str(photo.name)] for photo in chosen]
    embedded = embed_files(encoder, files, cache_dir, max_pixels, progress)
    likeness = [Likeness(p.phash or 0, labels[f].group or None) for p, f in zip(chosen, files, strict=True)]
    classes = {}
    for task in TASKS:
        keys = task.class_keys
        stated = [photo.classes.get(task.key) for photo in chosen]
        classes[task.key] = np.array([keys.index(c) if c in keys else UNKNOWN for c in stated], dtype=np.int64)
    groups = np.array(assign_groups(likeness, [], []), dtype=np.int64)
    return LabelledFolder([str(photo.name) for photo in chosen], embedded.embeddings, classes, groups)
