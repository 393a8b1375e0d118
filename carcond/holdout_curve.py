"""The learning curve so far: how good heads were on today's hold-out after so many labels."""

from typing import Any

import numpy as np

from carcond.evaluation import confusion_matrix, macro_f1
from carcond.intervals import macro_f1_interval, wilson_interval
from carcond.learning_curve import METRICS, LabelHistory, predict

_FIRST = 6
_POINTS = 10
_LEAST_HOLDOUT = 5


def holdout_curve(history: LabelHistory) -> dict[str, Any]:
    """Fit heads on the first labels, in the order in which they were made, and measure all of them on the same photos.

    A photo of the hold-out, or of its group, is never among the labels they are fitted on.

    Returns:
        JSON-ready: `holdout`: photos that are measured on; `labels`: counts ``(R,)``, the last one all labels; and
        each of `carcond.learning_curve.METRICS`: ``(R,)`` of [value, low, high], 95 % intervals. The lists are empty
        with fewer than 6 labels or 5 hold-out photos.
    """
    train, held = np.flatnonzero(~history.holdout), np.flatnonzero(history.holdout)
    curve: dict[str, Any] = {"holdout": len(held), "labels": [], **{metric: [] for metric in METRICS}}
    if len(train) < _FIRST or len(held) < _LEAST_HOLDOUT:
        return curve
    counts = np.unique(np.geomspace(_FIRST, len(train), _POINTS).round().astype(int)).tolist()
    curve["labels"] = counts
    for predicted in predict(history, [train[:count] for count in counts], held):
        confusion = confusion_matrix(predicted, history.indices[held], len(history.task.classes))
        right = int(np.trace(confusion))
        curve["accuracy"].append([right / len(held), *wilson_interval(right, len(held))])
        curve["macro_f1"].append([macro_f1(confusion), *macro_f1_interval(confusion)])
    return curve
