"""Replay a labelled set with one strategy: label, fit, measure, and again until all is labelled."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from carcond.acquisition import bootstrap_probabilities
from carcond.calibration import calibration_error
from carcond.evaluation import score
from carcond.head_fitting import fit_head
from carcond.heads import FloatArray, Head, IntArray
from carcond.problem import Problem
from carcond.selection import typical_order
from carcond.strategy import RANDOM, Beliefs, Strategy, choose_batch

METRICS = ("accuracy", "macro_f1", "ece")
"""What is measured after each batch, in this order."""

EVERYTHING = ""
"""Name of the slice that has all test photos."""

# Task key -> its head; or the only class that the labels have shown. Absent when they have shown none.
_Heads = dict[str, Head | int]

_EXPLORATION_SHARE = 0.1
# Up to so many labels, batches of this length; beyond them the last one. Few labels are where strategies differ.
_BATCH_LENGTHS = ((200, 10), (400, 25), (1000, 300), (10_000, 1000))


@dataclass(frozen=True)
class Curve:
    """What one replay measured.

    Attributes:
        labels: how many photos were labelled ``(R,)``.
        values: task key -> slice -> `METRICS` ``(R, 3)``; a slice without test photos is absent.
    """

    labels: IntArray
    values: Mapping[str, Mapping[str, FloatArray]]


def label_counts(pool_size: int) -> list[int]:
    """After how many labels the heads are fitted and measured; the last is the whole pool."""
    counts = []
    count = 0
    while count < pool_size:
        length = next((length for limit, length in _BATCH_LENGTHS if count < limit), _BATCH_LENGTHS[-1][1])
        count = min(count + length, pool_size)
        counts.append(count)
    return counts


def replay(problem: Problem, strategy: Strategy, seed: int) -> Curve:
    """Label the pool batch by batch. Deterministic.

    Args:
        problem: the labelled set.
        strategy: what is labelled next.
        seed: of all that is left to chance.
    """
    counts = label_counts(len(problem.pool()))
    rounds = [_measure(problem, heads) for heads in _rounds(problem, strategy, counts, seed)]
    values = {
        task: {name: np.array([each[task][name] for each in rounds]) for name in measured}
        for task, measured in rounds[0].items()
    }
    return Curve(np.array(counts), values)


def measure_full(problem: Problem) -> dict[str, FloatArray]:
    """`METRICS` ``(3,)`` of each task with all labels of the pool."""
    measured = _measure(problem, _fit(problem, problem.pool(), seed=0))
    return {task: by_slice[EVERYTHING] for task, by_slice in measured.items()}


def _rounds(problem: Problem, strategy: Strategy, counts: list[int], seed: int) -> Iterator[_Heads]:
    generator = np.random.default_rng(seed)
    pool = problem.pool()
    tasks = tuple(labels.task for labels in problem.labels.values())
    start = _start_order(problem.embeddings[pool], strategy, seed, generator)
    labelled = np.zeros(len(pool), dtype=bool)
    explored = np.zeros(len(pool), dtype=bool)
    heads: _Heads = {}
    for count in counts:
        wanted = count - int(labelled.sum())
        if strategy.exploration:
            drawn = generator.permutation(np.flatnonzero(~labelled))[: round(wanted * _EXPLORATION_SHARE)]
            labelled[drawn] = explored[drawn] = True
            wanted -= len(drawn)
        usable = any(isinstance(head, Head) for head in heads.values())
        if labelled.sum() < strategy.start_labels or not usable:
            labelled[start[~labelled[start]][:wanted]] = True
        else:
            unlabelled = np.flatnonzero(~labelled)
            embeddings = problem.embeddings[pool[unlabelled]]
            trained = pool[labelled & ~explored] if strategy.needs_ensemble else None
            ensembles = _ensembles(problem, heads, trained, embeddings, generator)
            beliefs = Beliefs(tasks, embeddings, ensembles)
            chosen = choose_batch(strategy, beliefs, wanted, generator, labelled=int(labelled.sum()))
            labelled[unlabelled[chosen]] = True
        heads = _fit(problem, pool[labelled & ~explored], seed)
        yield heads


def _start_order(embeddings: FloatArray, strategy: Strategy, seed: int, generator: np.random.Generator) -> IntArray:
    if RANDOM in (strategy.start, strategy.score):
        return generator.permutation(len(embeddings))
    return typical_order(embeddings, strategy.start_labels, seed)


def _fit(problem: Problem, rows: IntArray, seed: int) -> _Heads:
    heads: _Heads = {}
    for key, labels in problem.labels.items():
        known = rows[labels.known[rows]]
        indices = labels.indices[known]
        if len(np.unique(indices)) >= 2:
            heads[key] = fit_head(labels.task, problem.embeddings[known], indices, seed)
        elif len(indices):
            heads[key] = int(indices[0])
    return heads


def _ensembles(
    problem: Problem, heads: _Heads, trained: IntArray | None, embeddings: FloatArray, generator: np.random.Generator
) -> dict[str, FloatArray]:
    """Task key -> probabilities ``(M, N, K)``: of bootstrapped heads, or of the head itself where `trained` is None."""
    found = {}
    for key, head in heads.items():
        if not isinstance(head, Head):
            continue
        if trained is None:
            found[key] = head.probabilities(embeddings)[np.newaxis]
        else:
            known = trained[problem.labels[key].known[trained]]
            labelled, indices = problem.embeddings[known], problem.labels[key].indices[known]
            found[key] = bootstrap_probabilities(head, labelled, indices, embeddings, generator)
    return found


def _measure(problem: Problem, heads: _Heads) -> dict[str, dict[str, FloatArray]]:
    everything = {EVERYTHING: np.ones(len(problem.test), dtype=bool)}
    measured: dict[str, dict[str, FloatArray]] = {}
    for key, labels in problem.labels.items():
        photos = np.flatnonzero(problem.test & labels.known)
        probabilities = _probabilities(heads.get(key), problem.embeddings[photos], len(labels.task.classes))
        measured[key] = {}
        for name, members in (everything | dict(problem.slices)).items():
            chosen = members[photos]
            if chosen.any():
                measured[key][name] = _metrics(probabilities[chosen], labels.indices[photos[chosen]])
    return measured


def _probabilities(head: Head | int | None, embeddings: FloatArray, class_count: int) -> FloatArray:
    if isinstance(head, Head):
        return head.probabilities(embeddings)
    if head is None:
        return np.full((len(embeddings), class_count), 1 / class_count, dtype=np.float32)
    return np.tile(np.eye(class_count, dtype=np.float32)[head], (len(embeddings), 1))


def _metrics(probabilities: FloatArray, indices: IntArray) -> FloatArray:
    measured = score(probabilities, indices)
    error = calibration_error(probabilities, indices)
    return np.array([measured["accuracy"], measured["macro_f1"], error], dtype=np.float32)
