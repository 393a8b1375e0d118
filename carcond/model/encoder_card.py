"""An encoder on disk: `encoder.onnx`, and `encoder.json`, the card that describes it."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from carcond.data.images import InputSpec
from carcond.errors import EncoderError
from carcond.files import new_directory, replace_text
from carcond.model.car_detector import CarHead

ONNX_NAME = "encoder.onnx"
CARD_NAME = "encoder.json"
FORMAT = 1
"""Number of the card's format: raised when an older program could not read it rightly. Cards without one are of 1."""

ONE_VIEW = (224,)
"""The view of a request that names none: the whole photo at 224 x 224 pixels."""


class EncoderRequest(BaseModel):
    """The requested encoder.

    Attributes:
        backbone: timm's name of the network.
        weights: "hub", "random", or the SHA-256 of the weights file (see `encoder_request`).
        views: sides of the views of a photo, in pixels (see `carcond.settings.check_views`).
    """

    model_config = ConfigDict(frozen=True)

    backbone: str
    weights: str
    views: tuple[int, ...] = ONE_VIEW


class Tuning(BaseModel):
    """Provenance of an encoder fine-tuned on the labels of a project, which only this project uses.

    Attributes:
        project: number of the project.
        base: id of the encoder that the training began with.
        trained_on: task ids of the photos that its weights were fitted on, which it fits better than unseen ones.
        labels: number of labelled photos of the project when the training began.
    """

    model_config = ConfigDict(frozen=True)

    project: int
    base: str
    trained_on: tuple[int, ...]
    labels: int


class TaskAgreement(BaseModel):
    """Answers of one task on a quantized encoder, compared with those on the encoder that it was made from.

    Attributes:
        photos: number of photos that both answered.
        agreement: share of them with the same most probable class, 0..1.
        labels: number of them that have a hold-out label of the task.
        base_error: calibration error of the encoder that it was made from, on these labels, 0..1; see
            `carcond.evaluation.calibration.calibration_error`.
        error: calibration error of the quantized encoder.
    """

    model_config = ConfigDict(frozen=True)

    photos: int
    agreement: float
    labels: int
    base_error: float
    error: float


class EncoderComparison(BaseModel):
    """Comparison of a quantized encoder with the one that it was made from, on photos of a project.

    Attributes:
        tasks: task key -> comparison of the answers of one version's heads.
        base_ms: median time to encode a photo on the encoder that it was made from, in ms, in batches of
            `carcond.model.encoder.BATCH_SIZE`.
        ms: the same on the quantized encoder, measured alternately.
    """

    model_config = ConfigDict(frozen=True)

    tasks: dict[str, TaskAgreement]
    base_ms: float
    ms: float


class Quantization(BaseModel):
    """Provenance of a quantized encoder, which only the project that it was compared on uses.

    Attributes:
        project: number of the project.
        base: id of the encoder that it was made from.
        version: name of the version whose heads answered in the comparison.
        number_type: type of weights and activations of the quantized layers.
        convolutions: number of convolutions of the network.
        float_convolutions: number of the first of them that stayed in fp32.
        calibration_photos: number of photos that the ranges of the activations were measured on.
        comparison: of its answers, on other photos.
    """

    model_config = ConfigDict(frozen=True)

    project: int
    base: str
    version: str
    number_type: Literal["int8"] = "int8"
    convolutions: int
    float_convolutions: int
    calibration_photos: int
    comparison: EncoderComparison


