"""`carcond train`: fine-tune an encoder on an exported, labelled set."""

import json
import os
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated

import typer

from backend.simulation_view import progress_bar
from backend.training_view import outcome_table, training_bars
from carcond.settings import get_settings


def train(
    export: Annotated[Path, typer.Argument(help="an export of Label Studio (JSON, JSON-MIN, CSV), or a table")],
    photos: Annotated[Path, typer.Option(help="folder of the photos")],
    output: Annotated[Path, typer.Option(help="folder for the result; see docs/train.md")] = Path("trained"),
    config: Annotated[Path | None, typer.Option(help="settings in a YAML file; options go before them")] = None,
    backbone: Annotated[str, typer.Option(help="timm's name of the network")] = "",
    weights: Annotated[str, typer.Option(help="'hub', 'random', or a file: .safetensors, or .pth")] = "",
    epochs: Annotated[int | None, typer.Option(help="15 when nothing is said")] = None,
    batch_size: Annotated[int | None, typer.Option(help="16 when nothing is said")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="0.0001 when nothing is said")] = None,
    image_size: Annotated[int | None, typer.Option(help="224 when nothing is said")] = None,
    patience: Annotated[int | None, typer.Option(help="epochs without a better validation loss; 0: to the end")] = None,
    freeze_until: Annotated[str | None, typer.Option(help="train from this stage on, such as blocks.5")] = None,
    mixed_precision: Annotated[str | None, typer.Option(help="no, bf16 or fp16")] = None,
    loss_weight: Annotated[list[str] | None, typer.Option(help="task=weight: of its loss")] = None,
    when_unmarked: Annotated[list[str] | None, typer.Option(help="task=class: of photos left unmarked")] = None,
    seed: Annotated[int | None, typer.Option(help="of all that is drawn")] = None,
    tensorboard: Annotated[bool, typer.Option("--tensorboard", help="also write TensorBoard's format")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON only")] = False,
) -> None:
    """Fine-tune an encoder on labelled photos, and fit heads on it.

    The same command goes on where a killed one has stopped.

    Example: carcond train export.json --photos photos --output trained --epochs 10 --freeze-until blocks.5
    """
    # Other commands need none of these; torch takes seconds to import.
    from carcond.finetuning.training_reader import ReadOptions, read_training_set  # noqa: PLC0415
    from carcond.finetuning.training_settings import load_training_settings  # noqa: PLC0415

    settings = get_settings()
    options = {
        "epochs": epochs,
        "batch_size": batch_size,
        "learning_rate": learning_rate,
        "image_size": image_size,
        "patience": patience,
        "freeze_until": freeze_until,
        "mixed_precision": mixed_precision,
        "loss_weights": _pairs(loss_weight) or None,
        "when_unmarked": _pairs(when_unmarked) or None,
        "seed": seed,
    }
    how = load_training_settings(config, {key: value for key, value in options.items() if value is not None})
    # Under torchrun, one process speaks for all.
    speaks = os.environ.get("RANK", "0") == "0"
    bar = progress_bar if speaks else lambda title: nullcontext(lambda done, total: None)
    reading = ReadOptions(
        how.when_unmarked,
        how.validation_share,
        how.seed,
        settings.max_photo_pixels,
        settings.car_field,
        settings.source_field,
    )
    with bar("reading photos") as progress:
        training, data = read_training_set(export, photos, reading, progress)
    if speaks:
        print("\n".join(data.lines()), file=sys.stderr)

    from carcond.finetuning.offline_training import OfflineTraining  # noqa: PLC0415

    asked = OfflineTraining(
        training,
        data,
        how,
        backbone or settings.backbone,
        weights or settings.backbone_weights,
        output,
        settings.max_photo_pixels,
        tensorboard,
        speaks,
    )
    with training_bars(how.epochs) as (watch, progress):
        report = asked.run(watch, progress)
    if speaks:
        print(json.dumps(report, indent=2, ensure_ascii=False) if as_json else outcome_table(report))


def _pairs(texts: Sequence[str] | None) -> dict[str, str]:
    """The pairs of texts "name=value"."""
    pairs = {}
    for text in texts or []:
        name, sign, value = text.partition("=")
        if not sign or not name.strip() or not value.strip():
            raise typer.BadParameter(f"expected name=value, got {text!r}")
        pairs[name.strip()] = value.strip()
    return pairs
