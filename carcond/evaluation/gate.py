"""The gate: a candidate serves unless a paired test on the hold-out finds it worse than the serving version.

Two versions answer the same photos, and the test is of the difference: for macro-F1 and the worst class recall by a
bootstrap (Efron and Tibshirani 1993, ISBN 0-412-04231-2), paired by photo and stratified by class; for the
probability score by Student's paired t. Each photo is answered by a temperature that was chosen without its label, so
neither version is favoured by the hold-out labels on which its temperature was chosen. The candidate is refused when,
for any task and figure, it is worse by more than a margin and the difference is below zero with 95 % confidence,
one-sided.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from scipy.special import stdtrit

from carcond.arrays import UNKNOWN, DoubleArray, FloatArray, IntArray
from carcond.evaluation.f1 import mean_f1
from carcond.model.heads import Heads
from carcond.model.version_card import FIGURES
from carcond.taxonomy import TASKS, Task

_DRAWS = 2000
# One-sided; the range that is kept holds the true difference 90 times in 100.
_CONFIDENCE = 0.95
# Doubtful photos of each class, for each of both right, one right, the other right, both wrong (Agresti and Min 2005,
# doi:10.1002/sim.1781). Without them, one or two photos of a rare class that a candidate misses would be certainty.
_DOUBT = 0.5


@dataclass(frozen=True)
class ModelOnHoldout:
    """A version in the comparison, with its embeddings of the hold-out.

    Attributes:
        name: version name, for the verdict.
        heads: the version's heads.
        embeddings: ``(N, D)`` of the hold-out photos, by the encoder of the heads.
        groups: numbers of the photos' groups ``(N,)``.
    """

    name: str
    heads: Heads
    embeddings: FloatArray
    groups: IntArray

    def probabilities(self, task: str, rows: IntArray) -> FloatArray:
        """Probabilities ``(R, K)`` of some photos, by temperatures that were chosen without their labels."""
        return self.heads.by_task[task].holdout_probabilities(self.embeddings[rows], self.groups[rows])


@dataclass(frozen=True)
class Comparison:
    """One figure of both versions; above zero, the candidate is better. `low` to `high` is its 90 % interval."""

    serving: float
    candidate: float
    difference: float
    low: float
    high: float

    def finds_worse(self, margin: float) -> bool:
        """True if the candidate is worse by more than the margin, with 95 % confidence."""
        return self.difference < -margin and self.high < 0


@dataclass(frozen=True)
class TaskVerdict:
    """Result of the gate for one task.

    Attributes:
        photos: number of hold-out photos with a label for it, predicted by both versions.
        untested: why there was no test; empty when there was one.
        comparisons: figure -> comparison, see `FIGURES`.
    """

    photos: int
    untested: str = ""
    comparisons: Mapping[str, Comparison] = field(default_factory=dict)

    def facts(self) -> dict[str, Any]:
        """JSON-ready."""
        told = {"untested": self.untested} if self.untested else {}
        compared = {name: asdict(comparison) for name, comparison in self.comparisons.items()}
        return {"photos": self.photos, "tested": not self.untested, **told, **compared}


@dataclass(frozen=True)
class Verdict:
    """Decision of the gate on a candidate.

    Attributes:
        accepted: True if the candidate may serve.
        reason: in words, with numbers.
        against: name of the version that it was compared with, None for the first.
        tasks: task key -> result for the task.
    """

    accepted: bool
    reason: str
    against: str | None
    tasks: Mapping[str, TaskVerdict] = field(default_factory=dict)

    def facts(self) -> dict[str, Any]:
        """JSON-ready, as a version's card keeps it under `gate`."""
        return {
            "accepted": self.accepted,
            "reason": self.reason,
            "against": self.against,
            "tasks": {key: task.facts() for key, task in self.tasks.items()},
        }


def evaluate_candidate(
    candidate: ModelOnHoldout,
    serving: ModelOnHoldout | None,
    classes: Mapping[str, IntArray],
    *,
    margin: float,
    min_photos: int,
    tasks: Sequence[Task] = TASKS,
) -> Verdict:
    """Compare a candidate with the serving version. Deterministic.

    Args:
        candidate: the newly fitted version.
        serving: the serving version, None when there is none.
        classes: task key -> class indices ``(N,)`` of the hold-out photos, `UNKNOWN` where not labelled.
            Neither version may have been fitted on one of them.
        margin: a candidate that is worse by no more than this is let through, 0..1.
        min_photos: with fewer labelled photos a task is not tested; at least 2.
        tasks: those of the label config; others are ignored.
    """
    if serving is None:
        return Verdict(True, "first version", None)
    known = {task.key: classes.get(task.key, np.empty(0, dtype=np.int64)) for task in tasks}
    lost = [key for key in known if key in serving.heads.by_task and key not in candidate.heads.by_task]
    if lost:
        reason = f"it cannot tell {' and '.join(lost)}, which {serving.name} can: labels of two classes are needed"
        return Verdict(False, reason, serving.name)
    seen = {
        key: _compare_task(key, candidate, serving, known[key], min_photos)
        for key in known
        if key in candidate.heads.by_task
    }
    worse = [
        f"{key}: {FIGURES[name]} {each.candidate:.3f} after {each.serving:.3f} on {task.photos} photos"
        f" ({each.difference:+.3f}, {each.low:+.3f} to {each.high:+.3f})"
        for key, task in seen.items()
        for name, each in task.comparisons.items()
        if each.finds_worse(margin)
    ]
    if worse:
        return Verdict(False, "worse, " + "; ".join(worse), serving.name, seen)
    return Verdict(True, _why_accepted(seen), serving.name, seen)


