import itertools

import numpy as np
import pytest

from carcond.data import near_duplicates as groups
from carcond.data.near_duplicates import MAX_DISTANCE, Likeness


def assign_groups(new: list[int], known: list[int], known_groups: list[int]) -> list[int]:
    """By hashes alone."""
    return groups.assign_groups([Likeness(h) for h in new], [Likeness(h) for h in known], known_groups)


def flip(value: int, *bits: int) -> int:
    for bit in bits:
        value ^= 1 << bit
    return value


def random_hashes(count: int, seed: int = 0) -> list[int]:
    return [int(value) for value in np.random.default_rng(seed).integers(0, 2**64, size=count, dtype=np.uint64)]


def near_duplicates(seed: int) -> list[int]:
    """Random hashes, each with up to four copies in which at most three bits differ, in random order."""
    rng = np.random.default_rng(seed)
    hashes = [
        flip(origin, *rng.choice(64, size=rng.integers(0, 4), replace=False).tolist())
        for origin in random_hashes(30, seed)
        for _ in range(rng.integers(1, 5))
    ]
    return [hashes[i] for i in rng.permutation(len(hashes))]


def partition(numbers: list[int]) -> set[frozenset[int]]:
    return {frozenset(i for i, n in enumerate(numbers) if n == number) for number in numbers}


def pairwise_union(hashes: list[int]) -> set[frozenset[int]]:
    """The slow way: unite every two photos that differ in few bits, until nothing changes."""
    numbers = list(range(len(hashes)))
    for i, j in itertools.combinations(range(len(hashes)), 2):
        if bin(hashes[i] ^ hashes[j]).count("1") <= MAX_DISTANCE:
            old, new = numbers[j], numbers[i]
            numbers = [new if group == old else group for group in numbers]
    return partition(numbers)


@pytest.mark.parametrize("seed", range(10))
def test_groups_are_those_of_a_slow_pairwise_union(seed: int) -> None:
    hashes = near_duplicates(seed)
    assert partition(assign_groups(hashes, [], [])) == pairwise_union(hashes)


@pytest.mark.parametrize("seed", range(10))
def test_photos_that_come_in_two_batches_get_the_groups_of_one_batch(seed: int) -> None:
    hashes = near_duplicates(seed)
    half = len(hashes) // 2
    known = assign_groups(hashes[:half], [], [])
    assert [*known, *assign_groups(hashes[half:], hashes[:half], known)] == assign_groups(hashes, [], [])


def test_the_limit_itself_still_counts_as_near() -> None:
    origin = random_hashes(1)[0]
    within, beyond = flip(origin, *range(MAX_DISTANCE)), flip(origin, *range(20, 20 + MAX_DISTANCE + 1))
    assert assign_groups([within, beyond], [origin], [7]) == [7, 8]


def test_a_photo_joins_the_nearest_of_several_groups() -> None:
    origin = random_hashes(1)[0]
    known = [flip(origin, 0, 1, 2, 3, 4), flip(origin, 10), flip(origin, 20, 21, 22)]
    assert assign_groups([origin], known, [1, 2, 3]) == [2]


def test_a_photo_between_two_known_groups_does_not_unite_them() -> None:
    middle = random_hashes(1)[0]
    known = [flip(middle, 0, 1, 2, 3, 4), flip(middle, 10, 11, 12, 13)]
    assert assign_groups([middle, known[0], known[1]], known, [1, 2]) == [2, 1, 2]


def test_a_new_group_never_takes_the_number_of_another() -> None:
    first, second, third = random_hashes(3)
    assert assign_groups([second, third], [first], [41]) == [42, 43]


def test_equal_hashes_share_a_group() -> None:
    assert len(set(assign_groups([5, 5, 5], [], []))) == 1


def test_hashes_with_the_highest_bit_set_are_compared_whole() -> None:
    highest = 2**64 - 1
    assert len(set(assign_groups([highest, flip(highest, 63), 0], [], []))) == 2


def test_no_new_photo_gets_no_group() -> None:
    assert assign_groups([], [], []) == []
    assert assign_groups([], [1, 2], [1, 2]) == []


def test_photos_of_one_car_share_a_group_however_they_look() -> None:
    first, second, third = random_hashes(3)
    new = [Likeness(first, "A 1"), Likeness(second, "B 2"), Likeness(third, "A 1")]
    assert groups.assign_groups(new, [], []) == [1, 2, 1]


def test_a_new_photo_of_a_known_car_joins_its_group() -> None:
    first, second = random_hashes(2)
    assert groups.assign_groups([Likeness(second, "A 1")], [Likeness(first, "A 1")], [7]) == [7]


def test_a_car_comes_before_a_likeness() -> None:
    near, own = random_hashes(2)
    known = [Likeness(near), Likeness(own, "A 1")]
    assert groups.assign_groups([Likeness(flip(near, 1), "A 1")], known, [1, 2]) == [2]


def test_photos_of_which_nobody_named_the_car_have_no_car_in_common() -> None:
    first, second = random_hashes(2)
    assert groups.assign_groups([Likeness(second)], [Likeness(first)], [7]) == [8]
