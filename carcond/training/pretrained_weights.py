"""Pretrained backbones for the network: the sources of their weights, and the fallback when the hub is unreachable."""

import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import timm
import torch
from timm.models import load_state_dict
from torch import Tensor, nn
from torch.nn import functional

from carcond.data.images import InputSpec
from carcond.errors import EncoderError, WeightsUnavailableError
from carcond.model.car_detector import CLASS_COUNT, CarHead
from carcond.model.encoder_card import ONE_VIEW, EncoderRequest, Tuning, encoder_request
from carcond.model.weight_files import (
    FALLBACK_BACKBONE,
    FALLBACK_PACKAGE,
    fallback_source,
    hub_file,
    read_fallback,
    unreadable,
    warn_of_fallback,
)
from carcond.settings import check_views
from carcond.training.views import Split, ViewNetwork, cut_tiles

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Backbone:
    """A convolutional network without its classifier, and where it came from.

    Attributes:
        name: timm's name of the network.
        module: pixels (N, 3, s, s) of one tile -> feature map (N, channels, h, w). Its weights have timm's names.
        channels: of the feature map of one view.
        spec: input size and normalisation.
        views: sides of the views of a photo, in pixels, from small to large; the last is the input's.
        weights_source: source of the weights, in words.
        request: the requested encoder.
        fallback_reason: why this is not the requested backbone; None when it is.
        car_head: the pretrained classifier, None when the weights have none, or were fine-tuned since.
        tuning: the project whose labels it was fine-tuned on, in the live loop; None for any other.
        split: from the input to its tiles; another one when `module` is not the whole network.
    """

    name: str
    module: nn.Module
    channels: int
    spec: InputSpec
    views: tuple[int, ...]
    weights_source: str
    request: EncoderRequest
    fallback_reason: str | None = None
    car_head: CarHead | None = None
    tuning: Tuning | None = None
    split: Split = cut_tiles

    @property
    def dimension(self) -> int:
        """Length of an embedding: channels of all views."""
        return self.channels * len(self.views)

    def network(self) -> nn.Module:
        """The network of all views, made of the layers of `module`: pixels (N, 3, S, S) -> (N, dimension, h, w)."""
        return self.module if len(self.views) == 1 else ViewNetwork(self.module, self.views, self.split)

    def resized(self, side: int) -> "Backbone":
        """The same backbone with a largest view of `side` pixels, and the others in proportion.

        Raises:
            EncoderError: the views cannot be seen at this size.
        """
        views = tuple(view * side // self.views[-1] for view in self.views)
        if len(views) > 1 and views[0] < self.views[0]:
            logger.warning(
                "IMAGE SIZE %d IS THE SIDE OF THE LARGEST VIEW: the smallest has %d pixels then, of the encoder's %d. "
                "Leave the image size out for the encoder's own",
                side,
                views[0],
                self.views[0],
            )
        try:
            check_views(views)
        except ValueError as error:
            raise EncoderError(f"{len(views)} views do not fit an input of {side} pixels: {error}") from None
        return replace(self, spec=replace(self.spec, size=side), views=views)


def load_backbone_or_fallback(name: str, weights: str, views: tuple[int, ...] = ONE_VIEW) -> Backbone:
    """Load a backbone; when the hub is unreachable, load a smaller one from a package instead.

    Only the hub has a fallback: a weights file that cannot be used is an error.

    Args:
        name: timm's name of a convolutional network.
        weights: "hub", "random", or the path of a weights file.
        views: sides of the views of a photo, in pixels.

    Raises:
        EncoderError: the network is unknown or of an unsuitable kind.
        WeightsUnavailableError: neither the weights nor the fallback's package can be loaded.
    """
    try:
        return load_backbone(name, weights, views)
    except WeightsUnavailableError as error:
        if weights != "hub":
            raise
        reason = str(error)
    return load_stand_in(name, reason, views)


def load_backbone(name: str, weights: str, views: tuple[int, ...] = ONE_VIEW) -> Backbone:
    """Load a backbone with the requested weights, or fail.

    Args:
        name: timm's name of a convolutional network, for example ``efficientnet_b4``.
        weights: "hub" (downloaded once, then kept in the hub's cache), "random" (from a fixed seed,
            for tests), or the path of a weights file: .safetensors, or .pth with nothing but tensors inside.
        views: sides of the views of a photo, in pixels (see `carcond.settings.check_views`).

    Raises:
        EncoderError: the network is unknown or of an unsuitable kind.
        WeightsUnavailableError: the hub cannot be reached, or the file does not hold this network's weights.
    """
    module = _create(name)
    tensors: dict[str, Tensor] = {}
    if weights == "random":
        source = "random numbers"
    elif weights == "hub":
        repository = _config(module).get("hf_hub_id") or f"timm/{name}"
        tensors = _read_weights(hub_file(name, repository))
        _fill(module, tensors, f"the hub's {repository}")
        source = f"hub: {repository}"
    else:
        tensors = _read_weights(Path(weights))
        _fill(module, tensors, weights)
        source = f"file: {Path(weights).name}"
    backbone = _backbone(name, module, source, encoder_request(name, weights, views))
    return replace(backbone, car_head=_car_head(backbone, tensors))


def _create(name: str) -> nn.Module:
    if not timm.is_model(name):
        raise EncoderError(f"timm has no network called {name!r}: set CARCOND_BACKBONE to one of timm.list_models()")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module: nn.Module = timm.create_model(name, pretrained=False, num_classes=0, global_pool="")
    return module.eval()


def _config(module: nn.Module) -> dict[str, Any]:
    """Configuration of the network's pretrained weights in timm."""
    config: Any = module.pretrained_cfg
    return dict(config)


def _backbone(
    name: str, module: nn.Module, source: str, request: EncoderRequest, fallback_reason: str | None = None
) -> Backbone:
    with torch.inference_mode():
        shape = module(torch.zeros(1, 3, request.views[0], request.views[0])).shape
    if len(shape) != 4:
        raise EncoderError(
            f"expected a network with a feature map (N, D, h, w), but {name} gives {tuple(shape)}: "
            "choose a convolutional one, for example efficientnet_b4"
        )
    spec = _input_spec(module, request.views[-1])
    return Backbone(name, module, shape[1], spec, request.views, source, request, fallback_reason)


def _input_spec(module: nn.Module, size: int) -> InputSpec:
    config = _config(module)
    interpolation: Literal["bilinear", "bicubic"] = "bilinear" if config["interpolation"] == "bilinear" else "bicubic"
    return InputSpec(size, config["mean"], config["std"], interpolation)


def _read_weights(path: Path) -> dict[str, Tensor]:
    try:
        weights: dict[str, Tensor] = load_state_dict(str(path), use_ema=False)
    except Exception as error:  # safetensors, torch and zipfile each have their own for damaged files
        raise unreadable(path, error) from error
    return weights


def _fill(module: nn.Module, weights: dict[str, Tensor], place: str) -> None:
    classifier = _config(module)["classifier"]
    wanted = {name: value for name, value in weights.items() if not name.startswith(f"{classifier}.")}
    try:
        module.load_state_dict(wanted)
    except RuntimeError as error:
        raise WeightsUnavailableError(
            f"{place} holds the weights of another network than {_config(module)['architecture']}: {error}"
        ) from error


def _car_head(backbone: Backbone, weights: dict[str, Tensor]) -> CarHead | None:
    """The classifier among the weights, if it is ImageNet's and linear on the average of the feature map.

    It sees the smallest view alone, nearest to the size that it was trained at: its weights of the others are zero.
    """
    classifier = _config(backbone.module)["classifier"]
    weight, bias = weights.get(f"{classifier}.weight"), weights.get(f"{classifier}.bias")
    if weight is None or bias is None or weight.shape != (CLASS_COUNT, backbone.channels):
        return None
    whole = timm.create_model(backbone.name, pretrained=False, num_classes=CLASS_COUNT).eval()
    whole.load_state_dict(weights)
    side = backbone.views[0]
    pixels = torch.randn(1, 3, side, side, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected = whole(pixels)
        logits = backbone.module(pixels).mean(dim=(2, 3)) @ weight.T + bias
    # Some networks have further layers between the two.
    linear = torch.allclose(logits, expected, rtol=1e-3, atol=1e-3 * float(expected.abs().max()))
    others = (0, backbone.dimension - backbone.channels)
    return CarHead(functional.pad(weight, others).numpy(), bias.numpy()) if linear else None


def load_stand_in(name: str, reason: str, views: tuple[int, ...] = ONE_VIEW) -> Backbone:
    """Load the fallback of a backbone whose weights could not be downloaded, and warn loudly.

    Args:
        name: the requested backbone.
        reason: why it cannot be loaded.
        views: sides of the views of a photo, in pixels.

    Raises:
        WeightsUnavailableError: the package with the fallback's weights is not installed.
    """
    module = _create(FALLBACK_BACKBONE)
    weights = _fallback_weights(module)
    _fill(module, weights, f"the package {FALLBACK_PACKAGE}")
    warn_of_fallback(name, reason)
    request = encoder_request(name, "hub", views)
    backbone = _backbone(FALLBACK_BACKBONE, module, fallback_source(), request, reason)
    return replace(backbone, car_head=_car_head(backbone, weights))


def _fallback_weights(module: nn.Module) -> dict[str, Tensor]:
    """Weights of the fallback's package under timm's names: the same layers in the same order, classifier last."""
    classifier = _config(module)["classifier"]
    names = [*module.state_dict(), f"{classifier}.weight", f"{classifier}.bias"]
    return dict(zip(names, map(torch.from_numpy, read_fallback()), strict=True))
