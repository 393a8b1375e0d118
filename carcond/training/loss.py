"""Loss of all tasks together, in which a photo's weight does not depend on the others in its batch."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from carcond.arrays import UNKNOWN, IntArray
from carcond.taxonomy import TASK_BY_KEY


@dataclass(frozen=True)
class TaskLoss:
    """The loss of one task.

    Attributes:
        weight: of the task.
        class_weights: ``(K,)``; their mean over the labelled photos is 1.
        labelled: share of the training photos with a known class.
    """

    weight: float
    class_weights: Tensor
    labelled: float


def task_losses(
    classes: Mapping[str, IntArray], loss_weights: Mapping[str, float], balanced: bool
) -> dict[str, TaskLoss]:
    """Losses of the tasks with at least two labelled classes.

    Args:
        classes: task key -> class indices ``(N,)`` of the training photos, `UNKNOWN` where not labelled.
        loss_weights: task key -> weight.
        balanced: give each class that occurs the same total weight.
    """
    losses = {}
    for key, indices in classes.items():
        known = indices[indices != UNKNOWN]
        counts = np.bincount(known, minlength=len(TASK_BY_KEY[key].classes))
        occurring = int((counts > 0).sum())
        if occurring >= 2:
            weights = len(known) / (occurring * np.maximum(counts, 1)) if balanced else np.ones(len(counts))
            tensor = torch.tensor(weights, dtype=torch.float32)
            losses[key] = TaskLoss(loss_weights[key], tensor, len(known) / len(indices))
    return losses


def batch_loss(
    losses: Mapping[str, TaskLoss], logits: Mapping[str, Tensor], targets: Mapping[str, Tensor], smoothing: float
) -> Tensor:
    """The loss of a batch.

    It is divided by the mean number of labels per batch, and not by those of this batch: so the gradients of the parts
    of a batch, in other processes or accumulated, add up to those of the whole.

    Args:
        losses: from `task_losses`.
        logits: task key -> ``(B, K)``, also of tasks without a loss.
        targets: task key -> class indices ``(B,)``, `UNKNOWN` where not labelled.
        smoothing: label smoothing: share of the target that is spread over all classes.
    """
    total = sum((0.0 * each.sum() for each in logits.values()), torch.zeros(()))
    for key, task in losses.items():
        summed = _summed(task, logits[key], targets[key], smoothing)
        total = total + task.weight * summed / (len(targets[key]) * task.labelled)
    return total


def loss_sums(losses: Mapping[str, TaskLoss], logits: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> Tensor:
    """For each task the summed loss and the summed class weights of its labelled photos: ``(tasks, 2)``, float64."""
    rows = []
    for key, task in losses.items():
        known = targets[key] != UNKNOWN
        weights = task.class_weights.to(known.device)[targets[key][known]]
        rows.append(torch.stack([_summed(task, logits[key], targets[key], 0.0).double(), weights.double().sum()]))
    return torch.stack(rows)


def _summed(task: TaskLoss, logits: Tensor, targets: Tensor, smoothing: float) -> Tensor:
    each = cross_entropy(
        logits.float(),
        targets,
        task.class_weights.to(logits.device),
        ignore_index=UNKNOWN,
        reduction="none",
        label_smoothing=smoothing,
    )
    return each.sum()
