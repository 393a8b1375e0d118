"""Anchoring: how often an annotator keeps a pre-label that he or she would not have given.

One photo in twenty opens without its pre-label, at random, so these photos are like the others of the queue. Let the
label of such a photo equal the model's answer, which nobody saw, with probability a. Where the pre-label is shown,
somebody who would have answered otherwise keeps it with probability k; so labels equal it with probability
s = a + k (1 - a), and k = (s - a) / (1 - a). This is Abbott's correction for what would have happened anyway (1925,
doi:10.1093/jee/18.2.265a); that pre-labels bias annotators: Fort and Sagot 2010, https://aclanthology.org/W10-1807.

Both shares grow with the model's confidence, so they are compared within strata of confidence: over the strata, shown
labels equal to the pre-label beyond those expected, by shown labels that would have differed from it. Photos of the
hold-out are no part of it: the queue selects hard photos, and at the same confidence a model is right more often on
random ones.
"""

from collections.abc import Collection, Iterable
from dataclasses import asdict, dataclass
from math import ceil
from typing import Any

import numpy as np

from carcond.arrays import BoolArray, DoubleArray
from carcond.data.annotations import Prelabel
from carcond.store.tables import AnnotationRow
from carcond.taxonomy import TASKS

MINIMUM_ANSWERS = 20
"""Minimum number of answers with the pre-label shown, and without, to estimate a rate."""
MINIMUM_DIFFERENT = 5
"""Minimum number of answers without the pre-label that differ from it."""
_STRATUM, _MAX_STRATA = 20, 5
_DRAWS = 4000


@dataclass(frozen=True)
class PrelabelAnswers:
    """Answers to one task on N photos for which the model had an answer.

    Attributes:
        confidence: probability of the model's answer ``(N,)``, 0..1.
        equal: ``(N,)``, True where the annotator's answer is the model's.
    """

    confidence: DoubleArray
    equal: BoolArray


@dataclass(frozen=True)
class Anchoring:
    """Rate at which wrong pre-labels are kept.

    Attributes:
        shown: number of answers with the pre-label shown.
        kept: share of them that equal it; None for none.
        blind: number of answers to which there was a pre-label of such a confidence, not shown.
        agreed: share of them that equal it; None for none.
        rate: probability that a shown pre-label is kept by somebody who would have answered otherwise, 0..1; None with
            too few answers.
        interval: of the rate, 95 %; None with too few answers.
        missing_shown: further answers of the first kind until there are enough, by the shares so far; 0 for enough.
        missing_blind: the same of the second kind.
    """

    shown: int
    kept: float | None
    blind: int
    agreed: float | None
    rate: float | None
    interval: tuple[float, float] | None
    missing_shown: int
    missing_blind: int


def estimate_anchoring(shown: PrelabelAnswers, blind: PrelabelAnswers) -> Anchoring:
    """The rate, and its interval from the posterior of the shares under Jeffreys' prior. Deterministic.

    A bootstrap would call a share of ten in ten certain.

    Args:
        shown: answers with the pre-label shown.
        blind: answers without it; those of a confidence below all that were shown do not count.
    """
    least = shown.confidence.min(initial=1.0)
    comparable = blind.confidence >= least
    blind = PrelabelAnswers(blind.confidence[comparable], blind.equal[comparable])
    count, different = len(blind.equal), int((~blind.equal).sum())
    needed = max(MINIMUM_ANSWERS, count)
    if different < MINIMUM_DIFFERENT:
        needed = max(needed, ceil(MINIMUM_DIFFERENT * (count + 1) / (different + 0.5)))
    missing_shown, missing_blind = max(0, MINIMUM_ANSWERS - len(shown.equal)), needed - count
    rate = interval = None
    if not missing_shown and not missing_blind:
        rate, interval = _rate(shown, blind)
    kept, agreed = (float(each.equal.mean()) if len(each.equal) else None for each in (shown, blind))
    return Anchoring(len(shown.equal), kept, count, agreed, rate, interval, missing_shown, missing_blind)


