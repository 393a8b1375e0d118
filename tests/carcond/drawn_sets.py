"""Embeddings of drawn classes."""

import numpy as np

from carcond.arrays import FloatArray, IntArray


def draw_set(count: int, class_count: int, dimension: int = 24, seed: int = 0) -> tuple[FloatArray, IntArray]:
    """Embeddings with a class-dependent mean, a common offset and unequal class sizes."""
    rng = np.random.default_rng(seed)
    shares = np.arange(1, class_count + 1) / np.arange(1, class_count + 1).sum()
    indices = rng.choice(class_count, size=count, p=shares)
    indices[:class_count] = np.arange(class_count)
    centres = rng.normal(size=(class_count, dimension))
    embeddings = 3 + 0.5 * centres[indices] + rng.normal(size=(count, dimension))
    return embeddings.astype(np.float32), indices.astype(np.int64)
