from collections import Counter

import numpy as np
import pytest
from sklearn.model_selection import StratifiedGroupKFold

from carcond.arrays import IntArray
from carcond.data.folds import grouped_folds, stratified_folds


def draw_groups(count: int, seed: int, largest: int = 6) -> tuple[IntArray, IntArray]:
    """Classes of unequal size and groups of 1 to `largest` photos; most groups are of one class."""
    rng = np.random.default_rng(seed)
    groups = np.repeat(np.arange(count), rng.integers(1, largest + 1, size=count))[:count]
    of_group = rng.choice(3, size=count, p=[0.6, 0.3, 0.1])
    strays = rng.uniform(size=count) < 0.05
    indices = np.where(strays, rng.integers(0, 3, size=count), of_group[groups])
    order = rng.permutation(count)
    return indices[order], groups[order] * 17


def imbalance(indices: IntArray, fold: IntArray) -> float:
    """The greatest distance of a class's share of a fold from a fifth of the class, in photos."""
    counts = [np.bincount(fold[indices == index], minlength=5) for index in range(3)]
    return max(float(np.abs(of_fold - of_fold.mean()).max()) for of_fold in counts)


def test_each_class_is_dealt_out_evenly() -> None:
    indices = np.array([0] * 23 + [1] * 11)
    fold = stratified_folds(indices, 5, seed=0)
    assert sorted(Counter(fold[indices == 0]).values()) == [4, 4, 5, 5, 5]
    assert sorted(Counter(fold[indices == 1]).values()) == [2, 2, 2, 2, 3]


@pytest.mark.parametrize("seed", range(5))
def test_a_group_is_never_parted(seed: int) -> None:
    indices, groups = draw_groups(300, seed)
    fold = grouped_folds(indices, groups, 5, seed)
    assert all(len(set(fold[groups == group])) == 1 for group in set(groups.tolist()))
    assert set(fold.tolist()) == set(range(5))


@pytest.mark.parametrize("seed", range(5))
def test_grouped_folds_are_about_as_even_as_those_of_scikit_learn(seed: int) -> None:
    indices, groups = draw_groups(300, seed)
    reference = np.empty(300, dtype=np.int64)
    splitter = StratifiedGroupKFold(5, shuffle=True, random_state=seed)
    for k, (_, members) in enumerate(splitter.split(indices, indices, groups)):
        reference[members] = k
    assert imbalance(indices, grouped_folds(indices, groups, 5, seed)) <= imbalance(indices, reference) + 1


def test_groups_of_one_photo_each_are_dealt_out_as_evenly_as_photos() -> None:
    indices = np.random.default_rng(0).integers(0, 3, size=100)
    fold = grouped_folds(indices, np.arange(100), 5, seed=0)
    for index in range(3):
        counts = np.bincount(fold[indices == index], minlength=5)
        assert counts.max() - counts.min() <= 1


def test_groups_with_a_rare_class_go_to_different_folds() -> None:
    """Cars 0 and 1 each have one photo of the rare class among their ten."""
    groups = np.repeat(np.arange(10), 10)
    indices = np.zeros(100, dtype=np.int64)
    indices[[0, 10]] = 1
    fold = grouped_folds(indices, groups, 5, seed=0)
    assert fold[0] != fold[10]


def test_the_deal_depends_on_the_seed_alone() -> None:
    indices, groups = draw_groups(120, 0)
    first, second, other = (grouped_folds(indices, groups, 5, seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, second)
    assert (first != other).any()
