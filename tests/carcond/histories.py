"""Drawn label histories that the tests of learning curves share."""

import numpy as np

from carcond.analysis.learning_curve import LabelHistory
from carcond.taxonomy import DAMAGE


def draw_history(
    count: int, seed: int = 0, *, dimension: int = 40, distance: float = 2.0, held: float = 0.2, noise: float = 0.0
) -> LabelHistory:
    """Two classes of normal embeddings; `held` of them are drawn for the hold-out; `noise` is the share of coin tosses.

    Args:
        count: of labels.
        seed: of all.
        dimension: of the embeddings; more of them take more labels.
        distance: between the means of the classes, in standard deviations.
        held: share of hold-out labels, at places of chance.
        noise: share of labels that say nothing of the photo.
    """
    rng = np.random.default_rng(seed)
    indices = rng.integers(0, 2, count)
    embeddings = rng.normal(size=(count, dimension))
    embeddings[:, 0] += distance * indices
    indices = np.where(rng.random(count) < noise, rng.integers(0, 2, count), indices)
    holdout = rng.permutation(np.arange(count) < held * count)
    return LabelHistory(
        DAMAGE, embeddings.astype(np.float32), indices, np.arange(count), holdout, holdout, np.zeros(count, dtype=bool)
    )
