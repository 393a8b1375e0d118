"""Selection of a labelling queue from scores: its photos and their slots.

Label Studio serves the least-solved slot first and, inside a slot, the lowest score (see
docs/queue.md). Slot 0 holds the exploration photos. With few labels, slots 1..C hold groups of the
most uncertain candidates, so that going round the slots brings diversity (arXiv 2401.14555); with more
labels, the most uncertain photos are dealt to them in turn. Before there are enough labels for
uncertainty sampling, the queue holds representative photos instead (TypiClust, arXiv 2202.02794; 2210.02442).
"""

from dataclasses import dataclass

import numpy as np

from carcond.arrays import FloatArray, IntArray
from carcond.store.embedding_matrix import Embeddings, blocks_of

EXPLORATION_SLOT = 0

# Maximum number of photos that k-means is fitted on when it selects representative photos of a large pool.
_CLUSTERING_SAMPLE = 5_000


@dataclass(frozen=True)
class QueryBatch:
    """The photos to be labelled next.

    Attributes:
        positions: rows of the pool ``(Q,)``, those to be published first in front.
        slots: slot number of each ``(Q,)``.
    """

    positions: IntArray
    slots: IntArray


def representative_order(embeddings: Embeddings, count: int, seed: int = 0) -> IntArray:
    """All photos, representative and diverse ones first.

    k-means with `count` clusters; first the photo nearest to each centroid, greatest cluster first,
    then the second nearest of each, and so on.

    Args:
        embeddings: ``(N, D)``.
        count: number of clusters, that is, of photos in one round.
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
    return np.asarray(np.lexsort((assignment, -sizes[assignment], rank)), dtype=np.int64)


def select_batch(
    embeddings: Embeddings,
    candidates: IntArray,
    exploration: IntArray,
    *,
    size: int,
    slots: int,
    diverse: bool = True,
    kept: IntArray | None = None,
    seed: int = 0,
) -> QueryBatch:
    """Put the candidates into slots 1..C, and the exploration photos into slot 0.

    Args:
        embeddings: ``(N, D)`` of the pool.
        candidates: positions, best first; a multiple of the queue's size for clustering, so that the clusters differ.
        exploration: positions of the photos sampled for the hold-out.
        size: size of the queue, exploration included.
        slots: C, the number of slots for candidates.
        diverse: True if k-means puts similar photos into one slot; if not, the best are dealt to the slots evenly.
        kept: ``(N,)`` slots 1..C of photos that have to stay in theirs, 0 for all others; None for no such photo.
        seed: of k-means.

    Returns:
        The queue, one photo of each slot first, then the second of each, and so on.
    """
    room = max(0, size - len(exploration))
    if len(candidates) == 0 or room == 0:
        return QueryBatch(exploration[:size], np.full(min(size, len(exploration)), EXPLORATION_SLOT))
    fixed = np.zeros(len(candidates), dtype=np.int64) if kept is None else kept[candidates]
    if diverse:
        group, _ = _cluster(embeddings[candidates], min(slots, len(candidates)), seed)
        candidate_slots = np.where(fixed > 0, fixed, _matched_slots(group, fixed, slots)[group])
        chosen = _rounds(candidate_slots)[:room]
        candidate_slots = candidate_slots[chosen]
    else:
        chosen = np.arange(min(room, len(candidates)))
        candidate_slots = _dealt_slots(fixed[chosen], slots)
    positions = np.concatenate([exploration, candidates[chosen]])
    slot = np.concatenate([np.full(len(exploration), EXPLORATION_SLOT), candidate_slots])
    order = _rounds(slot)
    return QueryBatch(positions[order], slot[order])


def _dealt_slots(fixed: IntArray, slots: int) -> IntArray:
    """Slots 1..C of photos ``(N,)``: those that are fixed stay, each of the others goes to the emptiest slot."""
    dealt = fixed.copy()
    count = np.bincount(fixed, minlength=slots + 1)[1:]
    for position in np.flatnonzero(fixed == 0):
        emptiest = int(count.argmin())
        dealt[position] = emptiest + 1
        count[emptiest] += 1
    return dealt


def _matched_slots(group: IntArray, fixed: IntArray, slots: int) -> IntArray:
    """Slot of each group ``(G,)``: as many photos as possible are in the slot that they have to stay in anyway."""
    from scipy.optimize import linear_sum_assignment  # noqa: PLC0415 - the web process selects nothing

    shared = np.zeros((group.max() + 1, slots), dtype=np.int64)
    is_fixed = fixed > 0
    np.add.at(shared, (group[is_fixed], fixed[is_fixed] - 1), 1)
    _, matched = linear_sum_assignment(-shared)
    return np.asarray(matched, dtype=np.int64) + 1


def _rounds(group: IntArray) -> IntArray:
    """An order ``(N,)`` that takes the first of each group, then the second of each, and so on."""
    rank = np.empty(len(group), dtype=np.int64)
    for number in np.unique(group):
        members = np.flatnonzero(group == number)
        rank[members] = np.arange(len(members))
    return np.argsort(rank, kind="stable")


def nearest_slots(embeddings: FloatArray, queue_embeddings: FloatArray, slots: IntArray) -> IntArray:
    """Slots of the photos behind the queue: that of the group whose mean is nearest.

    They keep their own, higher scores, so a slot serves them only when the queue's own
    photos are used up. The exploration slot takes none: a random sample has no neighbours.

    Args:
        embeddings: ``(N, D)`` of the photos behind the queue.
        queue_embeddings: ``(Q, D)`` of the queue.
        slots: ``(Q,)`` of the queue.

    Returns:
        Slots ``(N,)``, all 1 or greater.
    """
    numbers = np.unique(slots[slots != EXPLORATION_SLOT])
    if len(numbers) == 0:
        return np.ones(len(embeddings), dtype=np.int64)
    means = np.stack([queue_embeddings[slots == number].mean(axis=0) for number in numbers])
    return np.asarray(numbers[_squared_distances(embeddings, means).argmin(axis=1)], dtype=np.int64)


def _cluster(embeddings: Embeddings, count: int, seed: int) -> tuple[IntArray, FloatArray]:
    """k-means: cluster numbers ``(N,)`` and squared distances to the own centroid ``(N,)``."""
    from sklearn.cluster import KMeans  # noqa: PLC0415 - the web process selects nothing

    chosen: IntArray = np.arange(len(embeddings))
    if len(embeddings) > _CLUSTERING_SAMPLE:
        chosen = np.random.default_rng(seed).choice(len(embeddings), _CLUSTERING_SAMPLE, replace=False)
    sample = embeddings[chosen]
    distinct = len({row.tobytes() for row in sample})  # np.unique sorts whole rows: ten times slower
    model = KMeans(n_clusters=min(count, distinct), n_init=1, random_state=seed).fit(sample)
    centroids = model.cluster_centers_.astype(np.float32)
    distances = np.concatenate([_squared_distances(block, centroids) for block in blocks_of(embeddings)])
    return distances.argmin(axis=1), distances.min(axis=1)


def _squared_distances(left: FloatArray, right: FloatArray) -> FloatArray:
    squares = (left**2).sum(axis=1)[:, None] + (right**2).sum(axis=1)[None, :] - 2 * left @ right.T
    return np.asarray(np.maximum(squares, 0), dtype=np.float32)
