"""A model version's report card: its labels, and its accuracy and calibration on the hold-out."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from carcond.arrays import UNKNOWN, IntArray
from carcond.data.dataset import Example, LabelledSet
from carcond.evaluation.metrics import combined_accuracy, confusion_matrix, evaluate, macro_f1
from carcond.model.heads import Heads

_MAX_ROWS = 20


def report_card(labelled: LabelledSet, heads: Heads) -> dict[str, Any]:
    """The facts of a card that follow from labels and heads, JSON-ready; a part without photos is empty.

    Returns:
        - `labels`: numbers of photos in `train` and `holdout`, and of `unusable` ones (no embedding).
        - `labelled_by_task`: task key -> usable photos with a label for it, in both splits.
        - `calibration`: task key -> `temperature`, `cross_fitted` (False: too few labels, so it stays 1), and the
          number of `photos` it was chosen on, of which `holdout_photos` are of the hold-out; each was predicted by a
          head that had not seen it.
        - `holdout`: task key -> metrics, see `carcond.evaluation.metrics.evaluate`.
        - `combined`: all tasks right together, see `carcond.evaluation.metrics.combined_accuracy`.
        - `sources`: a row for each of the 20 largest sources (`carcond.data.dataset.source_of`), most labels first:
          `source`, `labels` in both splits, hold-out `photos`, and `tasks`: task key -> {photos, accuracy, macro_f1}
          on the hold-out. Of all other sources one row, with their number `sources` in place of the name.
        - `annotators`: the same by `annotator` (an id of Label Studio), measured against this annotator's labels;
          and `share` of all annotators' labels, and `agreement`: of the answers to questions that others answered
          too, the share equal to the merged label (a tie agrees with nobody), None without such answers.
    """
    embeddings, classes = labelled.side(holdout=True)
    predicted = {task: head.logits(embeddings).argmax(axis=1) for task, head in heads.by_task.items()}
    return {
        "labels": {
            "train": int((~labelled.holdout).sum()),
            "holdout": int(labelled.holdout.sum()),
            "unusable": len(labelled.examples) - len(labelled.holdout),
        },
        "labelled_by_task": {task: int((indices != UNKNOWN).sum()) for task, indices in labelled.classes.items()},
        "calibration": _calibration(heads),
        "holdout": evaluate(heads, embeddings, classes, labelled.groups[labelled.holdout]),
        "combined": combined_accuracy(predicted, classes),
        "sources": _source_rows(labelled, heads, predicted),
        "annotators": _annotator_rows(labelled, heads, predicted),
    }


@dataclass(frozen=True)
class _Statement:
    """Label of one photo by an annotator or from a source; `position` in the hold-out, None elsewhere."""

    name: str | int
    position: int | None
    classes: Mapping[str, str]
    example: Example


def _calibration(heads: Heads) -> dict[str, Any]:
    facts: dict[str, Any] = {}
    for task, head in heads.by_task.items():
        facts[task] = {"temperature": round(head.temperature, 4), "cross_fitted": head.cross_fitted}
        if head.temperature_photos:
            train, held_out = head.temperature_photos
            facts[task] |= {"photos": train + held_out, "holdout_photos": held_out}
    return facts


def _source_rows(labelled: LabelledSet, heads: Heads, predicted: Mapping[str, IntArray]) -> list[dict[str, Any]]:
    positions = _positions(labelled)
    said = [_Statement(e.source, positions.get(e.task_id), e.label.classes, e) for e in labelled.examples]
    return [
        {**heading, "labels": len(part), **_scores(part, heads, predicted)}
        for heading, part in _parts(said, "source", "sources")
    ]


def _annotator_rows(labelled: LabelledSet, heads: Heads, predicted: Mapping[str, IntArray]) -> list[dict[str, Any]]:
    positions = _positions(labelled)
    said = [
        _Statement(annotator, positions.get(example.task_id), classes, example)
        for example in labelled.examples
        for annotator, classes in example.label.opinions.items()
    ]
    return [
        {
            **heading,
            "labels": len(part),
            "share": len(part) / len(said),
            "agreement": _agreement(part),
            **_scores(part, heads, predicted),
        }
        for heading, part in _parts(said, "annotator", "annotators")
    ]


def _positions(labelled: LabelledSet) -> dict[int, int]:
    """Task id -> row among the hold-out's embeddings."""
    held = [example.task_id for example, out in zip(labelled.usable, labelled.holdout, strict=True) if out]
    return {task_id: position for position, task_id in enumerate(held)}


def _parts(said: Sequence[_Statement], one: str, many: str) -> list[tuple[dict[str, Any], list[_Statement]]]:
    """The statements of each of the largest names, then those of all others; with what names the row."""
    counts = Counter(statement.name for statement in said)
    ranked = sorted(counts, key=lambda name: (-counts[name], name))  # equal counts in the order of their names
    by_name: dict[str | int, list[_Statement]] = {name: [] for name in ranked}
    for statement in said:
        by_name[statement.name].append(statement)
    parts: list[tuple[dict[str, Any], list[_Statement]]] = [({one: name}, by_name[name]) for name in ranked[:_MAX_ROWS]]
    rest = ranked[_MAX_ROWS:]
    if rest:
        parts.append(({many: len(rest)}, [statement for name in rest for statement in by_name[name]]))
    return parts


def _scores(part: Sequence[_Statement], heads: Heads, predicted: Mapping[str, IntArray]) -> dict[str, Any]:
    held = [(s.position, s.classes) for s in part if s.position is not None]
    tasks = {}
    for key, head in heads.by_task.items():
        keys = head.task.class_keys
        known = [(position, keys.index(said[key])) for position, said in held if said.get(key) in keys]
        if known:
            positions, indices = np.array(known, dtype=np.int64).T
            confusion = confusion_matrix(predicted[key][positions], indices, len(keys))
            accuracy = float(np.trace(confusion)) / len(known)
            tasks[key] = {"photos": len(known), "accuracy": accuracy, "macro_f1": macro_f1(confusion)}
    return {"photos": len(held), "tasks": tasks}


def _agreement(part: Sequence[_Statement]) -> float | None:
    agreed = [
        statement.example.label.classes.get(task) == class_key
        for statement in part
        for task, class_key in statement.classes.items()
        if sum(task in said for said in statement.example.label.opinions.values()) > 1
    ]
    return sum(agreed) / len(agreed) if agreed else None
