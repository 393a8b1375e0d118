"""A process that fine-tunes and does nothing else: killed for want of memory, or cancelled, it takes nothing along.

    python -m carcond.finetuning.trainer DIRECTORY PARENT

DIRECTORY has `request.json` (see `TrainingRequest`). The process keeps `progress.json` there, and `outcome.json` at its
end; the encoder, if there is a new one, is under `models`. Started again, it goes on from the last epoch. PARENT is the
process that waits for it, without which it ends.
"""

import ctypes
import json
import os
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from carcond.encoder_card import Tuning
from carcond.errors import CarcondError, EncoderError
from carcond.files import replace_text
from carcond.finetuning.training_set import TrainingPhoto, TrainingSet
from carcond.finetuning.training_settings import TrainingSettings
from carcond.labels import MergedLabel
from carcond.split import TRAIN

REQUEST, PROGRESS, OUTCOME, MODELS = "request.json", "progress.json", "outcome.json", "models"

_PR_SET_PDEATHSIG = 1
_NICE = 10
# Progress is written at most so often.
_EVERY_SECONDS = 0.5
_NO_MEMORY = ("allocate memory", "out of memory", "bad_alloc")


class RequestedPhoto(BaseModel):
    """A labelled photo: task id, file, classes by task key, side of the split, group and source."""

    model_config = ConfigDict(frozen=True)

    task: int
    file: Path
    classes: dict[str, str]
    side: str
    group: int
    source: str


class TrainingRequest(BaseModel):
    """What is trained, on what, and how.

    Attributes:
        project: whose labels these are.
        base: id of the encoder that the training begins with.
        base_weights: hash of its weights, see `carcond.encoder_card.EncoderCard`.
        backbone: timm's name of the network.
        weights: where its weights are, see `carcond.finetuning.network_weights.load_backbone`.
        settings: of the training.
        max_pixels: limit of width x height of a photo.
        labels: how many photos of the project have a label.
        photos: those to train and to validate on; the hold-out is not among them.
    """

    model_config = ConfigDict(frozen=True)

    project: int
    base: str
    base_weights: str
    backbone: str
    weights: str
    settings: TrainingSettings
    max_pixels: int
    labels: int
    photos: tuple[RequestedPhoto, ...]

    def tuning(self) -> Tuning:
        """What the new encoder's card says."""
        trained_on = tuple(photo.task for photo in self.photos if photo.side == TRAIN)
        return Tuning(project=self.project, base=self.base, trained_on=trained_on, labels=self.labels)


def training_set(photos: Sequence[RequestedPhoto]) -> TrainingSet:
    """The photos as they are trained on."""
    return TrainingSet(
        [TrainingPhoto(str(p.task), p.file, MergedLabel(p.classes, {}, ()), p.side, p.group, p.source) for p in photos]
    )


def main(arguments: Sequence[str]) -> None:
    """Train, and write how it ended."""
    directory, parent = Path(arguments[0]), int(arguments[1])
    _stand_back(parent)
    request = TrainingRequest.model_validate_json((directory / REQUEST).read_bytes())
    try:
        outcome = _train(request, directory)
    except CarcondError as error:
        outcome = {"error": str(error), "out_of_memory": False}
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError) and not any(words in str(error).lower() for words in _NO_MEMORY):
            raise
        outcome = {"error": str(error).partition("\n")[0] or "no memory left", "out_of_memory": True}
    replace_text(directory / OUTCOME, json.dumps(outcome))


def _stand_back(parent: int) -> None:
    """Let serving go first, and be the one that goes when memory ends or the parent does."""
    os.nice(_NICE)
    if sys.platform != "linux":
        return
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it ended before the line above
        sys.exit("the process that asked for the training has ended")


def _train(request: TrainingRequest, directory: Path) -> Mapping[str, Any]:
    # Imported here: the parent reads this module too, and has no use for torch.
    from dataclasses import replace  # noqa: PLC0415

    from carcond.finetuning.finetune import finetune  # noqa: PLC0415
    from carcond.finetuning.network import weights_sha256  # noqa: PLC0415
    from carcond.finetuning.network_weights import load_backbone_or_fallback  # noqa: PLC0415
    from carcond.finetuning.training_loop import TrainingProgress  # noqa: PLC0415

    teller = _Teller(directory / PROGRESS)
    backbone = load_backbone_or_fallback(request.backbone, request.weights)
    if weights_sha256(backbone.module) != request.base_weights:
        raise EncoderError(
            f"expected the weights of {request.base}, the encoder in use, got {backbone.name} from "
            f"{backbone.weights_source}: set CARCOND_BACKBONE and CARCOND_BACKBONE_WEIGHTS as they were when "
            "`carcond encoder` made it, and let this machine reach them"
        )

    def watch(state: TrainingProgress) -> None:
        teller.tell(
            stage="training",
            done=state.step,
            total=state.steps,
            epoch=state.history[-1].number,
            epochs=request.settings.epochs,
            seconds_left=state.seconds_left,
        )

    made = finetune(
        training_set(request.photos),
        replace(backbone, tuning=request.tuning()),
        request.settings,
        directory / MODELS,
        directory / "unfinished",
        max_pixels=request.max_pixels,
        watch=watch,
        progress=lambda done, total: teller.tell(stage="encoding photos", done=done, total=total),
    )
    if made is None:
        raise RuntimeError("expected to be the only process of the training")
    return {"encoder_id": made.encoder_id if made.facts["best_epoch"] else None, "facts": dict(made.facts)}


class _Teller:
    """Writes down how far the training is."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._told = 0.0

    def tell(self, **progress: Any) -> None:
        if time.monotonic() - self._told >= _EVERY_SECONDS:
            self._told = time.monotonic()
            replace_text(self._path, json.dumps(progress))


if __name__ == "__main__":
    main(sys.argv[1:])
