"""Linear heads on embeddings: class probabilities, and the file they are kept in."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from carcond.arrays import FloatArray, IntArray, softmax
from carcond.errors import RegistryError
from carcond.store.embedding_matrix import Embeddings, blocks_of
from carcond.taxonomy import TASK_BY_KEY, TASKS, Task

FORMAT = 1
"""Number of the file's format: raised when an older program could not read it rightly. Files without one are of 1."""

# Far beyond what fitting gives; within them no logit overflows, and probabilities are finite.
_MAX_PARAMETER = 1e12
_TEMPERATURES = (1e-6, 1e6)


@dataclass(frozen=True)
class Head:
    """The linear head of one task.

    Attributes:
        task: the predicted task.
        weight: ``(K, D)``.
        bias: ``(K,)``.
        temperature: logits are divided by it before the softmax (arXiv 1706.04599).
        cross_fitted: False when labels were too few to choose the temperature on unseen photos.
        fold_temperatures: ``(F,)``, temperatures that were each chosen without one fold of the hold-out, see
            `holdout_folds`; None when the temperature was chosen without the hold-out.
        temperature_photos: numbers of training and of hold-out photos that the temperature was chosen on; the version
            card keeps them, and of heads read from a file they are None.
    """

    task: Task
    weight: FloatArray
    bias: FloatArray
    temperature: float
    cross_fitted: bool
    fold_temperatures: FloatArray | None = None
    temperature_photos: tuple[int, int] | None = None

    def logits(self, embeddings: FloatArray) -> FloatArray:
        """Uncalibrated logits ``(N, K)`` of embeddings ``(N, D)``."""
        return embeddings @ self.weight.T + self.bias

    def probabilities(self, embeddings: FloatArray) -> FloatArray:
        """Calibrated class probabilities ``(N, K)`` of embeddings ``(N, D)``."""
        return softmax(self.logits(embeddings) / np.float32(self.temperature))

    def holdout_probabilities(self, embeddings: FloatArray, groups: IntArray) -> FloatArray:
        """Class probabilities ``(N, K)`` of hold-out photos, each by a temperature that was chosen without its label.

        Args:
            embeddings: ``(N, D)``.
            groups: ``(N,)``, the numbers that the photos' groups have for ever.
        """
        if self.fold_temperatures is None:
            return self.probabilities(embeddings)
        temperatures = self.fold_temperatures[holdout_folds(groups, len(self.fold_temperatures))]
        return softmax(self.logits(embeddings) / temperatures[:, np.newaxis])


def holdout_folds(groups: IntArray, count: int) -> IntArray:
    """Fold numbers ``(N,)`` of hold-out photos.

    They follow from a photo's group alone. So a photo is in the same fold of all versions, also of those that were
    fitted before it was labelled.
    """
    return groups % count


@dataclass(frozen=True)
class Heads:
    """All fitted heads over one encoder. A task without two labelled classes has no head."""

    encoder_id: str
    by_task: Mapping[str, Head]

    def probabilities(self, embeddings: Embeddings) -> dict[str, FloatArray]:
        """Task key -> calibrated probabilities ``(N, K)`` of embeddings ``(N, D)``."""
        parts: dict[str, list[FloatArray]] = {key: [] for key in self.by_task}
        for block in blocks_of(embeddings):
            for key, head in self.by_task.items():
                parts[key].append(head.probabilities(block))
        return {key: np.concatenate(rows) for key, rows in parts.items()}

    def save(self, path: Path) -> None:
        """Write a safetensors file."""
        tensors: dict[str, npt.NDArray[np.float32]] = {}
        for key, head in self.by_task.items():
            tensors[f"{key}.weight"] = np.ascontiguousarray(head.weight)
            tensors[f"{key}.bias"] = np.ascontiguousarray(head.bias)
            tensors[f"{key}.temperature"] = np.array([head.temperature], dtype=np.float32)
            tensors[f"{key}.cross_fitted"] = np.array([head.cross_fitted], dtype=np.float32)
            if head.fold_temperatures is not None:
                tensors[f"{key}.fold_temperatures"] = head.fold_temperatures
        metadata = {"format": str(FORMAT), "encoder_id": self.encoder_id}
        metadata |= {f"{key}.classes": ",".join(head.task.class_keys) for key, head in self.by_task.items()}
        save_file(tensors, path, metadata=metadata)

    @classmethod
    def load(cls, path: Path) -> "Heads":
        """Read what `save` wrote.

        Raises:
            RegistryError: the file is missing, broken, of a newer format, or was written for other classes; or its
                numbers are none that fitting gives.
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
        by_task = {key: _restore(key, tensors, metadata, path) for key in keys}
        if len({head.weight.shape[1] for head in by_task.values()}) > 1:
            shapes = ", ".join(f"{key} {head.weight.shape}" for key, head in by_task.items())
            raise RegistryError(f"expected weights over embeddings of one length in {path}, got {shapes}")
        return cls(metadata.get("encoder_id", ""), by_task)


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
    shapes = [tensor.shape for tensor in (bias, temperature, cross_fitted)]
    if weight.ndim != 2 or len(weight) != count or weight.size == 0 or shapes != [(count,), (1,), (1,)]:
        raise RegistryError(
            f"expected {key}.weight ({count}, D), {key}.bias ({count},) and one {key}.temperature and "
            f"{key}.cross_fitted in {path}, got the shapes {', '.join(map(str, [weight.shape, *shapes]))}"
        )
    folds = tensors.get(f"{key}.fold_temperatures")  # versions of before the hold-out was calibrated on have none
    if folds is not None and (folds.ndim != 1 or folds.size == 0):
        raise RegistryError(f"expected {key}.fold_temperatures (F,) in {path}, got the shape {folds.shape}")
    temperatures = [temperature] if folds is None else [temperature, folds]
    _check_numbers(key, (weight, bias, cross_fitted), np.concatenate(temperatures), path)
    return Head(task, weight, bias, float(temperature[0]), bool(cross_fitted[0]), folds)


def _check_numbers(key: str, tensors: Sequence[FloatArray], temperatures: FloatArray, path: Path) -> None:
    """Refuse numbers that would give probabilities that are none: a damaged file may hold any."""
    types = {tensor.dtype.name for tensor in (*tensors, temperatures)}
    if types != {"float32"}:
        raise RegistryError(f"expected numbers of type float32 for {key} in {path}, got {', '.join(sorted(types))}")
    weight, bias, _ = tensors
    least, most = _TEMPERATURES
    # Written so that NaN is refused, too.
    if not (np.abs(weight).max() <= _MAX_PARAMETER and np.abs(bias).max() <= _MAX_PARAMETER):
        raise RegistryError(
            f"expected {key}.weight and {key}.bias in {path} to be finite and at most {_MAX_PARAMETER:g} in size, "
            f"got up to {np.abs(weight).max()} and {np.abs(bias).max()}: the file is damaged"
        )
    if not (least <= temperatures.min() and temperatures.max() <= most):
        raise RegistryError(
            f"expected temperatures of {key} between {least:g} and {most:g} in {path}, "
            f"got {', '.join(map(str, temperatures))}: the file is damaged"
        )


def joint_confidence(probabilities: Mapping[str, FloatArray], tasks: Sequence[Task] = TASKS) -> FloatArray:
    """Probability that the pre-labels of all tasks are right together, ``(N,)``, lower = less certain.

    The product over tasks of the greatest class probability. A task without a head counts as a
    guess among its classes, so that a model without one of the heads never seems certain.
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
