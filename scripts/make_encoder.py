"""Makes the encoder that the settings ask for, unless it is there. Torch is imported only when it has to be made."""

import logging
import sys

from carcond.encoder import fitting_encoder
from carcond.encoder_card import encoder_request
from carcond.errors import CarcondError
from carcond.settings import get_settings


def main() -> None:
    """Make it; warnings, as of a stand-in for weights that could not be had, go to the terminal."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    try:
        settings = get_settings()
        request = encoder_request(settings.backbone, settings.backbone_weights)
        if fitting_encoder(settings.models_dir, request) is None:
            print(f"making the encoder ({settings.backbone}): once, about a minute", flush=True)
            from carcond.network import build_encoder  # noqa: PLC0415  # imports torch

            build_encoder(settings.models_dir, settings.backbone, settings.backbone_weights)
    except CarcondError as error:
        sys.exit(f"the encoder cannot be made: {error}")


if __name__ == "__main__":
    main()
