"""F1 of one confusion matrix or of thousands at once.

`sklearn.metrics.f1_score` gives the same for one set of predictions (a test compares them), but takes one at a time;
intervals, the gate and the forecast go over thousands of resampled matrices.
"""

import numpy as np

from carcond.arrays import DoubleArray, IntArray


def f1_from_counts(
    hits: DoubleArray | IntArray, predicted: DoubleArray | IntArray, support: DoubleArray | IntArray
) -> DoubleArray:
    """F1 of a class, 2 TP / (predicted + support), in 0..1; 0 where a class neither occurs nor is predicted.

    Args:
        hits: photos of the class that are predicted as it.
        predicted: photos that are predicted as the class.
        support: photos of the class. All three have shapes that broadcast.
    """
    either = np.asarray(predicted + support, dtype=np.float64)
    return np.divide(2 * hits, either, out=np.zeros(np.broadcast_shapes(hits.shape, either.shape)), where=either > 0)


def mean_f1(confusion: DoubleArray | IntArray) -> DoubleArray:
    """Mean F1 over the classes that occur: a class without photos is no failure.

    Args:
        confusion: ``(..., K, K)``, true class by row, each matrix with at least one photo.

    Returns:
        ``(...,)`` in 0..1.
    """
    table = np.asarray(confusion, dtype=np.float64)
    support = table.sum(axis=-1)
    f1 = f1_from_counts(np.diagonal(table, axis1=-2, axis2=-1), table.sum(axis=-2), support)
    occurs = support > 0
    return np.asarray((f1 * occurs).sum(axis=-1) / occurs.sum(axis=-1), dtype=np.float64)
