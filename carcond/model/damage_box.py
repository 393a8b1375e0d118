"""The part of a photo in which damage is suspected, as a box drawn from a class activation map."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from carcond.arrays import FloatArray

# Chosen on 62 photos of damaged cars with boxes drawn by people; docs/explain.md has the figures.
_THRESHOLD = 0.5  # as a share of the greatest evidence
_LEAST_AREA, _GREATEST_AREA = 0.01, 0.4  # as shares of the photo: a larger box locates nothing
# Side of the grid on which the box is found: maps are 7x7, or 14x14, and too coarse for it.
_GRID = 28


@dataclass(frozen=True)
class Box:
    """A rectangle in a photo. All are shares, 0..1, of the photo's width and height."""

    left: float
    top: float
    width: float
    height: float


def suspected_box(evidence: FloatArray) -> Box | None:
    """Bounding box of the region that supports a class most; None when no region does, or nearly all do.

    The activation is cut at half its greatest value, and the piece that holds the greatest is boxed (as arXiv
    1512.04150 does at a fifth, for whole objects).

    Args:
        evidence: ``(h, w)``, above 0 where a region supports the class: `carcond.model.explain.activation_map` plus
            the bias of the class.
    """
    fine = np.asarray(Image.fromarray(evidence).resize((_GRID, _GRID), Image.Resampling.BICUBIC))
    greatest = float(fine.max())
    if greatest <= 0:
        return None
    rows, columns = np.nonzero(_piece_of_greatest(fine, fine >= _THRESHOLD * greatest))
    top, left = int(rows.min()), int(columns.min())
    height, width = int(rows.max()) + 1 - top, int(columns.max()) + 1 - left
    if not _LEAST_AREA <= height * width / _GRID**2 <= _GREATEST_AREA:
        return None
    return Box(left / _GRID, top / _GRID, width / _GRID, height / _GRID)


def _piece_of_greatest(values: FloatArray, strong: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """The 4-connected component of `strong` that contains the maximum."""
    piece = np.zeros_like(strong)
    piece.flat[values.argmax()] = True
    while True:
        grown = piece.copy()
        grown[1:] |= piece[:-1]
        grown[:-1] |= piece[1:]
        grown[:, 1:] |= piece[:, :-1]
        grown[:, :-1] |= piece[:, 1:]
        grown &= strong
        if (grown == piece).all():
            return piece
        piece = grown
