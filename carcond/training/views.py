"""A network that sees a photo in several views: the whole photo at several sizes, from small to large.

A larger view is cut into tiles of the size of the smallest one, and each tile passes through the same layers. The
feature maps of its tiles are put together again, those of smaller views are repeated to the size of the largest one's,
and all are concatenated: the mean of the result is the concatenation of the views' embeddings, and heads on it stay
linear.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

Split = Callable[[Tensor, Sequence[int]], Tensor]
"""From the input of all views, and the tiles on a side of each, to the T tiles of all views (N, T, C, h, w)."""


class ViewNetwork(nn.Module):
    """A network applied to each tile of each view.

    Attributes:
        network: input of N tiles -> their feature maps (N, C, h, w).
    """

    def __init__(self, network: nn.Module, views: Sequence[int], split: Split) -> None:
        """Wrap a network, whose layers are shared and not copied.

        Args:
            network: of one tile.
            views: sides in pixels, from small to large.
            split: `cut_tiles`, or `unpack_tiles` for a network that takes the output of `PackedStages`.
        """
        super().__init__()
        self.network = network
        self._sides = tiles_on_a_side(views)
        self._split = split

    def forward(self, inputs: Tensor) -> Tensor:
        """Feature map (N, V * C, h, w) of all V views, h and w being those of the largest."""
        maps = _each_tile(self.network, self._split(inputs, self._sides))  # (N, T, C, h, w)
        parts = torch.split(maps, [side**2 for side in self._sides], dim=1)
        views = [
            _repeat(_join(part, side), self._sides[-1] // side) for part, side in zip(parts, self._sides, strict=True)
        ]
        return torch.cat(views, dim=1)


class PackedStages(nn.Module):
    """First stages of a network applied to each tile of each view, with one output."""

    def __init__(self, stages: nn.Module, views: Sequence[int]) -> None:
        super().__init__()
        self.stages = stages
        self._sides = tiles_on_a_side(views)

    def forward(self, pixels: Tensor) -> Tensor:
        """Activations (N, T * C, h, w) of pixels (N, 3, S, S): the channels of all tiles, tile by tile."""
        return _each_tile(self.stages, cut_tiles(pixels, self._sides)).flatten(1, 2)


def tiles_on_a_side(views: Sequence[int]) -> list[int]:
    """Number of tiles on a side of each view."""
    return [side // views[0] for side in views]


def cut_tiles(pixels: Tensor, sides: Sequence[int]) -> Tensor:
    """Tiles of pixels (N, 3, S, S); smaller views are means of squares of them, which differs little from resizing."""
    tiles = []
    for side in sides:
        view = functional.avg_pool2d(pixels, sides[-1] // side) if side < sides[-1] else pixels
        step = view.shape[-1] // side
        cut = view.reshape(-1, view.shape[1], side, step, side, step).permute(0, 2, 4, 1, 3, 5)
        tiles.append(cut.reshape(-1, side**2, view.shape[1], step, step))
    return torch.cat(tiles, dim=1)


def unpack_tiles(packed: Tensor, sides: Sequence[int]) -> Tensor:
    """Tiles of the output of `PackedStages`."""
    count = sum(side**2 for side in sides)
    return packed.reshape(-1, count, packed.shape[1] // count, *packed.shape[2:])


def _each_tile(network: nn.Module, tiles: Tensor) -> Tensor:
    output: Tensor = network(tiles.flatten(0, 1))
    return output.reshape(-1, tiles.shape[1], *output.shape[1:])


def _join(maps: Tensor, side: int) -> Tensor:
    """Feature map (N, C, side * h, side * w) of a view, from those of its tiles (N, side**2, C, h, w)."""
    _, _, channels, height, width = maps.shape
    grid = maps.reshape(-1, side, side, channels, height, width).permute(0, 3, 1, 4, 2, 5)
    return grid.reshape(-1, channels, side * height, side * width)


def _repeat(feature_map: Tensor, factor: int) -> Tensor:
    return functional.interpolate(feature_map, scale_factor=float(factor)) if factor > 1 else feature_map