def anchoring_facts(annotations: Iterable[AnnotationRow], held_out: Collection[int]) -> dict[str, list[dict[str, Any]]]:
    """Task key -> rate of all annotators together, then of each, JSON-ready.

    Args:
        annotations: of one project; those that were skipped do not count.
        held_out: task ids of the hold-out.

    Returns:
        Rows with the fields of `Anchoring` and `annotator`: an id of Label Studio, None for all. A task without an
        answer to a known pre-label is absent.
    """
    rows = [row for row in annotations if not row.cancelled and row.prelabels and row.task_id not in held_out]
    facts = {}
    for task in TASKS:
        answers = [
            (row.annotator, Prelabel(*row.prelabels[task.key]), row.classes[task.key])
            for row in rows
            if row.prelabels and task.key in row.prelabels and task.key in row.classes
        ]
        people = sorted({annotator for annotator, _, _ in answers})
        parts = [(who, [each[1:] for each in answers if who in (None, each[0])]) for who in (None, *people)]
        if answers:
            facts[task.key] = [{"annotator": who, **asdict(_estimate(part))} for who, part in parts]
    return facts


def _estimate(answers: Collection[tuple[Prelabel, str]]) -> Anchoring:
    shown, blind = ([each for each in answers if each[0].shown is kind] for kind in (True, False))
    return estimate_anchoring(_arrays(shown), _arrays(blind))


def _arrays(answers: Collection[tuple[Prelabel, str]]) -> PrelabelAnswers:
    return PrelabelAnswers(
        np.array([prelabel.confidence for prelabel, _ in answers], dtype=np.float64),
        np.array([prelabel.class_key == given for prelabel, given in answers], dtype=np.bool_),
    )


def _rate(shown: PrelabelAnswers, blind: PrelabelAnswers) -> tuple[float, tuple[float, float]]:
    strata = min(_MAX_STRATA, len(blind.equal) // _STRATUM)
    edges = np.quantile(blind.confidence, np.arange(1, strata) / strata).astype(np.float64)
    kept, shown_counts = _counts(shown, edges)
    agreed, blind_counts = _counts(blind, edges)
    used = blind_counts > 0  # of equal confidences a stratum may have all or none
    kept, shown_counts, agreed, blind_counts = (each[used] for each in (kept, shown_counts, agreed, blind_counts))
    rate = _excess(kept / np.maximum(shown_counts, 1), agreed / blind_counts, shown_counts)
    generator = np.random.default_rng(0)
    size = (_DRAWS, len(kept))
    draws = _excess(
        generator.beta(kept + 0.5, shown_counts - kept + 0.5, size),
        generator.beta(agreed + 0.5, blind_counts - agreed + 0.5, size),
        shown_counts,
    )
    low, high = np.quantile(draws, (0.025, 0.975))
    return float(rate), (min(float(low), float(rate)), max(float(high), float(rate)))


def _counts(answers: PrelabelAnswers, edges: DoubleArray) -> tuple[DoubleArray, DoubleArray]:
    """Numbers of answers that equal the model's, and of all, by stratum of confidence ``(S,)``."""
    stratum = np.searchsorted(edges, answers.confidence, side="right")
    count = len(edges) + 1
    equal = np.bincount(stratum[answers.equal], minlength=count)
    return equal.astype(np.float64), np.bincount(stratum, minlength=count).astype(np.float64)


def _excess(kept: DoubleArray, agreed: DoubleArray, weights: DoubleArray) -> DoubleArray:
    """Rate from the shares ``(..., S)`` of labels equal to the pre-label, shown and not; between 0 and 1."""
    otherwise = ((1 - agreed) * weights).sum(axis=-1)
    beyond = ((kept - agreed) * weights).sum(axis=-1)
    return np.asarray(np.clip(beyond / np.maximum(otherwise, 1e-9), 0, 1))
