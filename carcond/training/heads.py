"""Heads of a fine-tuning: fitted on the photos that were trained on, calibrated on others."""

from dataclasses import replace

import numpy as np

from carcond.arrays import UNKNOWN, FloatArray, IntArray
from carcond.data.split import TRAIN
from carcond.model.head_fitting import fit_heads, fit_temperature
from carcond.model.heads import Head, Heads
from carcond.training.dataset import VALIDATION, TrainingSet

# Minimum number of labels of the second most frequent class to choose a temperature.
_MIN_PER_CLASS = 3


def fit_train_side(encoder_id: str, training: TrainingSet, embeddings: FloatArray) -> Heads:
    """Heads of the training photos' embeddings, cross-fitted.

    Args:
        encoder_id: id of the encoder of the embeddings.
        training: photos and labels.
        embeddings: ``(N, D)`` of all photos.

    Raises:
        NotEnoughLabelsError: no task has labels of two classes.
    """
    train = training.positions(TRAIN)
    classes = {task: indices[train] for task, indices in training.classes().items()}
    return fit_heads(encoder_id, embeddings[train], classes, groups=training.groups()[train])


def calibrate(heads: Heads, training: TrainingSet, embeddings: FloatArray) -> Heads:
    """Heads with temperatures chosen on the validation photos (arXiv 1706.04599).

    Cross-fitting on the training photos would not do: the encoder was trained on them, so even a head that was not is
    overconfident on them.

    Args:
        heads: fitted on the training photos.
        training: photos and labels.
        embeddings: ``(N, D)`` of all photos.
    """
    chosen, classes = training.positions(VALIDATION), training.classes()
    return Heads(
        heads.encoder_id,
        {key: _calibrated(head, embeddings[chosen], classes[key][chosen]) for key, head in heads.by_task.items()},
    )


def _calibrated(head: Head, embeddings: FloatArray, indices: IntArray) -> Head:
    known = indices != UNKNOWN
    counts = np.sort(np.bincount(indices[known], minlength=2))
    if counts[-2] < _MIN_PER_CLASS:
        return replace(head, temperature=1.0, cross_fitted=False)
    temperature = fit_temperature(head.logits(embeddings[known]), indices[known])
    return replace(head, temperature=temperature, cross_fitted=True)
