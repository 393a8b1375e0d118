"""A model version's card, read for people: whatever is missing or malformed in it is left out.

Cards outlive the program that wrote them, and the names of sources come from whoever imported the photos.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from carcond.card_values import count, flag, is_number, mapping, number, plain, rows, text
from carcond.gate import FIGURES
from carcond.taxonomy import TASK_BY_KEY


@dataclass(frozen=True)
class Measure:
    """A figure, None where it is not known, with its 95 % interval where that is known."""

    value: float | None = None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class ClassScore:
    """How one class of a task is told; `support` is how many hold-out photos are of it."""

    name: str
    precision: float | None
    recall: float | None
    f1: float | None
    support: int | None


@dataclass(frozen=True)
class Bin:
    """Hold-out photos of about the same confidence."""

    confidence: float
    accuracy: float
    photos: int


@dataclass(frozen=True)
class Honesty:
    """Calibration figures of one task at one temperature."""

    nll: float | None = None
    brier: float | None = None
    ece: float | None = None
    bins: Sequence[Bin] = ()


@dataclass(frozen=True)
class TaskReport:
    """One task on the hold-out. `confusion` is true class by row, empty where it is not known."""

    key: str
    name: str
    labels: int | None
    photos: int | None
    accuracy: Measure
    macro_f1: Measure
    precision: float | None
    recall: float | None
    classes: Sequence[ClassScore]
    confusion: Sequence[Sequence[int]]
    temperature: float | None
    cross_fitted: bool | None
    calibration_photos: int | None
    before: Honesty
    after: Honesty


@dataclass(frozen=True)
class Score:
    """One task of one source or annotator."""

    photos: int | None = None
    accuracy: float | None = None
    macro_f1: float | None = None


@dataclass(frozen=True)
class Row:
    """A source or an annotator; `scores` is by task key."""

    name: str
    labels: int | None
    share: float | None
    photos: int | None
    agreement: float | None
    scores: Mapping[str, Score]


@dataclass(frozen=True)
class GateTask:
    """What the gate saw of one task: for each figure, the serving version's, the candidate's, and the difference."""

    name: str
    photos: int | None
    tested: bool | None
    untested: str
    comparisons: Mapping[str, tuple[float | None, float | None, Measure]]


@dataclass(frozen=True)
class GateVerdict:
    """Whether the version was let through to serve, and why."""

    accepted: bool | None
    reason: str
    against: str
    tasks: Sequence[GateTask]


@dataclass(frozen=True)
class Report:
    """A whole card."""

    version: str
    created: str
    parent: str
    encoder_id: str
    train: int | None
    holdout: int | None
    unusable: int | None
    tasks: Sequence[TaskReport]
    combined_photos: int | None
    combined: Measure
    sources: Sequence[Row]
    annotators: Sequence[Row]
    gate: GateVerdict | None
    task_names: Mapping[str, str] = field(default_factory=dict)


def read_card(card: Mapping[str, Any]) -> Report:
    """Never raises, whatever the card holds; texts come back on one line and without control characters."""
    labels, combined = mapping(card, "labels"), mapping(card, "combined")
    sources = [_row(row, _source_name(row)) for row in rows(card, "sources")]
    annotators = [_row(row, _other_or(row, "annotator", "annotators")) for row in rows(card, "annotators")]
    tasks = [_task_report(card, key) for key in _task_keys(card)]
    scored = {key for row in (*sources, *annotators) for key in row.scores}
    return Report(
        version=text(card, "version"),
        created=text(card, "created"),
        parent=text(card, "parent"),
        encoder_id=text(card, "encoder_id"),
        train=count(labels, "train"),
        holdout=count(labels, "holdout"),
        unusable=count(labels, "unusable"),
        tasks=tasks,
        combined_photos=count(combined, "photos"),
        combined=_measure(combined, "accuracy"),
        sources=sources,
        annotators=annotators,
        gate=_gate(card),
        task_names={key: _task_name(key) for key in _ordered(scored)},
    )


def _ordered(keys: set[str]) -> list[str]:
    return [key for key in TASK_BY_KEY if key in keys] + sorted(keys - TASK_BY_KEY.keys())


def _task_keys(card: Mapping[str, Any]) -> list[str]:
    return _ordered({key for part in ("labelled_by_task", "calibration", "holdout") for key in mapping(card, part)})


def _task_name(key: str) -> str:
    return TASK_BY_KEY[key].en if key in TASK_BY_KEY else plain(key)


def _task_report(card: Mapping[str, Any], key: str) -> TaskReport:
    metrics = mapping(mapping(card, "holdout"), key)
    calibration = mapping(mapping(card, "calibration"), key)
    confusion = _confusion(metrics)
    after = _honesty(mapping(metrics, "after"))
    return TaskReport(
        key=key,
        name=_task_name(key),
        labels=count(mapping(card, "labelled_by_task"), key),
        photos=count(metrics, "photos"),
        accuracy=_measure(metrics, "accuracy"),
        macro_f1=_measure(metrics, "macro_f1"),
        precision=number(metrics, "precision"),
        recall=number(metrics, "recall"),
        classes=_class_scores(key, metrics, len(confusion)),
        confusion=confusion,
        temperature=number(calibration, "temperature"),
        cross_fitted=flag(calibration, "cross_fitted"),
        calibration_photos=count(calibration, "photos"),
        before=_honesty(mapping(metrics, "before")),
        # Older cards have this one figure only.
        after=after if mapping(metrics, "after") else Honesty(nll=number(metrics, "nll")),
    )


def _class_scores(key: str, metrics: Mapping[str, Any], width: int) -> list[ClassScore]:
    classes = mapping(metrics, "classes")
    keys = list(classes)
    if not keys and key in TASK_BY_KEY and width == len(TASK_BY_KEY[key].classes):
        keys = list(TASK_BY_KEY[key].class_keys)
    if width and len(keys) != width:
        keys = [f"class {i + 1}" for i in range(width)]
    return [
        ClassScore(
            _class_name(key, name),
            number(mapping(classes, name), "precision"),
            number(mapping(classes, name), "recall"),
            number(mapping(classes, name), "f1"),
            count(mapping(classes, name), "support"),
        )
        for name in keys
    ]


def _class_name(task: str, key: str) -> str:
    known = TASK_BY_KEY[task].classes if task in TASK_BY_KEY else ()
    return next((c.en for c in known if c.key == key), plain(key))


def _confusion(metrics: Mapping[str, Any]) -> list[list[int]]:
    rows = metrics.get("confusion")
    if not isinstance(rows, list) or not all(isinstance(row, list) and len(row) == len(rows) for row in rows):
        return []
    return [[int(cell) if is_number(cell) else 0 for cell in row] for row in rows]


def _honesty(part: Mapping[str, Any]) -> Honesty:
    bins = []
    for each in rows(part, "bins"):
        confidence, accuracy, photos = number(each, "confidence"), number(each, "accuracy"), count(each, "photos")
        if confidence is not None and accuracy is not None and photos is not None and photos > 0:
            bins.append(Bin(min(max(confidence, 0.0), 1.0), min(max(accuracy, 0.0), 1.0), photos))
    return Honesty(number(part, "nll"), number(part, "brier"), number(part, "ece"), bins)


def _row(row: Mapping[str, Any], name: str) -> Row:
    tasks = mapping(row, "tasks")
    scores = {
        key: Score(count(part, "photos"), number(part, "accuracy"), number(part, "macro_f1"))
        for key, part in ((key, mapping(tasks, key)) for key in tasks)
    }
    agreement = number(row, "agreement")
    return Row(name, count(row, "labels"), number(row, "share"), count(row, "photos"), agreement, scores)


def _source_name(row: Mapping[str, Any]) -> str:
    return _other_or(row, "source", "sources")


def _other_or(row: Mapping[str, Any], one: str, many: str) -> str:
    others = count(row, many)
    if others is not None:
        return f"{others} others"
    return text(row, one) or "unknown"


def _gate(card: Mapping[str, Any]) -> GateVerdict | None:
    gate = mapping(card, "gate")
    if not gate:
        return None
    tasks = mapping(gate, "tasks")
    return GateVerdict(
        flag(gate, "accepted"),
        plain(gate.get("reason") or "", 1000),
        text(gate, "against"),
        [_gate_task(key, mapping(tasks, key)) for key in tasks],
    )


def _gate_task(key: str, part: Mapping[str, Any]) -> GateTask:
    comparisons = {}
    for metric, name in FIGURES.items():
        each = mapping(part, metric)
        if each:
            difference = Measure(number(each, "difference"), number(each, "low"), number(each, "high"))
            comparisons[name] = (number(each, "serving"), number(each, "candidate"), difference)
    untested = text(part, "untested")
    return GateTask(_task_name(key), count(part, "photos"), flag(part, "tested"), untested, comparisons)


def _measure(part: Mapping[str, Any], name: str) -> Measure:
    interval = part.get(f"{name}_interval")
    ends = interval if isinstance(interval, list) and len(interval) == 2 and all(map(is_number, interval)) else None
    low, high = (float(ends[0]), float(ends[1])) if ends else (None, None)
    return Measure(number(part, name), low, high)
