"""Car detection with the ImageNet classifier that the backbone was pretrained with.

It is linear on the same embedding as our heads, so it is kept beside the encoder as `imagenet.safetensors` when the
encoder is made, and evaluated with one matrix product. A fine-tuned encoder has none: its embeddings have changed.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from carcond.errors import EncoderError

CAR_HEAD_NAME = "imagenet.safetensors"

CLASS_COUNT = 1000
"""Classes of ImageNet (ILSVRC 2012), on which backbones are pretrained."""

CAR_CLASSES = {
    407: "ambulance",
    436: "beach wagon",
    468: "cab",
    475: "car mirror",
    479: "car wheel",
    511: "convertible",
    555: "fire engine",
    569: "garbage truck",
    575: "golfcart",
    581: "grille",
    609: "jeep",
    627: "limousine",
    654: "minibus",
    656: "minivan",
    661: "Model T",
    675: "moving van",
    717: "pickup",
    734: "police van",
    751: "racer",
    757: "recreational vehicle",
    779: "school bus",
    785: "seat belt",
    803: "snowplow",
    817: "sports car",
    864: "tow truck",
    867: "trailer truck",
}
"""The classes that are cars or close views of their parts: number -> name."""


@dataclass(frozen=True)
class CarHead:
    """The classifier of a pretrained backbone.

    Attributes:
        weight: (1000, D).
        bias: (1000,).
        cars: numbers of the classes that are cars.
    """

    weight: NDArray[np.float32]
    bias: NDArray[np.float32]
    cars: tuple[int, ...] = tuple(CAR_CLASSES)

    def car_probability(self, embeddings: NDArray[np.float32]) -> NDArray[np.float32]:
        """Probability (N,) that the main thing in each photo is a car or a part of one.

        Args:
            embeddings: (N, D) of the encoder that this was kept beside.
        """
        logits = embeddings @ self.weight.T + self.bias
        shares = np.exp(logits - logits.max(axis=1, keepdims=True))
        probability: NDArray[np.float32] = shares[:, self.cars].sum(axis=1) / shares.sum(axis=1)
        return probability

    def save(self, directory: Path) -> None:
        """Write it into an encoder's directory."""
        tensors = {"weight": np.ascontiguousarray(self.weight), "bias": np.ascontiguousarray(self.bias)}
        save_file(tensors, directory / CAR_HEAD_NAME, metadata={"cars": ",".join(map(str, self.cars))})

    @classmethod
    def load(cls, directory: Path, dimension: int) -> "CarHead | None":
        """The classifier saved beside an encoder; None when there is none.

        Args:
            directory: of the encoder.
            dimension: length of its embeddings.

        Raises:
            EncoderError: the file is broken, or belongs to another encoder.
        """
        path = directory / CAR_HEAD_NAME
        if not path.exists():
            return None
        try:
            with safe_open(path, framework="numpy") as file:
                weight, bias = file.get_tensor("weight"), file.get_tensor("bias")
                cars = tuple(int(number) for number in (file.metadata() or {})["cars"].split(","))
        except (OSError, SafetensorError, KeyError, ValueError) as error:
            raise EncoderError(f"{path} cannot be read ({error}): remove {directory}, and make it again") from error
        if weight.shape != (CLASS_COUNT, dimension) or bias.shape != (CLASS_COUNT,) or max(cars) >= CLASS_COUNT:
            raise EncoderError(
                f"expected a weight {(CLASS_COUNT, dimension)} and a bias {(CLASS_COUNT,)} in {path}, got "
                f"{weight.shape} and {bias.shape}: remove {directory}, and make it again"
            )
        return cls(weight, bias, cars)
