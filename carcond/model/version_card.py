"""A model version's card: what it learnt from, how good it is on the hold-out, and what the gate said.

The models mirror `card.json`. A card that is written is checked strictly: a wrong type or an unknown key is a bug.
Cards outlive the program that wrote them, and the names of sources come from whoever imported the photos: of a card
that is read, whatever is missing, malformed or unknown is left out, and texts are made printable.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationInfo, field_validator, model_validator

from carcond.json_fields import count, flag, is_number, mapping, number, rows, sanitize_line, text
from carcond.taxonomy import TASK_BY_KEY

FIGURES = {
    "macro_f1": "macro-F1",
    "worst_recall": "worst class recall",
    "probability_score": "probability score",
}
"""Figure -> what people call it. All lie in 0..1, high = better.

macro_f1: mean F1 over the classes that occur. worst_recall: least share of a class's photos that are found.
probability_score: 1 minus half the Brier score of the calibrated probabilities.
"""

ONE_CLASS = "only one class seen: no score"
"""Stands in place of a macro-F1 where all hold-out photos are of one class: it would be 1 for any constant answer."""

# Context of a validation that must not fail, see `VersionCard.read`.
_READING = "reading"


def _bins(part: Mapping[str, Any], name: str) -> list[dict[str, float]]:
    bins = []
    for each in rows(part, name):
        confidence, accuracy, photos = number(each, "confidence"), number(each, "accuracy"), count(each, "photos")
        if confidence is not None and accuracy is not None and photos is not None and photos > 0:
            shares = {"confidence": min(max(confidence, 0.0), 1.0), "accuracy": min(max(accuracy, 0.0), 1.0)}
            bins.append({**shares, "photos": photos})
    return bins


def _confusion(part: Mapping[str, Any], name: str) -> list[list[int]]:
    cells = part[name]
    if not isinstance(cells, list) or not all(isinstance(row, list) and len(row) == len(cells) for row in cells):
        return []
    return [[int(cell) if is_number(cell) else 0 for cell in row] for row in cells]


def _interval(part: Mapping[str, Any], name: str) -> list[float] | None:
    ends = part[name]
    return ends if isinstance(ends, list) and len(ends) == 2 and all(map(is_number, ends)) else None


def _read_by(read: Callable[[Mapping[str, Any], str], Any]) -> BeforeValidator:
    """Make a field lenient in a card that is read: `read` finds what passes the check, or what stands for nothing."""
    return BeforeValidator(lambda value, info: read({"it": value}, "it") if info.context is _READING else value)


_T = TypeVar("_T")
_Text = Annotated[str, _read_by(text)]
_Count = Annotated[int | None, _read_by(count)]
_Number = Annotated[float | None, _read_by(number)]
_Flag = Annotated[bool | None, _read_by(flag)]
_Interval = Annotated[Sequence[float] | None, _read_by(_interval)]
_Part = Annotated[_T, _read_by(mapping)]
_PartOrNone = Annotated[_T | None, _read_by(lambda part, name: mapping(part, name) or None)]
_ByKey = Annotated[Mapping[_Text, _T], _read_by(mapping)]
_Rows = Annotated[Sequence[_T], _read_by(rows)]


class _Facts(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _leave_out_unknown(cls, facts: Any, info: ValidationInfo) -> Any:
        is_read = info.context is _READING
        return {name: facts[name] for name in facts if name in cls.model_fields} if is_read else facts


@dataclass(frozen=True)
class Measure:
    """A figure, None where it is not known, with its 95 % interval where that is known."""

    value: float | None = None
    low: float | None = None
    high: float | None = None


class Labels(_Facts):
    """Numbers of labelled photos on each side of the split, and of `unusable` ones."""

    train: _Count = None
    holdout: _Count = None
    unusable: _Count = None

    @property
    def used(self) -> int:
        """Labels on both sides."""
        return (self.train or 0) + (self.holdout or 0)


class Calibration(_Facts):
    """The temperature of one task, on how many photos it was chosen, and how many of these are of the hold-out."""

    temperature: _Number = None
    cross_fitted: _Flag = None
    photos: _Count = None
    holdout_photos: _Count = None


class ClassScore(_Facts):
    """Scores of one class of a task; `support` is how many hold-out photos are of it."""

    precision: _Number = None
    recall: _Number = None
    f1: _Number = None
    support: _Count = None


class Bin(_Facts):
    """Hold-out photos of about the same confidence."""

    confidence: float
    accuracy: float
    photos: int


class CalibrationMetrics(_Facts):
    """Calibration figures of one task at one temperature."""

    nll: _Number = None
    brier: _Number = None
    ece: _Number = None
    bins: Annotated[Sequence[Bin], _read_by(_bins)] = ()


class Metrics(_Facts):
    """Figures on hold-out photos: of a task all; of all tasks together, a source or an annotator the first ones.

    `confusion` is true class by row, empty where it is not known. Where it has photos of one class only, macro-F1 is
    None, whatever the card says.
    """

    photos: _Count = None
    accuracy: _Number = None
    accuracy_interval: _Interval = None
    confusion: Annotated[Sequence[Sequence[int]], _read_by(_confusion)] = ()
    macro_f1: _Number = None
    macro_f1_interval: _Interval = None
    precision: _Number = None
    recall: _Number = None
    nll: _Number = None
    classes: _ByKey[_Part[ClassScore]] = {}
    before: _Part[CalibrationMetrics] = CalibrationMetrics()
    after: _Part[CalibrationMetrics] = CalibrationMetrics()

    @field_validator("macro_f1", "macro_f1_interval")
    @classmethod
    def _of_two_classes(cls, value: _T, info: ValidationInfo) -> _T | None:
        return None if _is_one_class(info.data.get("confusion", ())) else value

    @property
    def is_one_class(self) -> bool:
        """Property of a hold-out whose photos are all of one class: it has no macro-F1."""
        return _is_one_class(self.confusion)

    @property
    def accuracy_measure(self) -> Measure:
        """The accuracy with its interval."""
        return Measure(self.accuracy, *(self.accuracy_interval or ()))

    @property
    def macro_f1_measure(self) -> Measure:
        """The macro-F1 with its interval."""
        return Measure(self.macro_f1, *(self.macro_f1_interval or ()))


def _is_one_class(confusion: Sequence[Sequence[int]]) -> bool:
    return sum(any(row) for row in confusion) == 1


class Row(_Facts):
    """A source or an annotator, or how many others stand in one row; `tasks` is by task key."""

    source: _Text = ""
    sources: _Count = None
    annotator: Annotated[int | str, _read_by(lambda part, name: count(part, name) or text(part, name))] = ""
    annotators: _Count = None
    labels: _Count = None
    share: _Number = None
    agreement: _Number = None
    photos: _Count = None
    tasks: _ByKey[_Part[Metrics]] = {}

    @property
    def name(self) -> str:
        """Name of the source or annotator, for people."""
        others = self.sources if self.annotators is None else self.annotators
        return str(self.source or self.annotator or "unknown") if others is None else f"{others} others"


class Comparison(_Facts):
    """One figure of the serving version and of the candidate, and their difference with its 90 % interval."""

    serving: _Number = None
    candidate: _Number = None
    difference: _Number = None
    low: _Number = None
    high: _Number = None

    @property
    def measure(self) -> Measure:
        """The difference with its interval."""
        return Measure(self.difference, self.low, self.high)


class GateTask(_Facts):
    """Findings of the gate on one task; `untested` says why there was no test."""

    photos: _Count = None
    tested: _Flag = None
    untested: _Text = ""
    macro_f1: _PartOrNone[Comparison] = None
    worst_recall: _PartOrNone[Comparison] = None
    probability_score: _PartOrNone[Comparison] = None


class Gate(_Facts):
    """Verdict on letting the version serve, its reason, and the version that it was compared with."""

    accepted: _Flag = None
    reason: Annotated[str, _read_by(lambda part, name: sanitize_line(part[name] or "", 1000))] = ""
    against: _Text | None = None
    tasks: _ByKey[_Part[GateTask]] = {}


@dataclass(frozen=True)
class TaskReport:
    """All that a card says of one task; `labels` is how many there are in all."""

    key: str
    labels: int | None
    calibration: Calibration
    metrics: Metrics

    @property
    def name(self) -> str:
        """Name for people."""
        return task_name(self.key)

    @property
    def classes(self) -> list[tuple[str, ClassScore]]:
        """Name for people and score of each class, in the order of the confusion matrix."""
        known = {each.key: each.en for each in TASK_BY_KEY[self.key].classes} if self.key in TASK_BY_KEY else {}
        scores, width = self.metrics.classes, len(self.metrics.confusion)
        keys = list(scores or (known if width == len(known) else ()))
        if width and len(keys) != width:
            keys = [f"class {i + 1}" for i in range(width)]
        return [(known.get(key, key), scores.get(key, ClassScore())) for key in keys]


class VersionCard(_Facts):
    """A whole card, see `carcond.evaluation.report_card.report_card`; the first fields say how it came to be."""

    version: _Text = ""
    created: _Text = ""
    parent: _Text = ""
    encoder_id: _Text = ""
    backbone: _Text = ""
    weights_source: _Text = ""
    fingerprint: _Text = ""
    fit_seconds: _Number = None
    gate: _PartOrNone[Gate] = None
    labels: _Part[Labels] = Labels()
    labelled_by_task: _ByKey[_Count] = {}
    calibration: _ByKey[_Part[Calibration]] = {}
    holdout: _ByKey[_Part[Metrics]] = {}
    combined: _Part[Metrics] = Metrics()
    sources: _Rows[Row] = ()
    annotators: _Rows[Row] = ()

    @classmethod
    def read(cls, card: Mapping[str, Any]) -> "VersionCard":
        """Read decoded JSON. Never raises, whatever the card holds."""
        return cls.model_validate(card, context=_READING)

    def facts(self) -> dict[str, Any]:
        """Facts as JSON has them, without what was never given."""
        return self.model_dump(exclude_unset=True)

    @property
    def accepted(self) -> bool | None:
        """The gate's verdict, None without one: versions of before there was a gate have none."""
        return self.gate.accepted if self.gate else None

    @property
    def is_refused(self) -> bool:
        """Refusal by the gate."""
        return self.accepted is False

    @property
    def reason(self) -> str:
        """The gate's; empty without one."""
        return self.gate.reason if self.gate else ""

    @property
    def tasks(self) -> list[TaskReport]:
        """The tasks that it says anything of, in their usual order."""
        return [
            TaskReport(
                key,
                self.labelled_by_task.get(key),
                self.calibration.get(key, Calibration()),
                self.holdout.get(key, Metrics()),
            )
            for key in _ordered([*self.labelled_by_task, *self.calibration, *self.holdout])
        ]

    @property
    def task_names(self) -> dict[str, str]:
        """Task key -> name for people, of the tasks that sources and annotators have scores of."""
        return {
            key: task_name(key)
            for key in _ordered(key for row in (*self.sources, *self.annotators) for key in row.tasks)
        }

    @property
    def gate_tasks(self) -> list[tuple[str, GateTask, dict[str, Comparison]]]:
        """Name, verdict and comparisons of each task that the gate saw; no macro-F1 where there is one class only."""
        seen = []
        for key, task in self.gate.tasks.items() if self.gate else ():
            hidden = "macro_f1" if self.holdout.get(key, Metrics()).is_one_class else ""
            figures = {name: getattr(task, figure) for figure, name in FIGURES.items() if figure != hidden}
            seen.append((task_name(key), task, {name: each for name, each in figures.items() if each}))
        return seen


def task_name(key: str) -> str:
    """Name of a task for people; of an unknown one its key."""
    return TASK_BY_KEY[key].en if key in TASK_BY_KEY else sanitize_line(key)


def _ordered(keys: Iterable[str]) -> list[str]:
    found = set(keys)
    return [key for key in TASK_BY_KEY if key in found] + sorted(found - TASK_BY_KEY.keys())
