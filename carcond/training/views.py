"""A network that sees a photo in several views: the whole photo at several sizes, from small to large.

Each view passes through the same layers. The feature maps of the smaller views are repeated to the size of the largest
one's and all are concatenated, so that the mean of the result is the concatenation of the views' embeddings, and heads
on it stay linear.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

Split = Callable[[Tensor, Sequence[int]], list[Tensor]]
"""From the input (N, ...) of all views, and how many times smaller than the largest each is, to the views' inputs."""


class ViewNetwork(nn.Module):
    """A network applied to each view.

    Attributes:
        network: input of one view -> its feature map (N, C, h, w).
    """

    def __init__(self, network: nn.Module, views: Sequence[int], split: Split) -> None:
        """Wrap a network, whose layers are shared and not copied.

        Args:
            network: of one view.
            views: their sides in pixels, from small to large.
            split: `shrink_pixels`, or `unpack_activations` for a network that takes the output of `PackedStages`.
        """
        super().__init__()
        self.network = network
        self._factors = shrink_factors(views)
        self._split = split

    def forward(self, inputs: Tensor) -> Tensor:
        """Feature map (N, V * C, h, w) of all V views, h and w being those of the largest."""
        maps = [self.network(view) for view in self._split(inputs, self._factors)]
        return torch.cat([_repeat(each, factor) for each, factor in zip(maps, self._factors, strict=True)], dim=1)


class PackedStages(nn.Module):
    """First stages of a network applied to each view, with one output."""

    def __init__(self, stages: nn.Module, views: Sequence[int]) -> None:
        super().__init__()
        self.stages = stages
        self._factors = shrink_factors(views)

    def forward(self, pixels: Tensor) -> Tensor:
        """Activations (N, C', h, w) of pixels (N, 3, S, S): those of larger views are folded into more channels."""
        activations = [self.stages(view) for view in shrink_pixels(pixels, self._factors)]
        folds = zip(activations, self._factors, strict=True)
        return torch.cat([functional.pixel_unshuffle(each, self._factors[0] // factor) for each, factor in folds], 1)


def shrink_factors(views: Sequence[int]) -> list[int]:
    """How many times smaller than the largest each view is."""
    return [views[-1] // side for side in views]


def shrink_pixels(pixels: Tensor, factors: Sequence[int]) -> list[Tensor]:
    """Views of pixels (N, 3, S, S): the means of squares of them, which hardly differ from the photo resized."""
    return [functional.avg_pool2d(pixels, factor) if factor > 1 else pixels for factor in factors]


def unpack_activations(packed: Tensor, factors: Sequence[int]) -> list[Tensor]:
    """Activations (N, C, ...) of each view, from the output of `PackedStages`."""
    folds = [factors[0] // factor for factor in factors]
    channels = packed.shape[1] // sum(fold**2 for fold in folds)
    parts = torch.split(packed, [channels * fold**2 for fold in folds], dim=1)
    return [functional.pixel_shuffle(part, fold) for part, fold in zip(parts, folds, strict=True)]


def _repeat(feature_map: Tensor, factor: int) -> Tensor:
    return functional.interpolate(feature_map, scale_factor=float(factor)) if factor > 1 else feature_map
