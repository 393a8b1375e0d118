"""Making the encoder of a pretrained EfficientNet without PyTorch: the default backbone, and its fallback."""

import importlib.metadata
import logging
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from carcond.errors import WeightsUnavailableError
from carcond.model.car_detector import CLASS_COUNT, CarHead
from carcond.model.efficientnet import (
    ARCHITECTURES,
    CLASSIFIER,
    Architecture,
    Weights,
    check_weights,
    efficientnet_graph,
)
from carcond.model.encoder import encoders_dir, find_encoder, fitting_encoder, use_encoder
from carcond.model.encoder_card import (
    ONE_VIEW,
    EncoderCard,
    EncoderRequest,
    encoder_id,
    encoder_request,
    hash_weights,
    save_encoder,
)
from carcond.model.weight_files import (
    FALLBACK_BACKBONE,
    FALLBACK_PACKAGE,
    fallback_source,
    hub_file,
    read_fallback,
    read_safetensors,
    warn_of_fallback,
)

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Pretrained:
    """Weights of an architecture, without a classifier, and where they came from."""

    architecture: Architecture
    weights: Weights
    classifier: tuple[NDArray[np.float32], NDArray[np.float32]] | None
    source: str
    fallback_reason: str | None = None


def needs_torch(backbone: str, weights: str) -> bool:
    """True if making an encoder is left to `carcond.training.network`.

    Args:
        backbone: timm's name of the network.
        weights: "hub", "random", or the path of a weights file.
    """
    return backbone not in ARCHITECTURES or (weights != "hub" and Path(weights).suffix != ".safetensors")


def build_pretrained_encoder(models_dir: Path, backbone: str, weights: str, views: tuple[int, ...] = ONE_VIEW) -> Path:
    """Build the requested encoder and put it in use; a no-op when it is in use already.

    It has the id that `carcond.training.network.build_encoder` would give it. A fallback built while the hub was
    unreachable is replaced as soon as the hub can be reached.

    Args:
        models_dir: home of all models.
        backbone: one that does not need PyTorch (see `needs_torch`).
        weights: "hub", or the path of a .safetensors file. Only the hub has a fallback.
        views: sides of the views of a photo, in pixels.

    Returns:
        The encoder's directory.

    Raises:
        WeightsUnavailableError: the weights cannot be loaded, or are of another network.
    """
    request = encoder_request(backbone, weights, views)
    card = fitting_encoder(models_dir, request)
    if card is not None and not card.stands_in:
        return find_encoder(models_dir)
    directory = _save(_load_or_fallback(ARCHITECTURES[backbone], weights), request, models_dir)
    use_encoder(models_dir, directory.name)
    return directory


def _load_or_fallback(architecture: Architecture, weights: str) -> _Pretrained:
    try:
        return _load(architecture, weights)
    except WeightsUnavailableError as error:
        if weights != "hub":
            raise
        warn_of_fallback(architecture.name, str(error))
        return replace(_load_fallback(), fallback_reason=str(error))


def _load(architecture: Architecture, weights: str) -> _Pretrained:
    if weights == "hub":
        path = hub_file(architecture.name, architecture.repository)
        place, source = f"the hub's {architecture.repository}", f"hub: {architecture.repository}"
    else:
        path = Path(weights)
        place, source = weights, f"file: {path.name}"
    return _pretrained(architecture, read_safetensors(path), place, source)


def _load_fallback() -> _Pretrained:
    architecture = ARCHITECTURES[FALLBACK_BACKBONE]
    weights = dict(zip([*architecture.weight_names(), *CLASSIFIER], read_fallback(), strict=True))
    return _pretrained(architecture, weights, f"the package {FALLBACK_PACKAGE}", fallback_source())


def _pretrained(
    architecture: Architecture, weights: Mapping[str, NDArray[Any]], place: str, source: str
) -> _Pretrained:
    # Some files leave out the counters, which nothing is computed from.
    counters = {name: np.array(0) for name in architecture.weight_names() if name.endswith("num_batches_tracked")}
    without = counters | {name: values for name, values in weights.items() if name not in CLASSIFIER}
    check_weights(architecture, without, place)
    weight, bias = (weights.get(name) for name in CLASSIFIER)
    is_imagenet = weight is not None and weight.shape == (CLASS_COUNT, architecture.channels)
    classifier = (weight, bias) if is_imagenet and weight is not None and bias is not None else None
    return _Pretrained(architecture, without, classifier, source)


def _save(pretrained: _Pretrained, request: EncoderRequest, models_dir: Path) -> Path:
    architecture, views = pretrained.architecture, request.views
    spec = architecture.input_spec(views[-1])
    hashed = hash_weights(pretrained.weights)
    card = EncoderCard(
        encoder_id=encoder_id(architecture.name, hashed, spec, views),
        backbone=architecture.name,
        weights_source=pretrained.source,
        fallback_reason=pretrained.fallback_reason,
        request=request,
        weights_sha256=hashed,
        onnx_sha256="",
        input=spec,
        views=views,
        dimension=architecture.channels * len(views),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        versions={name: importlib.metadata.version(name) for name in ("carcond", "onnx", "onnxruntime")},
    )
    with tempfile.TemporaryDirectory() as folder:
        onnx_file = Path(folder) / "encoder.onnx"
        if not (encoders_dir(models_dir) / card.encoder_id).exists():
            onnx.save(_graph(pretrained, views), onnx_file)
        return save_encoder(encoders_dir(models_dir), card, onnx_file, _car_head(pretrained, len(views)))


def _graph(pretrained: _Pretrained, views: tuple[int, ...]) -> onnx.ModelProto:
    architecture = pretrained.architecture
    try:
        return efficientnet_graph(architecture, pretrained.weights, views)
    except (IndexError, ValueError, onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise WeightsUnavailableError(
            f"the weights ({pretrained.source}) have other shapes than those of {architecture.name}: {error}"
        ) from error


def _car_head(pretrained: _Pretrained, views: int) -> CarHead | None:
    """ImageNet's classifier, which sees the smallest view alone: its weights of the others are zero."""
    if pretrained.classifier is None:
        return None
    weight, bias = pretrained.classifier
    others = (0, (views - 1) * pretrained.architecture.channels)
    return CarHead(np.pad(weight, ((0, 0), others)), bias)