class EncoderCard(BaseModel):
    """Contents of an encoder's `encoder.json`.

    Attributes:
        format: number of the card's format.
        encoder_id: name of the encoder and of its directory: backbone and a hash of weights, input and views.
        backbone: timm's name of the network that is inside.
        weights_source: source of the weights, in words.
        fallback_reason: why this encoder is not the requested one; None when it is.
        request: the requested encoder.
        weights_sha256: hash of the weights' names and values.
        onnx_sha256: hash of `encoder.onnx`.
        input: input size and normalisation.
        views: sides of the views that the network sees of a photo, in pixels; the last is the input's. Larger ones are
            seen in tiles of the size of the first. Cards without them are of one view.
        dimension: length of an embedding: that of all views together.
        created: date and time, ISO 8601, UTC.
        versions: of the packages that made it.
        tuning: provenance of a fine-tuning in the live loop; None for an encoder that all projects may use.
        quantization: provenance of a quantized encoder; None for one in fp32.
    """

    model_config = ConfigDict(frozen=True)

    format: int = FORMAT
    encoder_id: str
    backbone: str
    weights_source: str
    fallback_reason: str | None = None
    request: EncoderRequest
    weights_sha256: str
    onnx_sha256: str
    input: InputSpec
    views: tuple[int, ...] = Field(default_factory=lambda fields: (fields["input"].size,))
    dimension: int
    created: str
    versions: dict[str, str]
    tuning: Tuning | None = None
    quantization: Quantization | None = None

    @property
    def stands_in(self) -> bool:
        """True for the fallback itself. Encoders that were fine-tuned from it keep the reason, and are no stand-ins."""
        return self.fallback_reason is not None and self.weights_source.startswith("package: ")

    @property
    def tiles(self) -> int:
        """Number of squares of the smallest view's size that the network sees of a photo."""
        return sum((side // self.views[0]) ** 2 for side in self.views)


class _Format(BaseModel):
    """The one field that cards of every format have."""

    format: int = 1


def encoder_request(backbone: str, weights: str, views: tuple[int, ...] = ONE_VIEW) -> EncoderRequest:
    """Describe a requested encoder so that it can be compared with those on disk.

    Args:
        backbone: timm's name of the network.
        weights: "hub", "random", or the path of a weights file.
        views: sides of the views of a photo, in pixels.

    Raises:
        EncoderError: the weights file cannot be read.
    """
    named = weights in ("hub", "random")
    return EncoderRequest(backbone=backbone, weights=weights if named else file_sha256(Path(weights)), views=views)


def encoder_id(backbone: str, weights_sha256: str, spec: InputSpec, views: tuple[int, ...]) -> str:
    """Id of an encoder: its backbone, and a hash of what its embeddings depend on.

    That is the preparation of the pixels as much as the weights. The side of a single view is in the input's
    description.

    Args:
        backbone: timm's name of the network.
        weights_sha256: see `hash_weights`.
        spec: input size and normalisation.
        views: sides of the views of a photo, in pixels.
    """
    seen = json.dumps(asdict(spec)) + (f"tiles of {views}" if len(views) > 1 else "")
    return f"{backbone}-{hashlib.sha256((weights_sha256 + seen).encode()).hexdigest()[:8]}"


def hash_weights(weights: Mapping[str, NDArray[Any]]) -> str:
    """SHA-256 of the names and values of a network's weights, in hexadecimal.

    Args:
        weights: name -> values, without a classifier.
    """
    digest = hashlib.sha256()
    for name, values in sorted(weights.items()):
        digest.update(f"{name} {values.dtype} {values.shape}\n".encode())
        digest.update(values.tobytes())
    return digest.hexdigest()


def read_card(directory: Path) -> EncoderCard:
    """Read `encoder.json` in an encoder's directory.

    Raises:
        EncoderError: the file is missing, malformed, or of a newer format.
    """
    path = directory / CARD_NAME
    try:
        text = path.read_bytes()
        written = _Format.model_validate_json(text).format
        if written > FORMAT:
            raise EncoderError(
                f"expected an encoder of format {FORMAT} or older, {path} is of format {written}: a newer carcond "
                "wrote it. Run that one or a newer one"
            )
        return EncoderCard.model_validate_json(text)
    except OSError as error:
        raise EncoderError(f"no encoder in {directory}: {path.name} cannot be read ({error.strerror})") from error
    except ValidationError as error:
        fields = ", ".join(".".join(map(str, e["loc"])) or "the whole file" for e in error.errors())
        raise EncoderError(
            f"{path} is malformed (in {fields}): remove {directory} and make the encoder again"
        ) from error


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal.

    Raises:
        EncoderError: the file cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise EncoderError(f"{path} cannot be read ({error.strerror})") from error


def save_encoder(encoders_dir: Path, card: EncoderCard, onnx_file: Path, car_head: CarHead | None = None) -> Path:
    """Keep an encoder under its id.

    An existing encoder of this id stays; at most the request on its card is updated.

    Args:
        encoders_dir: home of all encoders.
        card: describes the encoder; its `onnx_sha256` is filled in here.
        onnx_file: the network, with input `pixels` (N, 3, size, size) and outputs `embedding` (N, D) and
            `feature_map` (N, D, h, w). It is copied.
        car_head: the classifier that the network was pretrained with, if there is one.

    Returns:
        The encoder's directory.
    """
    directory = encoders_dir / card.encoder_id
    if directory.exists():
        _update_origin(directory, card)
        return directory
    card = card.model_copy(update={"onnx_sha256": file_sha256(onnx_file)})
    try:
        with new_directory(directory) as temporary:
            (temporary / ONNX_NAME).write_bytes(onnx_file.read_bytes())
            (temporary / CARD_NAME).write_text(_to_json(card), encoding="utf-8")
            if car_head:
                car_head.save(temporary)
    except OSError:
        if not directory.exists():  # else another process was faster, and made the same, by its id
            raise
    return directory


def _update_origin(directory: Path, card: EncoderCard) -> None:
    kept = read_card(directory)
    updated = kept.model_copy(update=card.model_dump(include={"weights_source", "fallback_reason"}))
    updated = updated.model_copy(update={"request": card.request})
    if updated != kept:
        replace_text(directory / CARD_NAME, _to_json(updated))


def _to_json(card: EncoderCard) -> str:
    return card.model_dump_json(indent=2) + "\n"
