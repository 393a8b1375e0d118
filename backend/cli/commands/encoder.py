"""`carcond encoder`: create the encoder of photos."""

import sys
from typing import Annotated

import typer

from backend.services import get_services
from carcond.model.encoder import fitting_encoder
from carcond.model.encoder_card import encoder_request, read_card
from carcond.settings import get_settings


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
        # It imports torch, an optional package that takes seconds.
        from carcond.training.network import build_encoder  # noqa: PLC0415

        card = read_card(build_encoder(settings.models_dir, backbone, weights, settings.views))
    if mirror:
        mirror.push_encoders()
    if card.fallback_reason and not is_new:  # making a stand-in has warned already
        print(f"NOT the encoder that was asked for: {card.fallback_reason}", file=sys.stderr)
    views = "+".join(map(str, card.views))
    print(f"encoder {card.encoder_id}: {card.backbone}, views {views}, weights {card.weights_source}")
