"""How far off a figure measured on few photos may be: 95 % intervals.

Photos count as independent of each other; near-duplicates among them make the true interval wider.
"""

import math

import numpy as np

from carcond.heads import DoubleArray, IntArray

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

    What photos of each true class are taken for is drawn from its posterior, a Dirichlet distribution (Goutte
    and Gaussier 2005, doi:10.1007/978-3-540-31865-1_25). A bootstrap would call ten right of ten certain. Equal tails
    would leave out a figure at the edge, such as 1, so the interval is widened to hold what was measured (as
    Brown, Cai and DasGupta 2001, doi:10.1214/ss/1009213286, do for a share).

    Args:
        confusion: ``(K, K)``, true class by row, at least one photo.
    """
    support = confusion.sum(axis=1)
    present = np.flatnonzero(support)
    prior = 1 / len(confusion)
    draws = np.random.default_rng(0).standard_gamma(confusion[present] + prior, (_DRAWS, len(present), len(confusion)))
    drawn = draws / draws.sum(axis=2, keepdims=True) * support[present, np.newaxis]  # photos, (draws, present, K)
    low, high = np.quantile(_macro_f1(drawn, present), (0.025, 0.975))
    measured = float(_macro_f1(confusion[np.newaxis, present], present)[0])
    return min(float(low), measured), max(float(high), measured)


def _macro_f1(photos: DoubleArray | IntArray, present: IntArray) -> DoubleArray:
    """Macro-F1 ``(N,)`` of photos by true class, of those present, and told class ``(N, P, K)``."""
    hits = photos[:, np.arange(len(present)), present]
    f1 = 2 * hits / (photos.sum(axis=2) + photos.sum(axis=1)[:, present])
    return np.asarray(f1.mean(axis=1), dtype=np.float64)
