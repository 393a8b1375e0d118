"""Array types and what all numeric modules share."""

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]
DoubleArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]

UNKNOWN = -1
"""Class index of a photo whose label for a task is not known: it is masked when that head is fitted."""


def softmax(logits: FloatArray) -> FloatArray:
    """Softmax over the last axis, safe against overflow."""
    shifted = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return np.asarray(shifted / shifted.sum(axis=-1, keepdims=True), dtype=np.float32)
