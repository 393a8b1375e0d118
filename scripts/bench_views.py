"""What views of a photo bring, and what they cost: macro-F1 with few labels, and milliseconds per photo."""

import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from carcond.analysis.replay_set import embed_rows
from carcond.arrays import FloatArray, IntArray
from carcond.data.folds import grouped_folds
from carcond.data.label_table import Row, TaskLabels, column_values, task_labels
from carcond.evaluation.f1 import mean_f1
from carcond.evaluation.metrics import confusion_matrix
from carcond.model.encoder import Encoder
from carcond.model.head_fitting import fit_head
from carcond.model.single_thread import one_core
from carcond.training.network import export_encoder
from carcond.training.pretrained_weights import load_backbone_or_fallback
from scripts.photo_source import noise_photo

_FOLDS = 5
_TIMED_PHOTOS = 30
_MAX_PIXELS = 100_000_000
# Minimum number of photos of a source to leave it out: a pair with fewer measures the other source alone.
_LEAST_SOURCE = 100
# Half the width of the 95 % interval of a mean, in standard errors.
_BAND = 1.96

Say = Callable[[str], None]


@dataclass(frozen=True)
class LabelledPhotos:
    """Photos of which one task is known.

    Attributes:
        labels: ``(N,)`` and their task.
        groups: ``(N,)``, equal for photos of one car or near-duplicates.
        rows: positions ``(N,)`` in the table.
    """

    labels: TaskLabels
    groups: IntArray
    rows: IntArray


def export_views(models_dir: Path, backbone: str, weights: str, views: tuple[int, ...], threads: int) -> Encoder:
    """The encoder of views, exported unless it is there."""
    directory = export_encoder(load_backbone_or_fallback(backbone, weights, views), models_dir)
    return Encoder.load(directory, threads)


def time_encoders(encoders: Mapping[str, Encoder]) -> dict[str, float]:
    """Milliseconds to decode and encode one photo of 1280x960 pixels by each encoder, medians of interleaved rounds."""
    data = noise_photo()
    taken: dict[str, list[float]] = {name: [] for name in encoders}
    for _ in range(_TIMED_PHOTOS):
        for name, encoder in encoders.items():
            began = time.perf_counter()
            encoder.embed_photo(data, _MAX_PIXELS)
            taken[name].append(1000 * (time.perf_counter() - began))
    return {name: round(statistics.median(ms), 1) for name, ms in taken.items()}


def bench_views(
    encoders: Mapping[str, Encoder],
    table: Sequence[Row],
    photos: Path,
    cache_dir: Path,
    *,
    stand_ins: Mapping[str, str],
    labels: Sequence[int],
    seeds: int,
    source: str,
    say: Say,
) -> list[dict[str, Any]]:
    """Macro-F1 of heads on random labels, of each encoder on the same photos, in points (1/100).

    For each seed a fifth of the groups, another one each time, is measured on, and the labels are drawn from the rest.

    Args:
        encoders: name of the views -> encoder; the first is what the others are compared with.
        table: rows from `carcond.data.label_table.read_rows`.
        photos: folder of their photos.
        cache_dir: home of cached embeddings.
        stand_ins: task key -> column used for it.
        labels: numbers of labels to fit heads on.
        seeds: number of splits and draws.
        source: column of sources; with it, also the accuracy on two sources that were left out. Empty for none.
        say: receives progress.

    Returns:
        For each task and number of labels, the macro-F1 with the first views; and for the others the mean difference,
        with half the width of its 95 % interval over the seeds. Numbers that no seed has labels for are left out.
    """
    embeddings = {}
    for name, encoder in encoders.items():
        progress = partial(_progress, say, f"encoding photos in {name}")
        embeddings[name], _ = embed_rows(table, photos, encoder, cache_dir, _MAX_PIXELS, progress=progress)
    first = next(iter(embeddings))
    rows = []
    for key, known in _tasks(table, stand_ins).items():
        found = {name: _scores(known, seen[known.rows], labels, seeds) for name, seen in embeddings.items()}
        for i, count in enumerate(labels):
            scores = {name: 100 * each[:, i] for name, each in found.items()}
            if np.isnan(scores[first]).all():
                continue
            rows.append({"task": key, "labels": str(count), **_against(first, scores)})
        if source:
            left_out = {name: 100 * _left_out(table, known, seen, source) for name, seen in embeddings.items()}
            rows.append({"task": key, "labels": "two sources left out", **_against(first, left_out)})
        say(f"{key}: done")
    return rows


