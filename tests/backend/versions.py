"""Model versions that no training has made."""

from pathlib import Path

import numpy as np

from carcond.model.encoder import Encoder, find_encoder
from carcond.model.heads import Head, Heads
from carcond.model.version_card import VersionCard
from carcond.registry.registry import Registry
from carcond.taxonomy import TASKS


def write_version(models_dir: Path, project: int = 1) -> Heads:
    """A serving version of fixed heads over the encoder in use."""
    encoder = Encoder.load(find_encoder(models_dir), threads=1)
    rng = np.random.default_rng(project)
    by_task = {}
    for task in TASKS:
        weight = rng.normal(size=(len(task.classes), encoder.dimension)).astype(np.float32)
        by_task[task.key] = Head(task, weight, np.zeros(len(task.classes), np.float32), 3.0, True)
    registry, heads = Registry(models_dir, project), Heads(encoder.encoder_id, by_task)
    registry.promote(registry.write(heads, VersionCard(), []))
    return heads
