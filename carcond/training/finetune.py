"""Fine-tune an encoder on labelled photos, and fit heads on its new embeddings.

The heads are fitted on the frozen backbone first, and all layers trained from there (LP-FT, arXiv 2202.10054). The
trained backbone becomes an encoder, its heads are fitted again on the embeddings that are served, and the result is
compared with the frozen encoder on the same photos.
"""

import resource
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from safetensors.torch import load_file, save_file
from torch import Tensor

from carcond.arrays import UNKNOWN, FloatArray
from carcond.data.split import TRAIN
from carcond.errors import TrainingError
from carcond.evaluation.gate import compare
from carcond.evaluation.report_card import report_card
from carcond.model.embedding_cache import embed_files
from carcond.model.encoder import Encoder
from carcond.model.heads import Heads
from carcond.training.checkpoint import Checkpoints
from carcond.training.dataset import VALIDATION, TrainingSet
from carcond.training.frozen_stages import split_backbone
from carcond.training.heads import calibrate, fit_train_side
from carcond.training.history import Epoch, best_epoch
from carcond.training.inputs import Inputs, KeptActivations, PhotoInputs
from carcond.training.loop import TrainingData, TrainingLoop, Watch, make_accelerator
from carcond.training.network import TwoHeadNetwork, export_encoder
from carcond.training.pretrained_weights import Backbone
from carcond.training.settings import TrainingSettings

Progress = Callable[[int, int], None]
"""Progress callback, called with the number done and the total."""


@dataclass(frozen=True)
class FineTuned:
    """Result of a fine-tuning.

    Attributes:
        encoder_id: the new encoder, in the given models directory.
        heads: fitted on its embeddings of the training photos, calibrated on the validation photos.
        weights: of the backbone, by timm's names: a later training can start from them.
        card: facts for a model version's card.
        labels: a row for each photo, as a model version keeps them.
        history: of all epochs.
        facts: JSON-ready, see `finetune`.
    """

    encoder_id: str
    heads: Heads
    weights: Mapping[str, Tensor]
    card: Mapping[str, Any]
    labels: Sequence[Mapping[str, Any]]
    history: Sequence[Epoch]
    facts: Mapping[str, Any]


