"""The learning curve so far: metrics on today's hold-out by number of labels."""

from typing import Any

import numpy as np

from carcond.analysis.learning_curve import METRICS, LabelHistory, predict
from carcond.evaluation.intervals import macro_f1_interval, wilson_interval
from carcond.evaluation.metrics import confusion_matrix, macro_f1

_FIRST = 6
_POINTS = 10
_LEAST_HOLDOUT = 5


def holdout_curve(history: LabelHistory) -> dict[str, Any]:
    """Fit heads on the first labels, in the order in which they were made, and measure all of them on the same photos.

    A photo of the hold-out, or of its group, is never among the labels they are fitted on.

    Returns:
        JSON-ready: `holdout`: photos that are measured on; `labels`: counts ``(R,)``, the last one all labels; and
        each of `carcond.analysis.learning_curve.METRICS`: ``(R,)`` of [value, low, high], 95 % intervals. The lists are
        empty with fewer than 6 labels or 5 hold-out photos; that of the macro-F1 also where these are of one class.
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
        f1 = macro_f1(confusion)
        if f1 is not None:
            curve["macro_f1"].append([f1, *macro_f1_interval(confusion)])
    return curve
