"""`carcond export-model`: a model version for use elsewhere."""

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from backend.project.serving_model import ServingModel
from backend.services import get_services
from carcond.errors import EncoderError
from carcond.model.encoder import encoder_directory


def export_model(
    output: Annotated[Path, typer.Argument(help="the ONNX file to write")],
    project: Annotated[int | None, typer.Option(help="number in Label Studio; needed when there are several")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON only: the card")] = False,
) -> None:
    """Write the serving version, encoder and heads, as one ONNX file with its card inside.

    Example: carcond export-model condition.onnx --project 1
    """
    services = get_services()
    serving = ServingModel.of(services, project)
    if find_spec("onnx") is None:
        raise EncoderError("exporting a model needs a package: pip install onnx")
    from carcond.model.onnx_export import export_model as export  # noqa: PLC0415 - it imports onnx

    directory = encoder_directory(services.settings.models_dir, serving.encoder.encoder_id)
    try:
        card = export(directory, serving.version.heads, serving.version.name, output)
    except OSError as error:
        raise typer.BadParameter(f"{output} cannot be written ({error.strerror})") from error
    tasks = ", ".join(f"{key} ({', '.join(classes)})" for key, classes in card["tasks"].items())
    print(json.dumps(card, indent=2) if as_json else f"wrote {output}: {card['version']}, {tasks}")
