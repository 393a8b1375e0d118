"""Annotations, the pre-labels they were made on, and their merging into the label that heads are fitted on."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple


class Prelabel(NamedTuple):
    """The model's answer to one task of a photo when an annotator labelled it.

    Attributes:
        class_key: the class; None where it is known only that the annotator changed it.
        confidence: probability of the class by the model, 0..1.
        shown: True if the page opened with it, False if the annotator did not see it.
    """

    class_key: str | None
    confidence: float
    shown: bool


@dataclass(frozen=True)
class Opinion:
    """Annotation of one photo by one annotator.

    Attributes:
        annotator: id of the annotator.
        updated_at: time of the last change, ISO 8601, UTC; the later of two opinions of one annotator counts.
        classes: task key -> class key; a task that was not answered is absent.
    """

    annotator: int
    updated_at: str
    classes: Mapping[str, str]


@dataclass(frozen=True)
class ConsensusLabel:
    """One photo's label from all its opinions.

    Attributes:
        classes: task key -> class key that most annotators chose.
        agreement: task key -> share of annotators who chose that class, above 0 and at most 1.
        ties: tasks on which no class has most votes; they are left out of `classes`.
        opinions: annotator -> task key -> class key, from the latest annotation.
    """

    classes: Mapping[str, str]
    agreement: Mapping[str, float]
    ties: tuple[str, ...]
    opinions: Mapping[int, Mapping[str, str]] = field(default_factory=dict, compare=False)


def merge_opinions(opinions: Iterable[Opinion]) -> ConsensusLabel:
    """Merge by majority, task by task; a tie is unknown rather than a guess."""
    latest: dict[int, Opinion] = {}
    for opinion in sorted(opinions, key=_moment):
        latest[opinion.annotator] = opinion
    votes: dict[str, Counter[str]] = {}
    for opinion in latest.values():
        for task, class_key in opinion.classes.items():
            votes.setdefault(task, Counter())[class_key] += 1
    classes: dict[str, str] = {}
    agreement: dict[str, float] = {}
    ties = []
    for task, counts in votes.items():
        (winner, most), *others = counts.most_common()
        if others and others[0][1] == most:
            ties.append(task)
        else:
            classes[task] = winner
            agreement[task] = most / counts.total()
    said = {annotator: opinion.classes for annotator, opinion in latest.items()}
    return ConsensusLabel(classes, agreement, tuple(ties), said)


def _moment(opinion: Opinion) -> str:
    # A full second is written without a fraction; with its Z it would sort behind every fraction of it.
    return opinion.updated_at.removesuffix("Z")
