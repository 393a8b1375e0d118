"""`carcond encoder`: create the encoder of photos, or quantize the one that serves a project."""

import sys
from importlib.util import find_spec
from typing import Annotated

import typer

from backend.cli.encoder_view import encoder_line, quantization_text
from backend.services import Services, get_services
from carcond.errors import EncoderError
from carcond.model.encoder import fitting_encoder, list_encoders
from carcond.model.encoder_card import encoder_request, read_card


def encoder(
    backbone: Annotated[str, typer.Option(help="timm's name of the network")] = "",
    weights: Annotated[str, typer.Option(help="'hub', or a file: .safetensors, or .pth of tensors only")] = "",
    quantize: Annotated[
        int | None, typer.Option(metavar="PROJECT", help="quantize the encoder that serves this project to int8")
    ] = None,
) -> None:
    """Create the encoder of photos, unless it exists already.

    With --quantize, quantize the encoder that serves a project, and compare the answers of both on its photos. If they
    agree, its photos are embedded in the background, and it takes over unless the gate finds it worse.

    Exit codes: 0 done; 1 it could not be created, or the quantized one was refused, and standard error says why.

    Example: carcond encoder --weights efficientnet_b4.safetensors

    Example: carcond encoder --quantize 1
    """
    if quantize is not None and (backbone or weights):
        raise typer.BadParameter("--quantize takes the serving encoder: leave out --backbone and --weights")
    services = get_services()
    if quantize is None:
        _create(services, backbone, weights)
    else:
        _quantize(services, quantize)


def _create(services: Services, backbone: str, weights: str) -> None:
    settings, mirror = services.settings, services.mirror
    backbone = backbone or settings.backbone
    weights = weights or settings.backbone_weights
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
    print(encoder_line(card))
    for other in list_encoders(settings.models_dir):
        if other.quantization:
            print(quantization_text(other, other.quantization))


def _quantize(services: Services, project: int) -> None:
    if find_spec("onnx") is None:
        raise EncoderError("quantizing an encoder needs a package: pip install onnx")
    from backend.project.quantizing import quantize_encoder  # noqa: PLC0415 - it imports onnx

    card = quantize_encoder(services, project, lambda line: print(line, file=sys.stderr))
    if card.quantization:
        print(quantization_text(card, card.quantization))
    print(f"its trial follows when the worker has embedded all photos: carcond versions list --project {project}")
