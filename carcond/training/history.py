"""Metrics of a training by epoch."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Measured:
    """Metrics of a network on photos.

    Attributes:
        loss: weighted sum over tasks; None when no photo has a label.
        accuracy: task key -> share of right answers; a task without a label is absent.
        combined: share of photos labelled for each task of which all answers are right; None without such photos.
    """

    loss: float | None
    accuracy: dict[str, float]
    combined: float | None


@dataclass(frozen=True)
class Epoch:
    """One epoch.

    Attributes:
        number: 1 for the first; 0 is the network before any training.
        train: on the augmented photos, while the weights changed; None for epoch 0.
        validation: on the validation photos without augmentation, after the epoch.
        learning_rate: of the epoch's last step.
        seconds: duration of the epoch, with its validation.
    """

    number: int
    train: Measured | None
    validation: Measured
    learning_rate: float
    seconds: float

    def as_json(self) -> dict[str, Any]:
        """JSON-ready."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "Epoch":
        """Read the output of `as_json`."""
        train = values["train"]
        validation = Measured(**values["validation"])
        return cls(**{**values, "train": Measured(**train) if train else None, "validation": validation})


def best_epoch(history: Sequence[Epoch]) -> int:
    """Number of the epoch with the lowest validation loss, the first of equals; the last one when none has a loss."""
    measured = [epoch for epoch in history if epoch.validation.loss is not None]
    if not measured:
        return history[-1].number
    return min(measured, key=lambda epoch: epoch.validation.loss or 0.0).number


def is_exhausted(history: Sequence[Epoch], patience: int) -> bool:
    """True after `patience` epochs without a better validation loss; never with a patience of 0."""
    return bool(patience) and history[-1].number - best_epoch(history) >= patience
