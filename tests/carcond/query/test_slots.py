from collections import Counter

import numpy as np
import pytest
from sklearn.cluster import KMeans

from carcond.arrays import FloatArray, IntArray
from carcond.query.slots import EXPLORATION_SLOT, QueryBatch, nearest_slots, representative_order, select_batch


def blobs(count: int, centres: int, seed: int = 0, dimension: int = 6) -> FloatArray:
    """Embeddings around well separated centres, in turn: photo i belongs to centre i % centres."""
    rng = np.random.default_rng(seed)
    middle = 20 * rng.normal(size=(centres, dimension))
    embeddings = middle[np.arange(count) % centres] + rng.normal(size=(count, dimension))
    return np.asarray(embeddings, dtype=np.float32)


def no_photo() -> IntArray:
    return np.empty(0, dtype=np.int64)


def by_slot(queue: QueryBatch) -> dict[int, list[int]]:
    slots = {int(slot) for slot in queue.slots}
    return {slot: queue.positions[queue.slots == slot].tolist() for slot in slots}


# Typical photos


@pytest.mark.parametrize("seed", range(5))
def test_the_first_round_is_the_medoid_of_each_cluster_the_greatest_first(seed: int) -> None:
    embeddings = blobs(97, 7, seed)
    model = KMeans(n_clusters=7, n_init=1, random_state=seed).fit(embeddings)
    sizes = np.bincount(model.labels_)
    medoids = [int(np.linalg.norm(embeddings - centre, axis=1).argmin()) for centre in model.cluster_centers_]
    expected = [medoids[k] for k in sorted(range(7), key=lambda k: (-sizes[k], k))]
    assert representative_order(embeddings, 7, seed)[:7].tolist() == expected


def test_every_photo_comes_once() -> None:
    assert sorted(representative_order(blobs(50, 4), 8).tolist()) == list(range(50))


def test_within_a_cluster_the_nearer_to_the_centre_come_first() -> None:
    embeddings = blobs(60, 3)
    order = representative_order(embeddings, 3)
    for k in range(3):
        members = np.flatnonzero(np.arange(60) % 3 == k)
        distance = np.linalg.norm(embeddings - embeddings[members].mean(axis=0), axis=1)
        assert (np.diff(distance[[i for i in order if i % 3 == k]]) > -1e-3).all()


def test_each_round_takes_one_photo_of_each_cluster() -> None:
    order = representative_order(blobs(40, 4), 4)
    assert [sorted(order[start : start + 4] % 4) for start in range(0, 40, 4)] == [[0, 1, 2, 3]] * 10


def test_the_order_is_the_same_for_the_same_photos() -> None:
    embeddings = blobs(200, 9)
    np.testing.assert_array_equal(representative_order(embeddings, 9), representative_order(embeddings.copy(), 9))


@pytest.mark.parametrize("count", [0, 1, 3])
def test_fewer_photos_than_clusters_are_ordered_all_the_same(count: int) -> None:
    assert sorted(representative_order(blobs(5, 5)[:count], 25).tolist()) == list(range(count))


def test_equal_photos_are_ordered_without_a_warning() -> None:
    assert sorted(representative_order(np.ones((12, 4), dtype=np.float32), 5).tolist()) == list(range(12))


def test_a_pool_larger_than_the_sample_is_ordered_whole() -> None:
    order = representative_order(blobs(6000, 5), 5)
    assert sorted(order.tolist()) == list(range(6000))
    assert sorted(order[:5] % 5) == [0, 1, 2, 3, 4]


# The queue


def test_the_queue_begins_with_one_photo_of_each_slot() -> None:
    queue = select_batch(blobs(100, 9), np.arange(60), np.array([80, 81]), size=20, slots=9)
    assert sorted(queue.slots[:10].tolist()) == list(range(10))


def test_the_queue_has_its_size_and_no_photo_twice() -> None:
    queue = select_batch(blobs(100, 9), np.arange(60), np.array([80, 81]), size=20, slots=9)
    assert len(queue.positions) == len(queue.slots) == len(set(queue.positions.tolist())) == 20


