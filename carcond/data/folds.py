"""Folds for cross-fitting: each photo is judged by a head that has not seen it."""

import numpy as np
import numpy.typing as npt

_IntArray = npt.NDArray[np.int64]
_FloatArray = npt.NDArray[np.float64]


def stratified_folds(indices: _IntArray, count: int, seed: int) -> _IntArray:
    """Fold numbers ``(N,)``, each class dealt out evenly. A class may be rarer than the folds.

    Args:
        indices: class indices ``(N,)``.
        count: of folds.
        seed: of the deal.
    """
    generator = np.random.default_rng(seed)
    fold = np.empty(len(indices), dtype=np.int64)
    for index in np.unique(indices):
        members = generator.permutation(np.flatnonzero(indices == index))
        fold[members] = np.arange(len(members)) % count
    return fold


def grouped_folds(indices: _IntArray, groups: _IntArray, count: int, seed: int) -> _IntArray:
    """Fold numbers ``(N,)`` with all photos of a group in one fold, each class dealt out as evenly as that allows.

    The largest groups are dealt first, each to the fold that has least of what the group holds; a photo of
    a rare class weighs more.

    Args:
        indices: class indices ``(N,)``.
        groups: group numbers ``(N,)``.
        count: of folds.
        seed: of the deal.
    """
    _, group = np.unique(groups, return_inverse=True)
    held = np.zeros((group.max() + 1, indices.max() + 1))  # photos by group and class
    np.add.at(held, (group, indices), 1)
    return deal_groups(held, count, seed)[group]


def deal_groups(held: _FloatArray, count: int, seed: int) -> _IntArray:
    """Fold numbers ``(G,)`` of groups, so that each fold gets as even a share of every column as can be.

    Args:
        held: ``(G, C)``, how many photos of each kind a group holds; a photo may be of several kinds.
        count: of folds.
        seed: of the deal.
    """
    held = held / np.maximum(held.sum(axis=0), 1)
    shuffled = np.random.default_rng(seed).permutation(len(held))
    order = shuffled[np.argsort(-held[shuffled].sum(axis=1), kind="stable")]
    dealt = np.zeros((count, held.shape[1]))
    fold_of_group = np.empty(len(held), dtype=np.int64)
    for number in order:
        chosen = (dealt @ held[number]).argmin()
        fold_of_group[number] = chosen
        dealt[chosen] += held[number]
    return fold_of_group
