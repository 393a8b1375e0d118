"""Augmentation of training photos with torchvision's transforms.

An encoder's input is the whole photo squashed into a square, and so is the training's: a photo is squashed into a
larger square first, of which a crop is taken. The larger square is such that even the smallest crop has as many pixels
as the network takes, so a crop shows more detail than the whole photo and never less.
"""

import math

import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import InterpolationMode, v2

from carcond.data.images import InputSpec
from carcond.training.settings import Augmentation

_GREY = 128
_MOST_STRETCHED = 1.1


class TrainingTransform:
    """Transform of a decoded photo to an augmented network input, which depends on the seed of each call only."""

    def __init__(self, spec: InputSpec, augmentation: Augmentation) -> None:
        self._resampling = Image.Resampling[spec.interpolation.upper()]
        self._side = math.ceil(spec.size / math.sqrt(augmentation.smallest_crop))
        steps: list[torch.nn.Module] = []
        if augmentation.rotation:
            steps.append(v2.RandomRotation(augmentation.rotation, InterpolationMode.BILINEAR, fill=_GREY))
        if augmentation.smallest_crop < 1:
            shares, shapes = (augmentation.smallest_crop, 1.0), (1 / _MOST_STRETCHED, _MOST_STRETCHED)
            steps.append(v2.RandomResizedCrop(spec.size, shares, shapes, antialias=True))
        steps.append(v2.RandomHorizontalFlip(augmentation.flip))
        jitter = (augmentation.brightness, augmentation.contrast, augmentation.saturation, augmentation.hue)
        if any(jitter):
            steps.append(v2.ColorJitter(*jitter))
        # Until here on Pillow's pictures, whose colours are varied in a seventh of the time.
        steps += [v2.PILToTensor(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(spec.mean, spec.std)]
        self._steps = v2.Compose(steps)

    def __call__(self, image: Image.Image, seed: int) -> Tensor:
        """Pixels (3, size, size) of an RGB picture of any size.

        Args:
            image: from `carcond.data.images.decode_photo`.
            seed: of the random transforms; the caller's random state is left alone.
        """
        square = image.resize((self._side, self._side), self._resampling)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            pixels: Tensor = self._steps(square)
        return pixels