def _progress(say: Say, what: str, done: int, total: int) -> None:
    if done == total or done % 400 == 0:
        say(f"{what}: {done} of {total}")


def _tasks(table: Sequence[Row], stand_ins: Mapping[str, str]) -> dict[str, LabelledPhotos]:
    named = column_values(table, "group") if "group" in table[0] else [""] * len(table)
    _, groups = np.unique([name or f"row {i}" for i, name in enumerate(named)], return_inverse=True)
    tasks = {}
    for key, labels in task_labels(table, stand_ins).items():
        rows = np.flatnonzero(labels.known)
        tasks[key] = LabelledPhotos(TaskLabels(labels.task, labels.indices[rows]), groups[rows], rows)
    return tasks


def _scores(known: LabelledPhotos, embeddings: FloatArray, labels: Sequence[int], seeds: int) -> FloatArray:
    """Macro-F1 ``(seeds, len(labels))``; nan where too few labels, or of one class only, were drawn."""
    indices = known.labels.indices
    scores = np.full((seeds, len(labels)), np.nan, np.float32)
    for seed in range(seeds):
        test = grouped_folds(indices, known.groups, _FOLDS, seed) == 0
        pool = np.random.default_rng(seed).permutation(np.flatnonzero(~test))
        for i, count in enumerate(labels):
            drawn = pool[:count]
            if len(drawn) == count and len(np.unique(indices[drawn])) >= 2:
                confusion = _confusion(known, embeddings, drawn, np.flatnonzero(test))
                scores[seed, i] = mean_f1(confusion)
    return scores


def _left_out(table: Sequence[Row], known: LabelledPhotos, embeddings: FloatArray, source: str) -> FloatArray:
    """Accuracy on each pair of sources that hold different classes, with heads fitted on all other sources."""
    indices, sources = known.labels.indices, np.array(column_values(table, source))[known.rows]
    scores = []
    for test in _pairs(indices, sources):
        if len(np.unique(indices[~test])) == len(np.unique(indices)):
            confusion = _confusion(known, embeddings[known.rows], np.flatnonzero(~test), np.flatnonzero(test))
            scores.append(np.trace(confusion) / confusion.sum())
    return np.array(scores, np.float32)


def _pairs(
    indices: IntArray, sources: np.ndarray[Any, np.dtype[np.str_]]
) -> Iterator[np.ndarray[Any, np.dtype[np.bool_]]]:
    names, counts = np.unique(sources, return_counts=True)
    names = names[counts >= _LEAST_SOURCE]
    for i, one in enumerate(names):
        for other in names[i + 1 :]:
            if set(indices[sources == one]).isdisjoint(indices[sources == other]):
                yield np.isin(sources, (one, other))


def _confusion(known: LabelledPhotos, embeddings: FloatArray, train: IntArray, test: IntArray) -> IntArray:
    indices = known.labels.indices
    with one_core():
        head = fit_head(known.labels.task, embeddings[train], indices[train], groups=known.groups[train])
    predicted = head.probabilities(embeddings[test]).argmax(axis=1)
    return confusion_matrix(predicted, indices[test], len(known.labels.task.classes))


def _against(first: str, scores: Mapping[str, FloatArray]) -> dict[str, str]:
    row = {first: f"{np.nanmean(scores[first]):.1f}"}
    for name, values in scores.items():
        if name != first:
            gains = values - scores[first]
            gains = gains[~np.isnan(gains)]
            band = _BAND * gains.std(ddof=1) / np.sqrt(len(gains)) if len(gains) > 1 else np.nan
            row[name] = f"{gains.mean():+.1f} ±{band:.1f}"
    return row
