"""Checkpoints of a training, written after each epoch: a killed run resumes from the last, with the same result.

A checkpoint is a directory `0003/` with `network.safetensors`, `optimizer.safetensors`, `best.safetensors` (the weights
of the best epoch so far) and `state.json`. The one before is removed when the next is complete.
"""

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from carcond.errors import TrainingError
from carcond.files import new_directory
from carcond.training.history import Epoch

Weights = dict[str, Tensor]


@dataclass(frozen=True)
class Checkpoint:
    """State of a training after an epoch.

    Attributes:
        history: of all epochs so far.
        network: its weights.
        best: the weights of the best epoch so far.
        optimizer: number of the parameter -> name -> value.
        scaler: state of the loss scaler of fp16; empty when there is none.
    """

    history: Sequence[Epoch]
    network: Weights
    best: Weights
    optimizer: Mapping[int, Weights]
    scaler: Mapping[str, Any]


class Checkpoints:
    """The checkpoints of one run, in a directory."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def save(self, checkpoint: Checkpoint) -> None:
        """Keep a checkpoint, and only this one.

        Raises:
            TrainingError: the disk is full or not writable; the checkpoint before is still there.
        """
        directory = self._directory / f"{checkpoint.history[-1].number:04d}"
        flat = {f"{i}.{name}": value for i, state in checkpoint.optimizer.items() for name, value in state.items()}
        state = {"history": [epoch.as_json() for epoch in checkpoint.history], "scaler": dict(checkpoint.scaler)}
        try:
            with new_directory(directory) as draft:
                save_file(_contiguous(checkpoint.network), draft / "network.safetensors")
                save_file(_contiguous(checkpoint.best), draft / "best.safetensors")
                save_file(_contiguous(flat), draft / "optimizer.safetensors")
                (draft / "state.json").write_text(json.dumps(state))
            for older in self._complete()[:-1]:
                shutil.rmtree(older)
        except (OSError, SafetensorError) as error:
            raise TrainingError(f"the checkpoint {directory} cannot be written: {error}") from error

    def load(self) -> Checkpoint | None:
        """The last checkpoint; None when there is none.

        Raises:
            TrainingError: it is damaged.
        """
        complete = self._complete()
        if not complete:
            return None
        directory = complete[-1]
        try:
            state = json.loads((directory / "state.json").read_text())
            optimizer: dict[int, Weights] = {}
            for name, value in load_file(directory / "optimizer.safetensors").items():
                number, _, key = name.partition(".")
                optimizer.setdefault(int(number), {})[key] = value
            return Checkpoint(
                [Epoch.from_json(epoch) for epoch in state["history"]],
                load_file(directory / "network.safetensors"),
                load_file(directory / "best.safetensors"),
                optimizer,
                state["scaler"],
            )
        except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
            raise TrainingError(f"{directory} is damaged ({error}): remove it, and the training begins anew") from error

    def remove(self) -> None:
        """Remove all checkpoints: the run is complete."""
        shutil.rmtree(self._directory, ignore_errors=True)

    def _complete(self) -> list[Path]:
        return sorted(path for path in self._directory.glob("*/") if path.name.isdigit())


def _contiguous(tensors: Weights) -> Weights:
    return {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
