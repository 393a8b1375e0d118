"""Batch rules: selection of the batch that is labelled next, from acquisition scores.

The best photos by score alone are often similar and therefore redundant. Every rule has the
interface `BatchRule`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from carcond.arrays import FloatArray, IntArray
from carcond.query.live_queue import QueueSettings
from carcond.query.slots import select_batch

# `slots` has the sizes of the live queue.
_LIVE = QueueSettings()
_NEAR_DUPLICATE = 0.9


@dataclass(frozen=True)
class Candidates:
    """Unlabelled photos to choose from.

    Attributes:
        embeddings: ``(N, D)``.
        scores: ``(N,)``, none negative, higher = more informative; see `carcond.query.uncertainty`.
        probabilities: task key -> calibrated class probabilities ``(N, K)``.
    """

    embeddings: FloatArray
    scores: FloatArray
    probabilities: Mapping[str, FloatArray]


BatchRule = Callable[[Candidates, int, np.random.Generator], IntArray]
"""From candidates, batch size and random generator to min(size, N) distinct positions."""


def top_k(candidates: Candidates, count: int, generator: np.random.Generator) -> IntArray:
    """The highest scores; of equal ones the first. The generator is not used."""
    return np.argsort(-candidates.scores, kind="stable")[:count]


def power(candidates: Candidates, count: int, generator: np.random.Generator) -> IntArray:
    """Sample without replacement, with probabilities proportional to the scores (arXiv 2106.12059).

    Done by the Gumbel top-k trick (arXiv 1903.06059) on the logarithm of the scores. Photos of score
    zero come last, in random order.
    """
    noise = generator.gumbel(size=len(candidates.scores))
    logarithms = np.log(np.maximum(candidates.scores.astype(np.float64), 1e-12))
    return np.argsort(-(logarithms + noise), kind="stable")[:count]


def distinct(candidates: Candidates, count: int, generator: np.random.Generator) -> IntArray:
    """The highest scores without near-duplicates of photos already taken.

    A plain greedy filter; batches of distinct photos are more informative (arXiv 1901.05954). Near-duplicates are
    photos whose embeddings, centred on the candidates' mean, have a cosine similarity above 0.9. When too
    few photos are left, near-duplicates fill the batch, best first. The generator is not used.
    """
    order = np.argsort(-candidates.scores, kind="stable")
    centred = _centre(candidates.embeddings)
    unit = centred / np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1e-12)
    taken: list[int] = []
    for position in order:
        if len(taken) == count:
            break
        if not taken or float((unit[taken] @ unit[position]).max()) <= _NEAR_DUPLICATE:
            taken.append(int(position))
    left = order[~np.isin(order, taken)]
    return np.concatenate([np.array(taken, dtype=np.int64), left])[:count]


def slots(candidates: Candidates, count: int, generator: np.random.Generator) -> IntArray:
    """The highest scores, clustered by k-means into slots that take turns (arXiv 2401.14555).

    The rule of the live queue for the first labels: two candidates for each photo of the batch, nine slots.
    """
    best = np.argsort(-candidates.scores, kind="stable")[: _LIVE.candidate_factor * count]
    nothing = np.empty(0, dtype=np.int64)
    seed = int(generator.integers(2**31))
    return select_batch(candidates.embeddings, best, nothing, size=count, slots=_LIVE.slots, seed=seed).positions


def badge(candidates: Candidates, count: int, generator: np.random.Generator) -> IntArray:
    """k-means++ seeding on the loss gradients of the heads, with the predicted class as label (arXiv 1906.03671).

    The gradient with respect to a head's weights is the outer product of its error (probabilities minus
    the predicted class) and the embedding; those of several tasks are concatenated. Photos of long
    gradients (uncertain) in new directions (diverse) are sampled. The outer products are never computed:
    an inner product of two is the product of the inner products of their factors. Scores are not used.
    """
    errors = np.concatenate([p - _one_hot(p.argmax(axis=1), p.shape[1]) for p in candidates.probabilities.values()], 1)
    centred = _centre(candidates.embeddings)
    lengths = (errors**2).sum(axis=1, dtype=np.float64) * (centred**2).sum(axis=1, dtype=np.float64)
    chosen = [int(lengths.argmax())]
    nearest = np.full(len(lengths), np.inf)
    for _ in range(min(count, len(lengths)) - 1):
        last = chosen[-1]
        products = (errors @ errors[last]).astype(np.float64) * (centred @ centred[last])
        nearest = np.minimum(nearest, np.maximum(lengths + lengths[last] - 2 * products, 0))
        nearest[chosen] = 0
        chosen.append(_draw(nearest, chosen, generator))
    return np.array(chosen[:count], dtype=np.int64)


def _draw(weights: FloatArray, taken: list[int], generator: np.random.Generator) -> int:
    total = weights.sum()
    if total > 0:
        return int(generator.choice(len(weights), p=weights / total))
    # All remaining gradients equal a selected one.
    return int(generator.choice(np.setdiff1d(np.arange(len(weights)), taken)))


def _one_hot(indices: IntArray, count: int) -> FloatArray:
    return np.eye(count, dtype=np.float32)[indices]


def _centre(embeddings: FloatArray) -> FloatArray:
    # Heads are fitted on centred embeddings: the common mean carries no information about differences.
    return np.asarray(embeddings - embeddings.mean(axis=0), dtype=np.float32)


BATCH_RULES: Mapping[str, BatchRule] = {
    "top": top_k,
    "power": power,
    "distinct": distinct,
    "slots": slots,
    "badge": badge,
}
"""Name -> rule."""
