"""The `carcond` command. Thin: it names rooms of both packages and does nothing itself."""

import json
import logging
import sys
from typing import Annotated

import typer

from carcond.encoder import fitting_encoder
from carcond.encoder_card import encoder_request, read_card
from carcond.errors import CarcondError
from carcond.settings import get_settings

app = typer.Typer(no_args_is_help=True, add_completion=True, pretty_exceptions_enable=False)


@app.callback()
def carcond() -> None:
    """Active learning on car photos inside Label Studio.

    Settings come from the environment: LABEL_STUDIO_URL, LABEL_STUDIO_API_KEY, REDIS_URL, DATABASE_URL,
    and those that start with CARCOND_.
    """


@app.command()
def encoder(
    backbone: Annotated[str, typer.Option(help="timm's name of the network")] = "",
    weights: Annotated[str, typer.Option(help="'hub', or a file: .safetensors, or .pth of tensors only")] = "",
) -> None:
    """Make the encoder that photos are seen with, unless it is there already.

    Example: carcond encoder --weights efficientnet_b4.safetensors
    """
    settings = get_settings()
    backbone = backbone or settings.backbone
    weights = weights or settings.backbone_weights
    card = fitting_encoder(settings.models_dir, encoder_request(backbone, weights))
    if card is None:
        # Only making an encoder needs torch, which takes seconds to import.
        from carcond.network import build_encoder  # noqa: PLC0415

        card = read_card(build_encoder(settings.models_dir, backbone, weights))
    if card.fallback_reason:
        print(f"NOT the encoder that was asked for: {card.fallback_reason}", file=sys.stderr)
    print(f"encoder {card.encoder_id}: {card.backbone}, weights {card.weights_source}")


@app.command()
def status(
    project: Annotated[int, typer.Argument(help="the project's number in Label Studio")],
    as_json: Annotated[bool, typer.Option("--json", help="print JSON only")] = False,
) -> None:
    """Show the serving version of a project and what it was fitted and measured on.

    Example: carcond status 1 --json
    """
    from backend.services import get_services  # noqa: PLC0415 - opening the store is not needed by other commands

    services = get_services()
    version = services.registry(project).current()
    facts: dict[str, object] = dict(version.card) if version else {"version": None}
    facts["photos"] = services.store.photo_count(project)
    if as_json:
        print(json.dumps(facts, indent=2))
        return
    for name, value in facts.items():
        print(f"{name}: {json.dumps(value)}")


def main() -> None:
    """Entry point: an error that was raised on purpose is one line on standard error, and exit code 1."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
    try:
        app()
    except CarcondError as error:
        sys.exit(f"carcond: {error}")
