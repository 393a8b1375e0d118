"""Linear heads on embeddings: what they tell of a photo, and how they are kept. `carcond.head_fitting` makes them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from carcond.errors import RegistryError
from carcond.taxonomy import TASK_BY_KEY, TASKS, Task

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]
DoubleArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

FORMAT = 1
"""Number of the file's format: raised when an older program could not read it rightly. Files without one are of 1."""

UNKNOWN = -1
"""Class index of a photo whose label for a task is not known: it is masked when that head is fitted."""


@dataclass(frozen=True)
class Head:
    """The linear head of one task.

    Attributes:
        task: what it tells.
        weight: ``(K, D)``.
        bias: ``(K,)``.
        temperature: logits are divided by it before the softmax (arXiv 1706.04599).
        cross_fitted: False when labels were too few to choose the temperature on unseen photos.
    """

    task: Task
    weight: FloatArray
    bias: FloatArray
    temperature: float
    cross_fitted: bool

    def logits(self, embeddings: FloatArray) -> FloatArray:
        """Uncalibrated logits ``(N, K)`` of embeddings ``(N, D)``."""
        return embeddings @ self.weight.T + self.bias

    def probabilities(self, embeddings: FloatArray) -> FloatArray:
        """Calibrated class probabilities ``(N, K)`` of embeddings ``(N, D)``."""
        return softmax(self.logits(embeddings) / np.float32(self.temperature))


@dataclass(frozen=True)
class Heads:
    """All fitted heads over one encoder. A task without two labelled classes has no head."""

    encoder_id: str
    by_task: Mapping[str, Head]

    def probabilities(self, embeddings: FloatArray) -> dict[str, FloatArray]:
        """Task key -> calibrated probabilities ``(N, K)`` of embeddings ``(N, D)``."""
        return {key: head.probabilities(embeddings) for key, head in self.by_task.items()}

    def save(self, path: Path) -> None:
        """Write a safetensors file."""
        tensors: dict[str, npt.NDArray[np.float32]] = {}
        for key, head in self.by_task.items():
            tensors[f"{key}.weight"] = np.ascontiguousarray(head.weight)
            tensors[f"{key}.bias"] = np.ascontiguousarray(head.bias)
            tensors[f"{key}.temperature"] = np.array([head.temperature], dtype=np.float32)
            tensors[f"{key}.cross_fitted"] = np.array([head.cross_fitted], dtype=np.float32)
        metadata = {"format": str(FORMAT), "encoder_id": self.encoder_id}
        metadata |= {f"{key}.classes": ",".join(head.task.class_keys) for key, head in self.by_task.items()}
        save_file(tensors, path, metadata=metadata)

    @classmethod
    def load(cls, path: Path) -> "Heads":
        """Read what `save` wrote.

        Raises:
            RegistryError: the file is missing, broken, of a newer format, or was written for other classes.
        """
        try:
            with safe_open(path, framework="numpy") as file:
                metadata = file.metadata() or {}
                _check_format(metadata, path)
                keys = [task.key for task in TASKS if f"{task.key}.weight" in file.keys()]  # noqa: SIM118 - no mapping
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except (OSError, SafetensorError) as error:
            raise RegistryError(f"heads cannot be read from {path}: {error}") from error
        if not keys:
            raise RegistryError(f"expected a head of {' or '.join(TASK_BY_KEY)} in {path}, got {sorted(tensors)}")
        return cls(metadata.get("encoder_id", ""), {key: _restore(key, tensors, metadata, path) for key in keys})


def _check_format(metadata: Mapping[str, str], path: Path) -> None:
    written = metadata.get("format", "1")
    if not written.isdecimal() or int(written) > FORMAT:
        raise RegistryError(
            f"expected heads of format {FORMAT} or older, {path} is of format {written!r}: a newer carcond wrote it. "
            "Run that one or a newer one"
        )


def _restore(key: str, tensors: Mapping[str, FloatArray], metadata: Mapping[str, str], path: Path) -> Head:
    task = TASK_BY_KEY[key]
    written = tuple(metadata.get(f"{key}.classes", "").split(","))
    if written != task.class_keys:
        raise RegistryError(
            f"{path} was written for the classes {written} of {key}, this program has {task.class_keys}"
        )
    names = ("weight", "bias", "temperature", "cross_fitted")
    missing = [name for name in names if f"{key}.{name}" not in tensors]
    if missing:
        raise RegistryError(f"the head of {key} in {path} is incomplete: {', '.join(missing)} not found")
    weight, bias, temperature, cross_fitted = (tensors[f"{key}.{name}"] for name in names)
    count = len(task.classes)
    if weight.ndim != 2 or len(weight) != count or bias.shape != (count,) or not np.all(temperature > 0):
        raise RegistryError(
            f"expected {key}.weight ({count}, D), {key}.bias ({count},) and a temperature above 0 in {path}, "
            f"got {weight.shape}, {bias.shape} and {temperature}"
        )
    return Head(task, weight, bias, float(temperature[0]), bool(cross_fitted[0]))


def softmax(logits: FloatArray) -> FloatArray:
    """Softmax over the last axis, safe against overflow."""
    shifted = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return np.asarray(shifted / shifted.sum(axis=-1, keepdims=True), dtype=np.float32)


def joint_confidence(probabilities: Mapping[str, FloatArray], tasks: Sequence[Task] = TASKS) -> FloatArray:
    """Probability that the pre-labels of all tasks are right together, ``(N,)``, lower = less sure.

    The product over tasks of the greatest class probability. A task without a head counts as a
    guess among its classes, so that a model that knows half the answer never looks sure.
    """
    if not probabilities:
        raise ValueError("expected probabilities of at least one task, got none")
    product = np.ones(len(next(iter(probabilities.values()))), dtype=np.float32)
    for task in tasks:
        if task.key in probabilities:
            product *= probabilities[task.key].max(axis=1)
        else:
            product /= len(task.classes)
    return product