def test_exploration_photos_have_slot_zero_and_no_candidate_has() -> None:
    queue = select_batch(blobs(100, 9), np.arange(60), np.array([80, 81, 95]), size=20, slots=9)
    assert by_slot(queue)[EXPLORATION_SLOT] == [80, 81, 95]
    assert set(queue.slots.tolist()) == set(range(10))


@pytest.mark.parametrize("seed", range(5))
def test_within_a_slot_candidates_keep_their_order(seed: int) -> None:
    candidates = np.random.default_rng(seed).permutation(100)[:60]
    place = {int(position): i for i, position in enumerate(candidates)}
    queue = select_batch(blobs(100, 9, seed), candidates, no_photo(), size=40, slots=9)
    for slot, positions in by_slot(queue).items():
        places = [place[position] for position in positions]
        assert places == sorted(places), f"slot {slot}"


def test_no_candidate_is_left_out_of_its_slot_for_a_worse_one() -> None:
    embeddings, candidates = blobs(100, 4), np.random.default_rng(0).permutation(100)
    queue = select_batch(embeddings, candidates, no_photo(), size=12, slots=4)
    for positions in by_slot(queue).values():
        alike = [int(p) for p in candidates if p % 4 == positions[0] % 4]
        assert positions == alike[: len(positions)]


def test_each_slot_holds_photos_that_look_alike() -> None:
    queue = select_batch(blobs(90, 3), np.arange(90), no_photo(), size=30, slots=3)
    assert {frozenset(p % 3 for p in positions) for positions in by_slot(queue).values()} == {
        frozenset({0}),
        frozenset({1}),
        frozenset({2}),
    }


def test_slots_differ_by_one_photo_at_most_while_their_groups_last() -> None:
    queue = select_batch(blobs(100, 4), np.arange(100), no_photo(), size=30, slots=4)
    assert sorted(Counter(queue.slots.tolist()).values()) == [7, 7, 8, 8]


def test_the_same_pool_gives_the_same_queue() -> None:
    first, second = (select_batch(blobs(100, 9), np.arange(60), no_photo(), size=20, slots=9) for _ in range(2))
    np.testing.assert_array_equal(first.positions, second.positions)
    np.testing.assert_array_equal(first.slots, second.slots)


def test_without_exploration_slot_zero_stays_empty() -> None:
    queue = select_batch(blobs(30, 3), np.arange(30), no_photo(), size=10, slots=3)
    assert queue.slots.min() == 1


def test_without_candidates_the_queue_is_the_exploration() -> None:
    queue = select_batch(blobs(10, 2), no_photo(), np.array([3, 4]), size=20, slots=9)
    assert queue.positions.tolist() == [3, 4]
    assert queue.slots.tolist() == [0, 0]


@pytest.mark.parametrize("size", [2, 3])
def test_exploration_alone_may_fill_the_queue(size: int) -> None:
    queue = select_batch(blobs(10, 2), np.arange(3), np.array([7, 8, 9]), size=size, slots=9)
    assert queue.positions.tolist() == [7, 8, 9][:size]
    assert queue.slots.tolist() == [0] * size


def test_an_empty_pool_gives_an_empty_queue() -> None:
    queue = select_batch(np.zeros((0, 4), dtype=np.float32), no_photo(), no_photo(), size=20, slots=9)
    assert len(queue.positions) == len(queue.slots) == 0


def test_fewer_candidates_than_slots_get_a_slot_each() -> None:
    queue = select_batch(blobs(3, 3), np.arange(3), no_photo(), size=20, slots=9)
    assert sorted(queue.slots.tolist()) == [1, 2, 3]


def test_equal_candidates_share_a_slot() -> None:
    queue = select_batch(np.ones((8, 4), dtype=np.float32), np.arange(8), no_photo(), size=5, slots=9)
    assert queue.positions.tolist() == [0, 1, 2, 3, 4]
    assert queue.slots.tolist() == [1] * 5


@pytest.mark.parametrize("size", [5, 20])
def test_without_groups_the_best_are_dealt_to_the_slots_in_turn(size: int) -> None:
    candidates = np.random.default_rng(0).permutation(60)
    queue = select_batch(blobs(100, 9), candidates, no_photo(), size=size, slots=9, diverse=False)
    assert queue.positions.tolist() == candidates[:size].tolist()
    assert queue.slots.tolist() == [1 + rank % 9 for rank in range(size)]


