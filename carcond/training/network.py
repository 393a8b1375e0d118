"""The network that is trained: a timm backbone with one linear head per task, and its export as an encoder.

EfficientNet-B4 (arXiv 1905.11946) is the standard backbone. Its feature map is averaged over the photo, and each task
has a linear layer on that average, which is why the layer's weights, applied to the feature map, localise a class
(class activation maps, arXiv 1512.04150).
"""

import importlib.metadata
import logging
import tempfile
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import onnxruntime as ort
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from carcond.errors import EncoderError
from carcond.model.encoder import encoders_dir, find_encoder, fitting_encoder, use_encoder
from carcond.model.encoder_card import (
    ONE_VIEW,
    EncoderCard,
    encoder_id,
    encoder_request,
    hash_weights,
    save_encoder,
)
from carcond.model.heads import Heads
from carcond.taxonomy import TASKS
from carcond.training.pretrained_weights import Backbone, load_backbone_or_fallback

logger = logging.getLogger(__name__)
for _chatty in ("onnx_ir", "onnxscript"):  # they log each rewriting of the graph
    logging.getLogger(_chatty).setLevel(logging.WARNING)

EXPORT_TOLERANCE = 1e-3
"""Maximum difference between ONNX Runtime and torch, as a share of the largest value."""

_DROPOUT = 0.4  # EfficientNet-B4's own

# Initial logit of a class without labels in a fitted head: unlikely, but still trainable.
_UNSEEN_LOGIT = -10.0

_PACKAGES = ("carcond", "timm", "torch", "onnx", "onnxruntime")


class TwoHeadNetwork(nn.Module):
    """Backbone, average over the photo, dropout, and a linear head per task.

    Attributes:
        backbone: pixels (N, 3, S, S) -> feature map (N, D, h, w), of all views.
        heads: a linear layer per task key, D -> number of classes.
        dimension: D, length of an embedding.
    """

    def __init__(self, backbone: Backbone, dropout: float = _DROPOUT) -> None:
        super().__init__()
        self.backbone = backbone.network()
        self.dimension = backbone.dimension
        self.dropout = nn.Dropout(dropout)
        self.heads = nn.ModuleDict({task.key: nn.Linear(backbone.dimension, len(task.classes)) for task in TASKS})

    def encode(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Embedding (N, D) and feature map (N, D, h, w) of pixels (N, 3, S, S)."""
        return _encode(self.backbone, pixels)

    def adopt(self, fitted: Heads) -> None:
        """Copy fitted heads, calibrated; a task without one keeps its random head."""
        for key, head in fitted.by_task.items():
            weight, bias = head.weight / head.temperature, head.bias / head.temperature
            unseen = ~weight.any(axis=1)
            linear = self.heads[key]
            linear.load_state_dict(
                {
                    "weight": torch.from_numpy(weight),
                    "bias": torch.from_numpy(np.where(unseen, np.float32(_UNSEEN_LOGIT), bias)),
                }
            )

    def forward(self, pixels: Tensor) -> dict[str, Tensor]:
        """Logits (N, number of classes) per task key, for pixels (N, 3, S, S)."""
        embedding = self.dropout(self.encode(pixels)[0])
        return {key: head(embedding) for key, head in self.heads.items()}


def _encode(backbone: nn.Module, pixels: Tensor) -> tuple[Tensor, Tensor]:
    feature_map = backbone(pixels)
    return feature_map.mean(dim=(2, 3)), feature_map


class _EncoderPart(nn.Module):
    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        return _encode(self.backbone, pixels)


def build_encoder(models_dir: Path, backbone: str, weights: str, views: tuple[int, ...] = ONE_VIEW) -> Path:
    """Build the requested encoder and put it in use; a no-op when it is in use already.

    A fallback built while the hub was unreachable is replaced as soon as the hub can be reached.

    Args:
        models_dir: home of all models.
        backbone: timm's name of a convolutional network.
        weights: "hub", "random", or the path of a weights file.
        views: sides of the views of a photo, in pixels.

    Returns:
        The encoder's directory.

    Raises:
        EncoderError: the network is unknown or cannot be exported.
        WeightsUnavailableError: the weights cannot be loaded.
    """
    card = fitting_encoder(models_dir, encoder_request(backbone, weights, views))
    if card is not None and not card.stands_in:
        return find_encoder(models_dir)
    directory = export_encoder(load_backbone_or_fallback(backbone, weights, views), models_dir)
    use_encoder(models_dir, directory.name)
    return directory


def export_encoder(backbone: Backbone, models_dir: Path) -> Path:
    """Write a backbone as an encoder. Nothing is written when the same weights were exported before.

    Putting it in use is left to the caller (`carcond.model.encoder.use_encoder`).

    Args:
        backbone: its module is put into evaluation mode.
        models_dir: home of all models.

    Returns:
        The encoder's directory.

    Raises:
        EncoderError: the export does not compute what torch computes.
    """
    card = _describe(backbone)
    with tempfile.TemporaryDirectory() as folder:
        onnx_file = Path(folder) / "encoder.onnx"
        if not (encoders_dir(models_dir) / card.encoder_id).exists():
            logger.info("Exporting %s; this takes up to half a minute", card.encoder_id)
            _export(backbone, onnx_file)
            _check_export(backbone, onnx_file)
        return save_encoder(encoders_dir(models_dir), card, onnx_file, backbone.car_head)


def _describe(backbone: Backbone) -> EncoderCard:
    hashed = weights_sha256(backbone.module)
    return EncoderCard(
        encoder_id=encoder_id(backbone.name, hashed, backbone.spec, backbone.views),
        backbone=backbone.name,
        weights_source=backbone.weights_source,
        fallback_reason=backbone.fallback_reason,
        request=backbone.request,
        weights_sha256=hashed,
        onnx_sha256="",
        input=backbone.spec,
        views=backbone.views,
        dimension=backbone.dimension,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        versions={name: importlib.metadata.version(name) for name in _PACKAGES},
        tuning=backbone.tuning,
    )


def weights_sha256(module: nn.Module) -> str:
    """A hash of the names and values of a network's weights, as an encoder's card has it."""
    return hash_weights({name: value.detach().cpu().numpy() for name, value in module.state_dict().items()})


def _export(backbone: Backbone, onnx_file: Path) -> None:
    size = backbone.spec.size
    torch.onnx.export(
        _EncoderPart(backbone.network()).eval().cpu(),
        (torch.zeros(2, 3, size, size),),
        onnx_file,
        input_names=["pixels"],
        output_names=["embedding", "feature_map"],
        dynamic_shapes={"pixels": {0: torch.export.Dim("photos")}},
        dynamo=True,
        external_data=False,
        verbose=False,
    )


def _check_export(backbone: Backbone, onnx_file: Path) -> None:
    session = ort.InferenceSession(onnx_file, providers=["CPUExecutionProvider"])
    pixels = torch.randn(3, 3, backbone.spec.size, backbone.spec.size, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected = _encode(backbone.network().eval(), pixels)
    results = session.run(["embedding", "feature_map"], {"pixels": pixels.numpy()})
    off = max(_distance(wanted.numpy(), got) for wanted, got in zip(expected, results, strict=True))
    if not off <= EXPORT_TOLERANCE:
        raise EncoderError(
            f"the export of {backbone.name} is not faithful: it is off by {off:.1e} of the largest value, "
            f"more than {EXPORT_TOLERANCE:.0e}; try other versions of torch and onnxruntime"
        )


def _distance(expected: NDArray[np.float32], result: NDArray[np.float32]) -> float:
    return float(np.abs(expected - result).max() / np.abs(expected).max())
