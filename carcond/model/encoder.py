"""The encoder: from pixels to embeddings and feature maps, in ONNX Runtime.

An encoder is a directory `models/encoders/<encoder_id>/` with `encoder.onnx`, `encoder.json` and perhaps
`imagenet.safetensors` (see `carcond.model.car_detector`); which one is in use stands in `models/encoders/current`.
`carcond.training.network` makes such encoders.
"""

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from carcond.data.images import InputSpec, decode_photo, to_pixels
from carcond.errors import EncoderError
from carcond.files import replace_text
from carcond.model.car_detector import CarHead
from carcond.model.encoder_card import ONNX_NAME, EncoderCard, EncoderRequest, file_sha256, read_card

logger = logging.getLogger(__name__)

BATCH_SIZE = 8
"""Tiles of photos per run of the network; more at once are not faster."""

_CURRENT_NAME = "current"


@dataclass(frozen=True)
class Encoding:
    """Outputs of the encoder for N photos.

    Attributes:
        embeddings: (N, D).
        feature_maps: (N, D, h, w); their mean over h and w is the embedding.
    """

    embeddings: NDArray[np.float32]
    feature_maps: NDArray[np.float32]


class Encoder:
    """A frozen backbone, ready to encode photos. Threads may share it.

    Attributes:
        card: from `encoder.json`.
        car_head: classifier of cars and other objects; None when there is none beside the encoder.
    """

    def __init__(self, session: ort.InferenceSession, card: EncoderCard, car_head: CarHead | None = None) -> None:
        self._session = session
        self.card = card
        self.car_head = car_head

    @classmethod
    def load(cls, directory: Path, threads: int = 0) -> "Encoder":
        """Load an encoder from its directory.

        Args:
            directory: holds `encoder.onnx` and `encoder.json`.
            threads: number of CPU threads; 0 means all cores.

        Raises:
            EncoderError: a file is missing, damaged, or not the one that `encoder.json` describes.
        """
        card = read_card(directory)
        path = directory / ONNX_NAME
        if (found := file_sha256(path)) != card.onnx_sha256:
            raise EncoderError(
                f"{path} is damaged: expected SHA-256 {card.onnx_sha256}, got {found}; "
                f"remove {directory} and make the encoder again"
            )
        return cls(_open_session(path, threads), card, CarHead.load(directory, card.dimension))

    def with_network(self, onnx_file: Path, threads: int = 0) -> "Encoder":
        """The same encoder with another file of its network, to be compared with this one.

        Raises:
            EncoderError: ONNX Runtime cannot run the file.
        """
        return Encoder(_open_session(onnx_file, threads), self.card, self.car_head)

    @property
    def encoder_id(self) -> str:
        """Identifier: only embeddings of equal id are comparable and can share heads."""
        return self.card.encoder_id

    @property
    def backbone(self) -> str:
        """The name of the network in timm."""
        return self.card.backbone

    @property
    def weights_source(self) -> str:
        """Source of the weights, in words."""
        return self.card.weights_source

    @property
    def spec(self) -> InputSpec:
        """Input size and normalisation."""
        return self.card.input

    @property
    def dimension(self) -> int:
        """Length of an embedding."""
        return self.card.dimension

    @property
    def batch_size(self) -> int:
        """Number of photos per run of the network."""
        return max(1, BATCH_SIZE // self.card.tiles)

    @cached_property
    def map_shape(self) -> tuple[int, int]:
        """Height and width of a feature map."""
        height, width = self._session.get_outputs()[1].shape[2:]
        return height, width

    def encode(self, pixels: NDArray[np.float32]) -> Encoding:
        """Embeddings and feature maps of photos.

        Args:
            pixels: (N, 3, size, size) from `carcond.data.images.to_pixels`; N may be 0.

        Raises:
            EncoderError: the array has another shape or type.
        """
        embeddings = np.empty((len(pixels), self.dimension), np.float32)
        feature_maps = np.empty((len(pixels), self.dimension, *self.map_shape), np.float32)
        for batch in self._batches(pixels):
            embeddings[batch], feature_maps[batch] = self._run(["embedding", "feature_map"], pixels[batch])
        return Encoding(embeddings, feature_maps)

    def embed(self, pixels: NDArray[np.float32]) -> NDArray[np.float32]:
        """Embeddings (N, D) of photos, without the feature maps.

        Args:
            pixels: (N, 3, size, size) from `carcond.data.images.to_pixels`; N may be 0.

        Raises:
            EncoderError: the array has another shape or type.
        """
        embeddings = np.empty((len(pixels), self.dimension), np.float32)
        for batch in self._batches(pixels):
            (embeddings[batch],) = self._run(["embedding"], pixels[batch])
        return embeddings

    def embed_photo(self, data: bytes, max_pixels: int) -> NDArray[np.float32]:
        """Embedding (D,) of one photo, from the bytes of its file.

        Args:
            data: the file; see `carcond.data.images.decode_photo`.
            max_pixels: limit of width x height.

        Raises:
            UnreadableImageError: the bytes are no photo, or one too large.
        """
        image = decode_photo(data, target=self.spec.size, max_pixels=max_pixels)
        embedding: NDArray[np.float32] = self.embed(to_pixels(image, self.spec)[np.newaxis])[0]
        return embedding

    def _batches(self, pixels: NDArray[np.float32]) -> Iterator[slice]:
        expected = (3, self.spec.size, self.spec.size)
        if pixels.shape[1:] != expected or pixels.dtype != np.float32:
            raise EncoderError(
                f"expected float32 pixels of shape (N, 3, {self.spec.size}, {self.spec.size}), "
                f"got {pixels.dtype} {pixels.shape}"
            )
        for start in range(0, len(pixels), self.batch_size):
            yield slice(start, start + self.batch_size)

    def _run(self, outputs: list[str], pixels: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        try:
            results: list[NDArray[np.float32]] = self._session.run(outputs, {"pixels": pixels})
        except Exception as error:  # ONNX Runtime's exceptions share no base below Exception
            raise EncoderError(f"{self.encoder_id} cannot be run by ONNX Runtime: {error}") from error
        return results


def _open_session(path: Path, threads: int) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # A thread that spins while it waits takes a core from the other processes of this machine.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    try:
        return ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's exceptions share no base below Exception
        raise EncoderError(f"{path} cannot be run by ONNX Runtime: {error}") from error


def encoders_dir(models_dir: Path) -> Path:
    """Directory of the encoders inside a models directory."""
    return models_dir / "encoders"


def list_encoders(models_dir: Path) -> list[EncoderCard]:
    """Cards of all encoders, oldest first; damaged ones are left out.

    Args:
        models_dir: home of all models; it may be missing.
    """
    cards = []
    for directory in encoders_dir(models_dir).glob("[!.]*/"):
        try:
            cards.append(read_card(directory))
        except EncoderError as error:
            logger.warning("Leaving out an encoder: %s", error)
    return sorted(cards, key=lambda card: (card.created, card.encoder_id))


def find_encoder(models_dir: Path) -> Path:
    """Directory of the encoder in use.

    Args:
        models_dir: home of all models.

    Raises:
        EncoderError: none was made yet, or the one in use is gone.
    """
    current = encoders_dir(models_dir) / _CURRENT_NAME
    try:
        encoder_id = current.read_text(encoding="utf-8").strip()
    except OSError as error:
        raise EncoderError(
            f"no encoder is in use: {current} cannot be read ({error.strerror}); make one with `carcond encoder`"
        ) from error
    return encoder_directory(models_dir, encoder_id)


def encoder_directory(models_dir: Path, encoder_id: str) -> Path:
    """Directory of the encoder with an id, for callers whose heads were fitted on this encoder.

    Raises:
        EncoderError: there is none of this id.
    """
    directory = encoders_dir(models_dir) / encoder_id
    if not encoder_id or directory.parent != encoders_dir(models_dir) or not (directory / ONNX_NAME).is_file():
        raise EncoderError(f"there is no encoder {encoder_id!r} in {encoders_dir(models_dir)}: run `carcond encoder`")
    return directory


def use_encoder(models_dir: Path, encoder_id: str) -> None:
    """Make an encoder the one in use.

    Raises:
        EncoderError: there is none of this id.
    """
    encoder_directory(models_dir, encoder_id)
    current = encoders_dir(models_dir) / _CURRENT_NAME
    if not current.is_file() or current.read_text(encoding="utf-8").strip() != encoder_id:
        replace_text(current, encoder_id + "\n")


def fitting_encoder(models_dir: Path, request: EncoderRequest) -> EncoderCard | None:
    """The encoder in use if it was made for this request, or fine-tuned from one that was; else None.

    A fallback for an unavailable encoder matches too; its `fallback_reason` gives the cause.

    Args:
        models_dir: home of all models.
        request: from `carcond.model.encoder_card.encoder_request`.
    """
    try:
        card = read_card(find_encoder(models_dir))
    except EncoderError:  # none yet, or a broken one: to the caller both mean that one has to be made
        return None
    return card if card.request == request else None