def _why_accepted(seen: Mapping[str, TaskVerdict]) -> str:
    tested = [f"{key} on {task.photos} photos" for key, task in seen.items() if not task.untested]
    untested = [f"{key}: {task.untested}" for key, task in seen.items() if task.untested]
    return "; ".join(["not found worse, " + ", ".join(tested)] * bool(tested) + untested) or "no task to compare"


def _compare_task(
    key: str, candidate: ModelOnHoldout, serving: ModelOnHoldout, indices: IntArray, min_photos: int
) -> TaskVerdict:
    known = np.flatnonzero(indices != UNKNOWN)
    if key not in serving.heads.by_task:
        return TaskVerdict(len(known), f"{serving.name} cannot tell it")
    if len(known) < min_photos:
        return TaskVerdict(len(known), f"too few hold-out labels, {len(known)} of {min_photos}")
    before, after = (each.probabilities(key, known) for each in (serving, candidate))
    return TaskVerdict(len(known), comparisons=compare(before, after, indices[known]))


def compare(serving: FloatArray, candidate: FloatArray, indices: IntArray, seed: int = 0) -> dict[str, Comparison]:
    """Compare two versions' calibrated probabilities ``(N, K)`` of photos of classes ``(N,)``, N at least 2.

    Returns:
        Figure -> comparison, see `FIGURES`.
    """
    counts = _cross_table(indices, serving.argmax(axis=1), candidate.argmax(axis=1), serving.shape[1])
    plain = _both_figures(counts[np.newaxis].astype(np.float64))
    drawn = _both_figures(_draw_tables(counts, np.random.default_rng(seed)))
    compared = {}
    for name, (before, after) in plain.items():
        low, high = np.quantile(drawn[name][1] - drawn[name][0], (1 - _CONFIDENCE, _CONFIDENCE))
        difference = float(after[0] - before[0])
        compared[name] = Comparison(float(before[0]), float(after[0]), difference, float(low), float(high))
    compared["probability_score"] = _compare_scores(_scores(serving, indices), _scores(candidate, indices))
    return compared


def _cross_table(indices: IntArray, serving: IntArray, candidate: IntArray, class_count: int) -> IntArray:
    """Photo counts ``(K, K, K)`` by true class, serving prediction and candidate prediction."""
    cells = (indices * class_count + serving) * class_count + candidate
    return np.bincount(cells, minlength=class_count**3).reshape((class_count,) * 3)


def _draw_tables(counts: IntArray, generator: np.random.Generator) -> DoubleArray:
    """Bootstrap tables ``(R, K, K, K)`` of one, in which each class keeps its number of photos."""
    class_count = len(counts)
    tables = np.zeros((_DRAWS, *counts.shape))
    for k in np.flatnonzero(counts.sum(axis=(1, 2))):
        # A wrong answer may be any of the other classes.
        doubt = np.full(class_count, _DOUBT / (class_count - 1))
        doubt[k] = _DOUBT
        shares = counts[k] + np.outer(doubt, doubt) / _DOUBT
        drawn = generator.multinomial(counts[k].sum(), (shares / shares.sum()).ravel(), _DRAWS)
        tables[:, k] = drawn.reshape(-1, class_count, class_count)
    return tables


def _both_figures(tables: DoubleArray) -> dict[str, tuple[DoubleArray, DoubleArray]]:
    """Macro-F1 and worst class recall ``(R,)`` of the serving version and of the candidate, in each of R tables."""
    support = tables.sum(axis=(2, 3))
    present = support[0] > 0
    figures = []
    for confusion in (tables.sum(axis=3), tables.sum(axis=2)):
        hits = np.diagonal(confusion, axis1=1, axis2=2)[:, present]
        figures.append((mean_f1(confusion), (hits / support[:, present]).min(axis=1)))
    (serving_f1, serving_recall), (candidate_f1, candidate_recall) = figures
    return {"macro_f1": (serving_f1, candidate_f1), "worst_recall": (serving_recall, candidate_recall)}


def _scores(probabilities: FloatArray, indices: IntArray) -> DoubleArray:
    """The probability score of each photo ``(N,)``."""
    truth = np.eye(probabilities.shape[1])[indices]
    return np.asarray(1 - np.square(probabilities - truth).sum(axis=1) / 2)


def _compare_scores(serving: DoubleArray, candidate: DoubleArray) -> Comparison:
    # Imported here: the web process reads verdicts and never makes one.

    differences = candidate - serving
    photos, mean = len(differences), float(differences.mean())
    reach = float(stdtrit(photos - 1, _CONFIDENCE) * differences.std(ddof=1) / np.sqrt(photos))
    return Comparison(float(serving.mean()), float(candidate.mean()), mean, mean - reach, mean + reach)
