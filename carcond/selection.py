"""From scores to a labelling queue: which photos, in which slot.

Label Studio serves the least-solved slot first and, inside a slot, the lowest score (see
docs/queue.md). Slot 0 holds the exploration photos; slots 1..C hold groups of the most uncertain
candidates, so that going round the slots brings diversity (arXiv 2401.14555). Before there are
enough labels for uncertainty to mean something, the queue is made of typical photos instead
(arXiv 2202.02794, 2210.02442).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]

EXPLORATION_SLOT = 0

# k-means runs on this many candidates at most when it looks for typical photos of a large pool.
_CLUSTERING_SAMPLE = 5_000


@dataclass(frozen=True)
class Queue:
    """What is to be labelled next.

    Attributes:
        positions: rows of the pool ``(Q,)``, those to be published first in front.
        slots: slot number of each ``(Q,)``.
    """

    positions: IntArray
    slots: IntArray


def typical_order(embeddings: FloatArray, count: int, seed: int = 0) -> IntArray:
    """All photos, typical and spread-out ones first.

    k-means with `count` clusters; first the photo nearest to each centroid, greatest cluster first,
    then the second nearest of each, and so on.

    Args:
        embeddings: ``(N, D)``.
        count: how many clusters, that is, how many photos make one round.
        seed: of k-means; the order is the same for the same photos.

    Returns:
        Positions ``(N,)``.
    """
    if len(embeddings) == 0:
        return np.empty(0, dtype=np.int64)
    assignment, distance = _cluster(embeddings, min(count, len(embeddings)), seed)
    sizes = np.bincount(assignment)
    rank = np.empty(len(embeddings), dtype=np.int64)
    for cluster in np.unique(assignment):
        members = np.flatnonzero(assignment == cluster)
        rank[members[np.argsort(distance[members], kind="stable")]] = np.arange(len(members))
    return np.lexsort((assignment, -sizes[assignment], rank)).astype(np.int64)


def uncertain_queue(
    embeddings: FloatArray, confidence: FloatArray, *, size: int, slots: int, candidate_factor: int, seed: int = 0
) -> Queue:
    """The most uncertain photos, grouped into slots 1..C.

    The `candidate_factor * size` least confident photos are grouped by k-means into `slots` groups;
    each group gives its least confident photos, so that the queue is as even over the slots as the
    groups allow.

    Args:
        embeddings: ``(N, D)``.
        confidence: ``(N,)``, 0..1, lower = less sure.
        size: length of the queue.
        slots: C, the number of groups.
        candidate_factor: how many times the queue's length is considered.
        seed: of k-means.
    """
    order = np.argsort(confidence, kind="stable")
    candidates = order[: size * candidate_factor]
    return grouped_queue(embeddings, candidates, size=size, slots=slots, seed=seed)


def grouped_queue(embeddings: FloatArray, candidates: IntArray, *, size: int, slots: int, seed: int = 0) -> Queue:
    """Group candidates (best first) into slots 1..C and take them in rounds over the slots."""
    if len(candidates) == 0:
        return Queue(np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64))
    assignment, _ = _cluster(embeddings[candidates], min(slots, len(candidates)), seed)
    rank = np.empty(len(candidates), dtype=np.int64)
    for cluster in np.unique(assignment):
        members = np.flatnonzero(assignment == cluster)
        rank[members] = np.arange(len(members))
    rounds = np.lexsort((np.arange(len(candidates)), rank))[:size]
    return Queue(candidates[rounds], assignment[rounds] + 1)


def nearest_slots(embeddings: FloatArray, queue: Queue, queue_embeddings: FloatArray) -> IntArray:
    """Slots ``(N,)`` of further photos: that of the group whose mean is nearest.

    Photos behind the queue join its slots with their honest, higher scores, so they are served only
    when the queue's own photos of that slot are used up.
    """
    numbers = np.unique(queue.slots[queue.slots != EXPLORATION_SLOT])
    if len(numbers) == 0:
        return np.ones(len(embeddings), dtype=np.int64)
    means = np.stack([queue_embeddings[queue.slots == number].mean(axis=0) for number in numbers])
    distances = _squared_distances(embeddings, means)
    return np.asarray(numbers[distances.argmin(axis=1)], dtype=np.int64)


def draw_exploration(eligible: Sequence[int], count: int, generator: np.random.Generator) -> list[int]:
    """A uniform draw without replacement: the unbiased sample that the model is measured on."""
    drawn = generator.permutation(len(eligible))[:count]
    return [eligible[i] for i in drawn]


def _cluster(embeddings: FloatArray, count: int, seed: int) -> tuple[IntArray, FloatArray]:
    """k-means: cluster numbers ``(N,)`` and squared distances to the own centroid ``(N,)``."""
    from sklearn.cluster import KMeans  # noqa: PLC0415 - the web process selects nothing

    sample = embeddings
    if len(embeddings) > _CLUSTERING_SAMPLE:
        chosen = np.random.default_rng(seed).choice(len(embeddings), _CLUSTERING_SAMPLE, replace=False)
        sample = embeddings[chosen]
    distinct = len(np.unique(sample, axis=0))
    model = KMeans(n_clusters=min(count, distinct), n_init=1, random_state=seed).fit(sample)
    distances = _squared_distances(embeddings, model.cluster_centers_.astype(np.float32))
    return distances.argmin(axis=1), distances.min(axis=1)


def _squared_distances(left: FloatArray, right: FloatArray) -> FloatArray:
    squares = (left**2).sum(axis=1)[:, None] + (right**2).sum(axis=1)[None, :] - 2 * left @ right.T
    return np.asarray(np.maximum(squares, 0), dtype=np.float32)
