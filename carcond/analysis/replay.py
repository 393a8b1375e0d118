"""Replay a labelled set with one strategy: label, fit, measure, and again until all is labelled."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from carcond.analysis.live_replay import LiveReplay, LiveSettings
from carcond.analysis.replay_heads import EVERYTHING, ReplayHeads, fit, fitted, measure
from carcond.analysis.replay_set import ReplayDataset
from carcond.arrays import BoolArray, FloatArray, IntArray
from carcond.data.split import HOLDOUT_SHARE
from carcond.query.slots import representative_order
from carcond.query.strategy import LIVE, RANDOM, Beliefs, Strategy, choose_batch
from carcond.query.uncertainty import bootstrap_probabilities

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


def replay(
    dataset: ReplayDataset, strategy: Strategy, seed: int, counts: Sequence[int], live: LiveSettings | None = None
) -> Curve:
    """Label the pool batch by batch. Deterministic.

    Args:
        dataset: the labelled set, for one seed.
        strategy: selects the next photos.
        seed: of all random numbers.
        counts: numbers of labels at which the heads are measured, see `label_counts`.
        live: settings of the live service, for the strategy `live`; None for the defaults.
    """
    if strategy.score == LIVE:
        service = LiveReplay(dataset, live or LiveSettings(), seed)
        rounds = [measure(dataset, service.label(count)) for count in counts]
    else:
        rounds = [measure(dataset, heads) for heads in _rounds(dataset, strategy, counts, seed)]
    values = {
        task: {name: np.array([each[task][name] for each in rounds]) for name in measured}
        for task, measured in rounds[0].items()
    }
    return Curve(np.array(counts), values)


def measure_full(dataset: ReplayDataset) -> dict[str, FloatArray]:
    """`METRICS` ``(3,)`` of each task with all labels of the pool."""
    measured = measure(dataset, fit(dataset, dataset.pool(), dataset.pool()[:0], seed=0))
    return {task: by_slice[EVERYTHING] for task, by_slice in measured.items()}


def _rounds(dataset: ReplayDataset, strategy: Strategy, counts: Sequence[int], seed: int) -> Iterator[ReplayHeads]:
    generator = np.random.default_rng(seed)
    pool = dataset.pool()
    start = _start_order(dataset.embeddings[pool], strategy, seed, generator)
    labelled = np.zeros(len(pool), dtype=bool)
    explored = np.zeros(len(pool), dtype=bool)
    heads: ReplayHeads = {}
    for count in counts:
        wanted = count - int(labelled.sum())
        _label_batch(dataset, strategy, heads, labelled, explored, start=start, wanted=wanted, generator=generator)
        heads = fit(dataset, pool[labelled & ~explored], pool[explored], seed)
        yield heads


def _label_batch(
    dataset: ReplayDataset,
    strategy: Strategy,
    heads: ReplayHeads,
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
        drawn = generator.permutation(np.flatnonzero(~labelled))[: round(wanted * HOLDOUT_SHARE)]
        labelled[drawn] = explored[drawn] = True
        wanted -= len(drawn)
    if labelled.sum() < strategy.cold_start_labels or not fitted(heads):
        labelled[start[~labelled[start]][:wanted]] = True
        return
    unlabelled = np.flatnonzero(~labelled)
    embeddings = dataset.embeddings[pool[unlabelled]]
    trained = pool[labelled & ~explored] if strategy.needs_ensemble else None
    beliefs = Beliefs(tasks, embeddings, _ensembles(dataset, heads, trained, embeddings, generator))
    chosen = choose_batch(strategy, beliefs, wanted, generator, labelled=int(labelled.sum()))
    labelled[unlabelled[chosen]] = True


def _start_order(embeddings: FloatArray, strategy: Strategy, seed: int, generator: np.random.Generator) -> IntArray:
    if RANDOM in (strategy.start, strategy.score):
        return generator.permutation(len(embeddings))
    return representative_order(embeddings, strategy.cold_start_labels, seed)


def _ensembles(
    dataset: ReplayDataset,
    heads: ReplayHeads,
    trained: IntArray | None,
    embeddings: FloatArray,
    generator: np.random.Generator,
) -> dict[str, FloatArray]:
    """Task key -> probabilities ``(M, N, K)``: of bootstrapped heads, or of the head itself where `trained` is None."""
    found = {}
    for key, head in fitted(heads).items():
        if trained is None:
            found[key] = head.probabilities(embeddings)[np.newaxis]
        else:
            known = trained[dataset.labels[key].known[trained]]
            labelled, indices = dataset.embeddings[known], dataset.labels[key].indices[known]
            found[key] = bootstrap_probabilities(head, labelled, indices, embeddings, generator)
    return found