def finetune(
    training: TrainingSet,
    backbone: Backbone,
    settings: TrainingSettings,
    models_dir: Path,
    work_dir: Path,
    *,
    max_pixels: int,
    watch: Watch,
    progress: Progress,
) -> FineTuned | None:
    """Fine-tune a backbone. Killed and called again with the same arguments, it resumes from the last epoch.

    Args:
        training: photos and labels.
        backbone: trained in place; from `carcond.training.pretrained_weights`.
        settings: how.
        models_dir: the new encoder is written there, see `carcond.training.network.export_encoder`, but not put in
            use.
        work_dir: checkpoints and all else that is needed until the result is kept; shared by all processes.
        max_pixels: limit of width x height of a photo.
        watch: progress callback of the training; an exception from it ends the training.
        progress: called with the number of photos encoded, before and after the training.

    Returns:
        In the main process, the result. Its `facts`: `encoder_id`, `backbone`, `weights_source`, `best_epoch` (0:
        the frozen backbone was best), `epochs`, `measured_on` (the split), `tasks`: task key -> figures of the
        new encoder with its heads; `frozen`: the same of the frozen encoder with heads of its own; `against_frozen`:
        task key -> the paired comparison of both (`carcond.evaluation.gate.compare`); `train_accuracy`: task key ->
        share of right answers of the trained network on its training photos; `seconds`, `peak_memory_mb`. None in other
        processes.

    Raises:
        TrainingError: the settings or the labels do not allow it.
        EncoderError: the backbone's views do not fit the image size.
    """
    started = time.monotonic()
    backbone = backbone.resized(settings.image_size or backbone.spec.size)
    classes, train = training.classes(), training.positions(TRAIN)
    if not any(len(np.unique(each[train][each[train] != UNKNOWN])) >= 2 for each in classes.values()):
        raise TrainingError(f"expected labels of at least two classes of one task in {len(train)} training photos")
    work_dir.mkdir(parents=True, exist_ok=True)
    accelerator = make_accelerator(settings)
    torch.manual_seed(settings.seed)  # layers with random initial weights
    inputs, trained = _inputs(
        training, backbone, settings, accelerator, work_dir, max_pixels=max_pixels, progress=progress
    )
    network = TwoHeadNetwork(trained, settings.dropout)
    data = TrainingData(inputs, classes, train, training.positions(VALIDATION))
    loop = TrainingLoop(network, data, settings, accelerator)
    before = _frozen_embeddings(loop, len(training.photos), accelerator, work_dir / "frozen.safetensors")
    frozen = fit_train_side(f"frozen {backbone.name}", training, before)
    if settings.linear_probe:
        network.adopt(frozen)
    history = loop.run(Checkpoints(work_dir / "checkpoints"), watch)
    train_accuracy = loop.measure(train).accuracy
    # Nothing is exchanged from here on. Without this a process may be aborted by its end while another goes on.
    accelerator.wait_for_everyone()
    accelerator.end_training()
    if not accelerator.is_main_process:
        return None
    network.cpu().to(memory_format=torch.contiguous_format)
    source = f"fine-tuned on {len(train)} photos from {backbone.weights_source}"
    directory = export_encoder(replace(backbone, weights_source=source, car_head=None), models_dir)
    encoder = Encoder.load(directory)
    after = embed_files(encoder, training.files, models_dir / "cache", max_pixels, progress).embeddings
    heads = calibrate(fit_train_side(encoder.encoder_id, training, after), training, after)
    card = _card(training, heads, after, encoder)
    facts = {
        "encoder_id": encoder.encoder_id,
        "backbone": backbone.name,
        "weights_source": source,
        "best_epoch": best_epoch(history),
        "epochs": history[-1].number,
        "measured_on": training.measured_side(),
        "tasks": _figures(card),
        "frozen": _figures(report_card(training.labelled(before), frozen)),
        "against_frozen": _comparisons(training, (frozen, before), (heads, after)),
        "train_accuracy": train_accuracy,
        "seconds": round(time.monotonic() - started, 1),
        "peak_memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }
    return FineTuned(
        encoder.encoder_id, heads, backbone.module.state_dict(), card, _label_rows(training), history, facts
    )


def _inputs(
    training: TrainingSet,
    backbone: Backbone,
    settings: TrainingSettings,
    accelerator: Accelerator,
    work_dir: Path,
    *,
    max_pixels: int,
    progress: Progress,
) -> tuple[Inputs, Backbone]:
    """Inputs of the training, and the part of the backbone that takes them."""
    photos = PhotoInputs(training.files, backbone.spec, settings.augmentation, max_pixels, settings.seed)
    if settings.freeze_until is None:
        return photos, backbone
    if accelerator.num_processes > 1:
        raise TrainingError("freeze_until is for one process: start without torchrun, or train all layers")
    stages, trained = split_backbone(backbone, settings.freeze_until)
    train, path = training.positions(TRAIN), work_dir / "activations.npy"
    kept = KeptActivations.make(path, stages, photos, train, settings.kept_views, progress=progress)
    return kept, trained


def _frozen_embeddings(loop: TrainingLoop, count: int, accelerator: Accelerator, kept: Path) -> FloatArray:
    """Embeddings of all photos by the backbone before training, also in a resumed run."""
    there = kept.exists()
    accelerator.wait_for_everyone()  # no process writes it before all have checked for it
    if there:
        return np.asarray(load_file(kept)["embeddings"].numpy())
    embeddings = loop.embeddings(np.arange(count))
    if accelerator.is_main_process:
        unfinished = kept.with_name(f".{kept.name}")
        save_file({"embeddings": torch.from_numpy(embeddings)}, unfinished)
        unfinished.rename(kept)
    return embeddings


def _card(training: TrainingSet, heads: Heads, embeddings: FloatArray, encoder: Encoder) -> dict[str, Any]:
    card = report_card(training.labelled(embeddings), heads)
    validation = training.positions(VALIDATION)
    for task, facts in card["calibration"].items():
        known = training.classes()[task][validation] != UNKNOWN
        facts["photos"] = int(known.sum()) if facts["cross_fitted"] else 0
    return {
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "encoder_id": encoder.encoder_id,
        "backbone": encoder.backbone,
        "weights_source": encoder.weights_source,
        **card,
    }


def _figures(card: Mapping[str, Any]) -> dict[str, Any]:
    figures = {
        task: {
            "photos": measured["photos"],
            "accuracy": measured["accuracy"],
            "macro_f1": measured["macro_f1"],
            "ece": measured["after"]["ece"],
        }
        for task, measured in card["holdout"].items()
    }
    return {**figures, "combined": card["combined"]}


def _comparisons(
    training: TrainingSet, frozen: tuple[Heads, FloatArray], tuned: tuple[Heads, FloatArray]
) -> dict[str, Any]:
    compared = {}
    positions = training.positions(training.measured_side())
    for task, indices in training.classes().items():
        known = positions[indices[positions] != UNKNOWN]
        if task in frozen[0].by_task and task in tuned[0].by_task and len(known) >= 2:
            before, after = (heads.by_task[task].probabilities(seen[known]) for heads, seen in (frozen, tuned))
            figures = compare(before, after, indices[known])
            compared[task] = {"photos": len(known), **{name: vars(each) for name, each in figures.items()}}
    return compared


def _label_rows(training: TrainingSet) -> list[dict[str, Any]]:
    return [
        {
            "photo": photo.name,
            "side": photo.side,
            "classes": dict(photo.label.classes),
            "agreement": dict(photo.label.agreement),
            "ties": list(photo.label.ties),
        }
        for photo in training.photos
    ]