def test_without_groups_exploration_keeps_its_slot() -> None:
    queue = select_batch(blobs(100, 9), np.arange(60), np.array([80, 81]), size=20, slots=9, diverse=False)
    assert by_slot(queue)[EXPLORATION_SLOT] == [80, 81]
    assert sorted(queue.positions.tolist()) == [*range(18), 80, 81]
    assert sorted(queue.slots[:10].tolist()) == list(range(10))


def kept_slots(count: int, slots: dict[int, int]) -> IntArray:
    kept = np.zeros(count, dtype=np.int64)
    kept[list(slots)] = list(slots.values())
    return kept


@pytest.mark.parametrize("grouped", [True, False])
def test_photos_keep_the_slots_that_they_have_to_stay_in(grouped: bool) -> None:
    fixed = {0: 9, 1: 9, 2: 4, 3: 1, 50: 2}
    queue = select_batch(
        blobs(100, 9), np.arange(60), no_photo(), size=20, slots=9, diverse=grouped, kept=kept_slots(100, fixed)
    )
    slots = dict(zip(queue.positions.tolist(), queue.slots.tolist(), strict=True))
    assert {position: slots[position] for position in fixed.keys() & slots} == {
        position: slot for position, slot in fixed.items() if position in slots
    }
    assert {0, 1, 2, 3} <= slots.keys()


def test_around_photos_that_stay_the_others_fill_the_emptiest_slots() -> None:
    fixed = {0: 3, 1: 3, 2: 3, 3: 8}
    queue = select_batch(
        blobs(100, 9), np.arange(60), no_photo(), size=18, slots=9, diverse=False, kept=kept_slots(100, fixed)
    )
    assert queue.positions.tolist() != []
    assert sorted(queue.positions.tolist()) == list(range(18))
    counts = Counter(queue.slots.tolist())
    assert counts.pop(3) == 3
    assert set(counts) == {1, 2, 4, 5, 6, 7, 8, 9}
    assert max(counts.values()) <= 2


@pytest.mark.parametrize("seed", range(3))
def test_groups_take_the_slot_in_which_most_of_their_photos_have_to_stay(seed: int) -> None:
    embeddings = blobs(90, 3, seed)
    fixed = {0: 2, 3: 2, 1: 3, 4: 3, 2: 1, 5: 1}  # photo i belongs to centre i % 3
    queue = select_batch(embeddings, np.arange(90), no_photo(), size=30, slots=3, kept=kept_slots(90, fixed))
    assert {slot: {p % 3 for p in positions} for slot, positions in by_slot(queue).items()} == {1: {2}, 2: {0}, 3: {1}}


# Behind the queue


@pytest.mark.parametrize("seed", range(5))
def test_a_photo_behind_the_queue_gets_the_slot_that_a_plain_loop_finds_nearest(seed: int) -> None:
    rng = np.random.default_rng(seed)
    behind, queued = rng.normal(size=(40, 5)).astype(np.float32), rng.normal(size=(20, 5)).astype(np.float32)
    slots = rng.integers(0, 4, size=20)
    expected = []
    for photo in behind:
        means = {s: np.mean([q for q, t in zip(queued, slots, strict=True) if t == s], axis=0) for s in set(slots)}
        del means[EXPLORATION_SLOT]
        expected.append(min(means, key=lambda s: float(np.linalg.norm(photo - means[s]))))
    np.testing.assert_array_equal(nearest_slots(behind, queued, slots), expected)


def test_photos_behind_a_queue_of_exploration_alone_stay_out_of_its_slot() -> None:
    np.testing.assert_array_equal(nearest_slots(blobs(4, 2), blobs(2, 2), np.array([0, 0])), [1, 1, 1, 1])


def test_an_empty_queue_and_nothing_behind_it_are_fine() -> None:
    nothing = np.zeros((0, 6), dtype=np.float32)
    np.testing.assert_array_equal(nearest_slots(blobs(2, 2), nothing, no_photo()), [1, 1])
    assert len(nearest_slots(nothing, blobs(2, 2), np.array([1, 2]))) == 0
