"""Heads of random weights for benchmarks: time does not depend on the weights."""

import numpy as np

from carcond.model.encoder import Encoder
from carcond.model.heads import Head, Heads
from carcond.taxonomy import TASKS


def made_up_heads(encoder: Encoder) -> Heads:
    """Heads of random weights for all tasks, on an encoder's embeddings."""
    generator = np.random.default_rng(0)
    by_task = {}
    for task in TASKS:
        weight = generator.normal(size=(len(task.classes), encoder.dimension)).astype(np.float32)
        bias = np.zeros(len(task.classes), np.float32)
        by_task[task.key] = Head(task, weight, bias, temperature=1.0, cross_fitted=False)
    return Heads(encoder.encoder_id, by_task)
