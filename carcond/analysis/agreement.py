"""Inter-annotator agreement: by pairs, over all annotators, and the photos in conflict.

All figures are of one task, from the latest answer of each annotator to each photo
(`carcond.data.annotations.ConsensusLabel.opinions`). An annotator without an answer is missing, and does not count
as a disagreement.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

import numpy as np
import numpy.typing as npt

from carcond.arrays import UNKNOWN, IntArray

DoubleArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Answers:
    """Answers of annotators to one task.

    Attributes:
        annotators: their ids, A of them, ascending.
        indices: class indices ``(N, A)``, `UNKNOWN` where an annotator did not answer.
        class_count: K.
    """

    annotators: Sequence[int]
    indices: IntArray
    class_count: int

    @classmethod
    def of(cls, opinions: Iterable[Mapping[int, Mapping[str, str]]], task: str, classes: Sequence[str]) -> "Answers":
        """Gather the answers to one task.

        Args:
            opinions: of each photo: annotator -> task key -> class key.
            task: key of the task.
            classes: its class keys in order; any other key counts as no answer.
        """
        said = [{who: each[task] for who, each in photo.items() if each.get(task) in classes} for photo in opinions]
        annotators = sorted({who for photo in said for who in photo})
        rows = [[classes.index(photo[who]) if who in photo else UNKNOWN for who in annotators] for photo in said]
        indices = np.array(rows, dtype=np.int64).reshape(len(said), len(annotators))
        return cls(annotators, indices, len(classes))

    def counts(self) -> IntArray:
        """Number of annotators per class ``(N, K)``."""
        each = np.arange(self.class_count)
        return np.asarray((self.indices[:, :, np.newaxis] == each).sum(axis=1), dtype=np.int64)

    def conflicts(self) -> IntArray:
        """Positions of the photos on which annotators disagree."""
        return np.flatnonzero((self.counts() > 0).sum(axis=1) > 1)


@dataclass(frozen=True)
class PairAgreement:
    """Two annotators on the photos that both answered.

    Attributes:
        first: id of one annotator.
        second: id of the other.
        photos: number of photos that both answered.
        agreement: share of these on which they agree, 0..1.
        kappa: Cohen's kappa, at most 1, 0 = as by chance; None where both gave one and the same class throughout.
    """

    first: int
    second: int
    photos: int
    agreement: float
    kappa: float | None


def pairwise_agreement(answers: Answers) -> list[PairAgreement]:
    """Agreement of each pair of annotators with a photo in common, in order of their ids."""
    pairs = []
    for a, b in combinations(range(len(answers.annotators)), 2):
        both = (answers.indices[:, [a, b]] != UNKNOWN).all(axis=1)
        if both.any():
            first, second = answers.indices[both, a], answers.indices[both, b]
            kappa = cohen_kappa(first, second, answers.class_count)
            agreed = float((first == second).mean())
            pairs.append(PairAgreement(answers.annotators[a], answers.annotators[b], int(both.sum()), agreed, kappa))
    return pairs


def cohen_kappa(first: IntArray, second: IntArray, class_count: int) -> float | None:
    """Cohen's kappa of two annotators (Cohen 1960, doi:10.1177/001316446002000104).

    Args:
        first: class indices ``(N,)`` that one gave, N at least 1.
        second: those of the other, of the same photos.
        class_count: K.

    Returns:
        At most 1; None where both gave one and the same class throughout: chance alone then explains everything.
    """
    expected = (np.bincount(first, minlength=class_count) @ np.bincount(second, minlength=class_count)) / len(
        first
    ) ** 2
    if expected == 1:
        return None
    return float(((first == second).mean() - expected) / (1 - expected))


def krippendorff_alpha(counts: IntArray, level: Literal["nominal", "ordinal"] = "nominal") -> float | None:
    """Krippendorff's alpha for any number of annotators and missing answers.

    Source: Krippendorff 2011, "Computing Krippendorff's Alpha-Reliability",
    https://repository.upenn.edu/asc_papers/43.

    Args:
        counts: number of annotators per class ``(N, K)``; photos with fewer than two answers do not count.
        level: nominal: all disagreements weigh the same. Ordinal: classes are degrees, least first, and the more
            answers lie between two, the more their disagreement weighs.

    Returns:
        At most 1, 0 = as by chance; None where no photo has two answers, or only one class was given.
    """
    paired = counts[counts.sum(axis=1) >= 2].astype(np.float64)
    answers = paired.sum(axis=1, keepdims=True)
    # (K, K), the coincidence matrix: pairs of answers to one photo, each photo weighted by its number of answers.
    shares = paired / (answers - 1)
    coincidences = paired.T @ shares - np.diag(shares.sum(axis=0))
    totals = coincidences.sum(axis=1)
    distance = _ordinal_distance(totals) if level == "ordinal" else 1 - np.eye(len(totals))
    expected = totals @ distance @ totals
    if not expected:
        return None
    return float(1 - (totals.sum() - 1) * (coincidences * distance).sum() / expected)


def _ordinal_distance(totals: DoubleArray) -> DoubleArray:
    """Squared distance of classes ``(K, K)``: the answers from the middle of one to the middle of the other."""
    middle = np.cumsum(totals) - totals / 2
    return np.asarray((middle[:, np.newaxis] - middle) ** 2)
