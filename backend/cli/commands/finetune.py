"""`carcond finetune`: fine-tune the encoder, on a project's labels in the background or on an exported set here."""

import json
import os
import sys
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Any

import typer

from backend.cli.commands.person import this_person
from backend.cli.commands.project import check_project
from backend.cli.pairs import parse_pairs
from backend.cli.simulation_view import progress_bar
from backend.cli.training_view import outcome_table, training_bars
from backend.jobs.finetune_requests import cancel_finetuning, start_finetuning
from backend.jobs.queue import get_job_queue
from backend.project.finetune_status import finetune_facts, finetune_text
from backend.services import get_services
from carcond.errors import TrainingError
from carcond.settings import get_settings
from carcond.training.dataset_reader import ReadOptions, read_training_set
from carcond.training.requirements import check_packages
from carcond.training.settings import TrainingSettings, load_training_settings

_DEFAULTS = TrainingSettings()


def finetune(
    export: Annotated[
        Path | None, typer.Argument(help="an export of Label Studio (JSON, JSON-MIN, CSV), or a table; or --project")
    ] = None,
    project: Annotated[int | None, typer.Option(help="number in Label Studio: fine-tune on its labels")] = None,
    cancel: Annotated[bool, typer.Option("--cancel", help="of a project: end it, and discard what it learnt")] = False,
    status: Annotated[bool, typer.Option("--status", help="of a project: only show the progress")] = False,
    photos: Annotated[Path | None, typer.Option(help="of an export: folder of the photos")] = None,
    output: Annotated[Path | None, typer.Option(help="folder for the result; default: trained")] = None,
    config: Annotated[Path | None, typer.Option(help="settings in a YAML file; options override them")] = None,
    backbone: Annotated[str, typer.Option(help="timm's name of the network")] = "",
    weights: Annotated[str, typer.Option(help="'hub', 'random', or a file: .safetensors, or .pth")] = "",
    epochs: Annotated[int | None, typer.Option(help=f"default: {_DEFAULTS.epochs}")] = None,
    batch_size: Annotated[int | None, typer.Option(help=f"default: {_DEFAULTS.batch_size}")] = None,
    learning_rate: Annotated[float | None, typer.Option(help=f"default: {_DEFAULTS.learning_rate}")] = None,
    image_size: Annotated[int | None, typer.Option(help="default: that of the encoder's views")] = None,
    patience: Annotated[int | None, typer.Option(help="epochs without a better validation loss; 0: to the end")] = None,
    freeze_until: Annotated[str | None, typer.Option(help="first stage that is trained, such as blocks.5")] = None,
    mixed_precision: Annotated[str | None, typer.Option(help="no, bf16 or fp16")] = None,
    loss_weight: Annotated[list[str] | None, typer.Option(help="task=weight: of its loss")] = None,
    when_unmarked: Annotated[list[str] | None, typer.Option(help="task=class: of photos left unmarked")] = None,
    seed: Annotated[int | None, typer.Option(help="of all random numbers")] = None,
    tensorboard: Annotated[bool, typer.Option("--tensorboard", help="also write TensorBoard's format")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON only")] = False,
) -> None:
    """Fine-tune the encoder.

    On a project's labels (--project) a worker that runs such jobs does it in the background, with the settings of
    CARCOND_FINETUNE_CONFIG; what it makes serves only if the gate does not find it worse (docs/finetune.md).

    On an exported set it runs here, fits heads as well, and all options apply (docs/train.md). The same command
    resumes one that was killed.

    Example: carcond finetune --project 1

    Example: carcond finetune --project 1 --status

    Example: carcond finetune export.json --photos photos --output trained --epochs 10 --freeze-until blocks.5
    """
    options = {
        "epochs": epochs,
        "batch_size": batch_size,
        "learning_rate": learning_rate,
        "image_size": image_size,
        "patience": patience,
        "freeze_until": freeze_until,
        "mixed_precision": mixed_precision,
        "loss_weights": parse_pairs(loss_weight or []) or None,
        "when_unmarked": parse_pairs(when_unmarked or []) or None,
        "seed": seed,
    }
    given = {key: value for key, value in options.items() if value is not None}
    if (export is None) == (project is None):
        raise typer.BadParameter("expected an export or --project, one of the two")
    if project is not None:
        if given or photos or output or config or backbone or weights or tensorboard:
            raise typer.BadParameter("training options belong to an export: a project has CARCOND_FINETUNE_CONFIG")
        _on_project(project, cancel, status, as_json)
        return
    if cancel or status:
        raise typer.BadParameter("--cancel and --status belong to --project")
    if export is None or photos is None:
        raise typer.BadParameter("expected the folder of the photos", param_hint="--photos")
    how = load_training_settings(config, given)
    network = (backbone or get_settings().backbone, weights or get_settings().backbone_weights)
    _on_export(export, photos, output or Path("trained"), how, network, tensorboard=tensorboard, as_json=as_json)


def _on_project(project: int, cancel: bool, status: bool, as_json: bool) -> None:
    if cancel and status:
        raise typer.BadParameter("expected --cancel or --status, got both")
    services, queue = get_services(), get_job_queue()
    check_project(services, project)
    services.pull_models(project)
    if cancel:
        if not cancel_finetuning(queue, project):
            raise TrainingError(f"project {project} has no fine-tuning under way")
    elif not status and not start_finetuning(queue, project, this_person()):
        raise TrainingError(
            f"a fine-tuning of project {project} is under way: see it with --status, or end it with --cancel"
        )
    facts = finetune_facts(services, queue, project)
    print(json.dumps(facts, indent=2) if as_json else finetune_text(facts))


def _on_export(
    export: Path,
    photos: Path,
    output: Path,
    how: TrainingSettings,
    network: tuple[str, str],
    *,
    tensorboard: bool,
    as_json: bool,
) -> None:
    check_packages("fine-tuning")
    # It imports torch, which takes seconds.
    from carcond.training.offline_training import OfflineTraining  # noqa: PLC0415

    settings = get_settings()
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
    requested = OfflineTraining(
        training, data, how, *network, output, settings.max_photo_pixels, settings.views, tensorboard, speaks
    )
    with training_bars(how.epochs) as (watch, progress):
        report: Mapping[str, Any] = requested.run(watch, progress)
    if speaks:
        print(json.dumps(report, indent=2, ensure_ascii=False) if as_json else outcome_table(report))
