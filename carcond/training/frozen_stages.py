"""A backbone in two parts: frozen stages, and stages that are trained.

The activations between them can be cached, so that a training on a CPU passes each photo through the first part once.
"""

from dataclasses import replace

import torch
from torch import nn

from carcond.errors import TrainingError
from carcond.training.pretrained_weights import Backbone
from carcond.training.views import PackedStages, unpack_tiles

_STEM = ("conv_stem", "bn1")
_END = ("conv_head", "bn2")


def stage_names(backbone: Backbone) -> list[str]:
    """Names of the stages that a training may begin at, first to last, for example ``blocks.5``.

    Raises:
        TrainingError: the network is not of the EfficientNet family, whose stages are known here.
    """
    module = backbone.module
    if not all(hasattr(module, name) for name in (*_STEM, "blocks", *_END)):
        raise TrainingError(
            f"expected a network with the stages of EfficientNet, got {backbone.name}: leave freeze_until out"
        )
    return [*(f"blocks.{number}" for number in range(len(_blocks(module)))), _END[0]]


def split_backbone(backbone: Backbone, first_trained: str) -> tuple[nn.Module, Backbone]:
    """The stages before one, and the rest as a backbone of its own that takes their output, of all views.

    Both are made of the backbone's own layers: training the rest changes the backbone.

    Args:
        backbone: of the EfficientNet family.
        first_trained: from `stage_names`.

    Raises:
        TrainingError: there is no such stage.
    """
    names = stage_names(backbone)
    if first_trained not in names:
        raise TrainingError(f"expected freeze_until to be one of {', '.join(names)}, got {first_trained!r}")
    count = names.index(first_trained)
    module, blocks = backbone.module, list(_blocks(backbone.module))
    frozen: nn.Module = nn.Sequential(*(getattr(module, name) for name in _STEM), *blocks[:count])
    trained = nn.Sequential(*blocks[count:], *(getattr(module, name) for name in _END))
    frozen.requires_grad_(False).eval()
    if len(backbone.views) == 1:
        return frozen, replace(backbone, module=trained)
    return PackedStages(frozen, backbone.views), replace(backbone, module=trained, split=unpack_tiles)


def freeze_statistics(network: nn.Module) -> None:
    """Let batch normalisation use its running statistics, also in training mode.

    Those of a small batch are noisy, and depend on the number of processes that share the batch.
    """
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eval()


def _blocks(module: nn.Module) -> nn.Sequential:
    blocks = module.get_submodule("blocks")
    assert isinstance(blocks, nn.Sequential)  # noqa: S101 - so all of timm's family have it
    return blocks


def map_shape(stages: nn.Module, size: int) -> tuple[int, ...]:
    """Output shape of stages for one photo of `size` x `size` pixels, without the batch."""
    with torch.inference_mode():
        shape: torch.Size = stages(torch.zeros(1, 3, size, size)).shape
    return tuple(shape[1:])
