"""`carcond encoder`: create the encoder of photos, or quantize the one that serves a project."""

import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from backend.cli.encoder_view import encoder_line, quantization_text
from backend.services import Services, get_services
from carcond.errors import MissingPackageError
from carcond.model.encoder import fitting_encoder, list_encoders
from carcond.model.encoder_card import encoder_request, read_card
from carcond.settings import Settings
from carcond.training.requirements import check_packages


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
    if card is None or card.stands_in:  # what stands in is replaced as soon as the weights can be had
        card = read_card(_build(settings, backbone, weights))
    if mirror:
        mirror.push_encoders()
    print(encoder_line(card))
    for other in list_encoders(settings.models_dir):
        if other.quantization:
            print(quantization_text(other, other.quantization))


def _quantize(services: Services, project: int) -> None:
    if find_spec("onnx") is None:
        raise MissingPackageError("quantizing an encoder needs a package: pip install onnx")
    from backend.project.quantizing import quantize_encoder  # noqa: PLC0415 - it imports onnx

    card = quantize_encoder(services, project, lambda line: print(line, file=sys.stderr))
    if card.quantization:
        print(quantization_text(card, card.quantization))
    print(f"its trial follows when the worker has embedded all photos: carcond versions list --project {project}")


def _build(settings: Settings, backbone: str, weights: str) -> Path:
    missing = [name for name in ("onnx", "huggingface_hub") if find_spec(name) is None]
    if missing:
        raise MissingPackageError(
            f"making an encoder needs {' and '.join(missing)}: run `scripts/setup up` in the checkout, or install "
            "carcond with its extra `encoder`"
        )
    # Both import packages that take a second or more.
    from carcond.model.pretrained_encoder import build_pretrained_encoder, needs_torch  # noqa: PLC0415

    if not needs_torch(backbone, weights):
        return build_pretrained_encoder(settings.models_dir, backbone, weights, settings.views)
    check_packages(f"making an encoder of {backbone} with the weights {weights}")
    from carcond.training.network import build_encoder  # noqa: PLC0415

    return build_encoder(settings.models_dir, backbone, weights, settings.views)
