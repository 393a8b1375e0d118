"""95 % intervals of figures measured on few photos.

Photos count as independent of each other; near-duplicates among them make the true interval wider.
"""

import math

import numpy as np

from carcond.arrays import IntArray
from carcond.evaluation.f1 import mean_f1

_Z = 1.959964
_DRAWS = 2000


def wilson_interval(right: int, photos: int) -> tuple[float, float]:
    """95 % interval of a share (Wilson 1927), sound for few photos and for shares of 0 and 1.

    Args:
        right: 0 .. photos.
        photos: at least 1.
    """
    share, extra = right / photos, _Z**2 / photos
    middle = (share + extra / 2) / (1 + extra)
    reach = _Z * math.sqrt(share * (1 - share) / photos + extra / (4 * photos)) / (1 + extra)
    return max(middle - reach, 0.0), min(middle + reach, 1.0)


def macro_f1_interval(confusion: IntArray) -> tuple[float, float]:
    """95 % interval of the macro-F1 over the classes that occur. Deterministic.

    The predictions of each true class are sampled from their posterior, a Dirichlet distribution (Goutte and
    Gaussier 2005, doi:10.1007/978-3-540-31865-1_25). A bootstrap would call ten right of ten certain. Equal tails would
    leave out a figure at the edge, such as 1, so the interval is widened to include the measured value (as Brown, Cai
    and DasGupta 2001, doi:10.1214/ss/1009213286, do for a share).

    Args:
        confusion: ``(K, K)``, true class by row, at least one photo.
    """
    support = confusion.sum(axis=1)
    present = np.flatnonzero(support)
    prior = 1 / len(confusion)
    draws = np.random.default_rng(0).standard_gamma(confusion[present] + prior, (_DRAWS, len(present), len(confusion)))
    drawn = np.zeros((_DRAWS, *confusion.shape))  # photos
    drawn[:, present] = draws / draws.sum(axis=2, keepdims=True) * support[present, np.newaxis]
    low, high = np.quantile(mean_f1(drawn), (0.025, 0.975))
    measured = float(mean_f1(confusion))
    return min(float(low), measured), max(float(high), measured)
