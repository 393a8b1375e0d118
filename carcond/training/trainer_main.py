"""Process for one fine-tuning: when the OOM killer or a cancellation ends it, the worker keeps running.

    python -m carcond.training.trainer_main DIRECTORY PARENT

DIRECTORY has `request.json` (see `carcond.training.request`). The process keeps `progress.json` there, and
`outcome.json` at its end; the encoder, if there is a new one, is under `models`. Started again, it resumes after the
last epoch. PARENT is the process that waits for it, without which it ends.
"""

import ctypes
import json
import os
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from carcond.errors import CarcondError, EncoderError
from carcond.files import replace_text
from carcond.training.finetune import finetune
from carcond.training.loop import TrainingProgress
from carcond.training.network import weights_sha256
from carcond.training.pretrained_weights import load_backbone_or_fallback
from carcond.training.request import MODELS, OUTCOME, PROGRESS, REQUEST, TrainingRequest, training_set

_PR_SET_PDEATHSIG = 1
_NICE = 10
# Minimum interval between two writes of the progress, in seconds.
_EVERY_SECONDS = 0.5
_NO_MEMORY = ("allocate memory", "out of memory", "bad_alloc")


def main(arguments: Sequence[str]) -> None:
    """Train, and write the outcome."""
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
    """Yield to serving, be the first victim of the OOM killer, and end with the parent."""
    os.nice(_NICE)
    if sys.platform != "linux":
        return
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it ended before the line above
        sys.exit("the process that asked for the training has ended")


def _train(request: TrainingRequest, directory: Path) -> Mapping[str, Any]:
    progress_file = _ProgressFile(directory / PROGRESS)
    backbone = load_backbone_or_fallback(request.backbone, request.weights, request.views)
    if weights_sha256(backbone.module) != request.base_weights:
        raise EncoderError(
            f"expected the weights of {request.base}, the encoder in use, got {backbone.name} from "
            f"{backbone.weights_source}: set CARCOND_BACKBONE and CARCOND_BACKBONE_WEIGHTS as they were when "
            "`carcond encoder` made it, and let this machine reach them"
        )

    def watch(state: TrainingProgress) -> None:
        progress_file.report(
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
        progress=lambda done, total: progress_file.report(stage="encoding photos", done=done, total=total),
    )
    if made is None:
        raise RuntimeError("expected to be the only process of the training")
    return {"encoder_id": made.encoder_id if made.facts["best_epoch"] else None, "facts": dict(made.facts)}


class _ProgressFile:
    """Writes the progress of the training."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._told = 0.0

    def report(self, **progress: Any) -> None:
        if time.monotonic() - self._told >= _EVERY_SECONDS:
            self._told = time.monotonic()
            replace_text(self._path, json.dumps(progress))


if __name__ == "__main__":
    main(sys.argv[1:])
