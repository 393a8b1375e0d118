"""Replay a labelled set with one strategy: label, fit, measure, and again until all is labelled."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from carcond.analysis.replay_set import ReplayDataset
from carcond.arrays import BoolArray, FloatArray, IntArray
from carcond.data.split import HOLDOUT_SHARE
from carcond.evaluation.calibration import calibration_error
from carcond.evaluation.f1 import mean_f1
from carcond.evaluation.metrics import score
from carcond.model.head_fitting import fit_head
from carcond.model.heads import Head
from carcond.query.live_queue import Pool, QueueSettings, rank_pool, served_order
from carcond.query.slots import representative_order
from carcond.query.strategy import LIVE, RANDOM, Beliefs, Strategy, choose_batch
from carcond.query.uncertainty import bootstrap_probabilities

METRICS = ("accuracy", "macro_f1", "ece")
"""Metrics after each batch, in this order."""

EVERYTHING = ""
"""Name of the slice that has all test photos."""

# Task key -> its head; or the only class among the labels. Absent without labels.
_Heads = dict[str, Head | int]

_EXPLORATION_SHARE = 0.1
# One photo of each slot of the live queue, and the photos in its exploration slot.
_LABELS_PER_QUEUE, _EXPLORATION_WAITING = 10, 4
# Maximum number of labels -> batch size up to it; beyond, the last one. Strategies differ most at few labels.
_BATCH_LENGTHS = ((200, 10), (400, 25), (1000, 300), (10_000, 1000))


@dataclass(frozen=True)
class Curve:
    """Learning curve of one replay.

    Attributes:
        labels: number of labelled photos ``(R,)``.
        values: task key -> slice -> `METRICS` ``(R, 3)``; a slice without test photos is absent.
    """

    labels: IntArray
    values: Mapping[str, Mapping[str, FloatArray]]


def label_counts(pool_size: int) -> list[int]:
    """Label counts at which the heads are fitted and measured; the last is the whole pool."""
    counts = []
    count = 0
    while count < pool_size:
        length = next((length for limit, length in _BATCH_LENGTHS if count < limit), _BATCH_LENGTHS[-1][1])
        count = min(count + length, pool_size)
        counts.append(count)
    return counts


def replay(dataset: ReplayDataset, strategy: Strategy, seed: int) -> Curve:
    """Label the pool batch by batch. Deterministic.

    Args:
        dataset: the labelled set.
        strategy: selects the next photos.
        seed: of all random numbers.
    """
    counts = label_counts(len(dataset.pool()))
    rounds = [_measure(dataset, heads) for heads in _rounds(dataset, strategy, counts, seed)]
    values = {
        task: {name: np.array([each[task][name] for each in rounds]) for name in measured}
        for task, measured in rounds[0].items()
    }
    return Curve(np.array(counts), values)


def measure_full(dataset: ReplayDataset) -> dict[str, FloatArray]:
    """`METRICS` ``(3,)`` of each task with all labels of the pool."""
    measured = _measure(dataset, _fit(dataset, dataset.pool(), seed=0))
    return {task: by_slice[EVERYTHING] for task, by_slice in measured.items()}


def _rounds(dataset: ReplayDataset, strategy: Strategy, counts: list[int], seed: int) -> Iterator[_Heads]:
    generator = np.random.default_rng(seed)
    pool = dataset.pool()
    start = _start_order(dataset.embeddings[pool], strategy, seed, generator)
    labelled = np.zeros(len(pool), dtype=bool)
    explored = np.zeros(len(pool), dtype=bool)
    draws: FloatArray = np.empty(0, dtype=np.float32)
    if strategy.score == LIVE:
        draws = generator.random(len(pool), dtype=np.float32)
        explored[np.argsort(draws)[: max(1, round(len(pool) * HOLDOUT_SHARE))]] = True
    heads: _Heads = {}
    for count in counts:
        wanted = count - int(labelled.sum())
        if strategy.score == LIVE:
            label_as_served(dataset.embeddings[pool], heads, labelled, explored, wanted=wanted, draws=draws, seed=seed)
        else:
            _label_batch(dataset, strategy, heads, labelled, explored, start=start, wanted=wanted, generator=generator)
        heads = _fit(dataset, pool[labelled & ~explored], seed)
        yield heads


def _label_batch(
    dataset: ReplayDataset,
    strategy: Strategy,
    heads: _Heads,
    labelled: BoolArray,
    explored: BoolArray,
    *,
    start: IntArray,
    wanted: int,
    generator: np.random.Generator,
) -> None:
    """Label the batch that a strategy of words selects; `labelled` and `explored` ``(N,)`` are changed in place."""
    pool = dataset.pool()
    tasks = tuple(labels.task for labels in dataset.labels.values())
    if strategy.exploration:
        drawn = generator.permutation(np.flatnonzero(~labelled))[: round(wanted * _EXPLORATION_SHARE)]
        labelled[drawn] = explored[drawn] = True
        wanted -= len(drawn)
    usable = any(isinstance(head, Head) for head in heads.values())
    if labelled.sum() < strategy.cold_start_labels or not usable:
        labelled[start[~labelled[start]][:wanted]] = True
        return
    unlabelled = np.flatnonzero(~labelled)
    embeddings = dataset.embeddings[pool[unlabelled]]
    trained = pool[labelled & ~explored] if strategy.needs_ensemble else None
    beliefs = Beliefs(tasks, embeddings, _ensembles(dataset, heads, trained, embeddings, generator))
    chosen = choose_batch(strategy, beliefs, wanted, generator, labelled=int(labelled.sum()))
    labelled[unlabelled[chosen]] = True


def label_as_served(
    embeddings: FloatArray,
    heads: Mapping[str, Head | int],
    labelled: BoolArray,
    explored: BoolArray,
    *,
    wanted: int,
    draws: FloatArray,
    seed: int,
) -> None:
    """Label photos in the order of the live queue, which is published again after a tenth of a batch.

    Args:
        embeddings: ``(N, D)`` of the pool.
        heads: they rank until the batch is labelled.
        labelled: ``(N,)``; changed in place.
        explored: ``(N,)``, True for photos of the hold-out, labelled or not.
        wanted: length of the batch.
        draws: ``(N,)`` random numbers in 0..1: the order of the hold-out.
        seed: of k-means.
    """
    probabilities = {key: head.probabilities(embeddings) for key, head in heads.items() if isinstance(head, Head)}
    per_round = QueueSettings().slots + 1
    per_queue = max(per_round, wanted // 10)
    settings = QueueSettings(size=2 * per_queue)
    kept_slots = np.zeros(len(embeddings), dtype=np.int64)
    while wanted:
        queue = rank_pool(Pool(embeddings, ~labelled, explored, draws, kept_slots), probabilities, settings, seed)
        served = served_order(np.concatenate([queue.positions, queue.rest]), queue.slots, queue.scores)
        served = served[: min(wanted, per_queue)]
        labelled[served] = True
        wanted -= len(served)


def _start_order(embeddings: FloatArray, strategy: Strategy, seed: int, generator: np.random.Generator) -> IntArray:
    if RANDOM in (strategy.start, strategy.score):
        return generator.permutation(len(embeddings))
    return representative_order(embeddings, strategy.cold_start_labels, seed)


def _fit(dataset: ReplayDataset, rows: IntArray, seed: int) -> _Heads:
    heads: _Heads = {}
    for key, labels in dataset.labels.items():
        known = rows[labels.known[rows]]
        indices = labels.indices[known]
        if len(np.unique(indices)) >= 2:
            heads[key] = fit_head(labels.task, dataset.embeddings[known], indices, seed)
        elif len(indices):
            heads[key] = int(indices[0])
    return heads


def _ensembles(
    dataset: ReplayDataset,
    heads: Mapping[str, Head | int],
    trained: IntArray | None,
    embeddings: FloatArray,
    generator: np.random.Generator,
) -> dict[str, FloatArray]:
    """Task key -> probabilities ``(M, N, K)``: of bootstrapped heads, or of the head itself where `trained` is None."""
    found = {}
    for key, head in heads.items():
        if not isinstance(head, Head):
            continue
        if trained is None:
            found[key] = head.probabilities(embeddings)[np.newaxis]
        else:
            known = trained[dataset.labels[key].known[trained]]
            labelled, indices = dataset.embeddings[known], dataset.labels[key].indices[known]
            found[key] = bootstrap_probabilities(head, labelled, indices, embeddings, generator)
    return found


def _measure(dataset: ReplayDataset, heads: _Heads) -> dict[str, dict[str, FloatArray]]:
    everything = {EVERYTHING: np.ones(len(dataset.test), dtype=bool)}
    measured: dict[str, dict[str, FloatArray]] = {}
    for key, labels in dataset.labels.items():
        photos = np.flatnonzero(dataset.test & labels.known)
        probabilities = _probabilities(heads.get(key), dataset.embeddings[photos], len(labels.task.classes))
        measured[key] = {}
        for name, members in (everything | dict(dataset.slices)).items():
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
    # A slice may hold one class alone; the mean over slices still needs a number.
    return np.array([measured["accuracy"], float(mean_f1(np.array(measured["confusion"]))), error], dtype=np.float32)
