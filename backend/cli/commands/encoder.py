"""`carcond encoder`: create the encoder of photos."""

import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from backend.services import get_services
from carcond.model.encoder import fitting_encoder
from carcond.model.encoder_card import encoder_request, read_card
from carcond.settings import Settings, get_settings
from carcond.training.requirements import check_packages


def encoder(
    backbone: Annotated[str, typer.Option(help="timm's name of the network")] = "",
    weights: Annotated[str, typer.Option(help="'hub', or a file: .safetensors, or .pth of tensors only")] = "",
) -> None:
    """Create the encoder of photos, unless it exists already.

    Example: carcond encoder --weights efficientnet_b4.safetensors
    """
    settings = get_settings()
    backbone = backbone or settings.backbone
    weights = weights or settings.backbone_weights
    mirror = get_services().mirror
    if mirror:
        mirror.pull_encoders()
    card = fitting_encoder(settings.models_dir, encoder_request(backbone, weights, settings.views))
    is_new = card is None
    if card is None:
        card = read_card(_build(settings, backbone, weights))
    if mirror:
        mirror.push_encoders()
    if card.fallback_reason and not is_new:  # making a stand-in has warned already
        print(f"NOT the encoder that was asked for: {card.fallback_reason}", file=sys.stderr)
    views = "+".join(map(str, card.views))
    print(f"encoder {card.encoder_id}: {card.backbone}, views {views}, weights {card.weights_source}")


def _build(settings: Settings, backbone: str, weights: str) -> Path:
    # Both import packages that take a second or more, and that not every installation has.
    if find_spec("onnx") and find_spec("huggingface_hub"):
        from carcond.model.pretrained_encoder import build_pretrained_encoder, needs_torch  # noqa: PLC0415

        if not needs_torch(backbone, weights):
            return build_pretrained_encoder(settings.models_dir, backbone, weights, settings.views)
    check_packages(f"making an encoder of {backbone} with the weights {weights}")
    from carcond.training.network import build_encoder  # noqa: PLC0415

    return build_encoder(settings.models_dir, backbone, weights, settings.views)
