"""A model version as one ONNX file for use elsewhere: pixels in, calibrated probabilities out, with its card inside."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from carcond.errors import EncoderError
from carcond.model.encoder import Encoder
from carcond.model.encoder_card import ONNX_NAME
from carcond.model.heads import Head, Heads

TOLERANCE = 1e-4
"""Maximum absolute difference between a probability of the file and the served one."""

CARD_KEY = "carcond"
"""Name of the card among the metadata of the file."""


def export_model(encoder_dir: Path, heads: Heads, version: str, path: Path) -> dict[str, Any]:
    """Write encoder and heads as one ONNX file, and check its outputs against the served ones.

    Its input is `pixels` (N, 3, size, size), as the card says; its outputs are one for each task, named by its key:
    calibrated probabilities (N, K); `embedding` (N, D); and `feature_map` (N, D, h, w).

    Args:
        encoder_dir: directory of the encoder that the heads were fitted on.
        heads: of the version.
        version: its name.
        path: of the file.

    Returns:
        The card: `version`, `encoder` (see `carcond.model.encoder_card.EncoderCard`), and `tasks`: key -> class keys.

    Raises:
        EncoderError: the encoder is missing or broken, or the file's outputs differ from the served ones.
        OSError: the file cannot be written.
    """
    encoder = Encoder.load(encoder_dir)
    card = {
        "version": version,
        "encoder": encoder.card.model_dump(mode="json"),
        "tasks": {key: list(head.task.class_keys) for key, head in heads.by_task.items()},
    }
    model = onnx.load(encoder_dir / ONNX_NAME)
    for key, head in heads.by_task.items():
        _append(model, key, head)
    helper.set_model_props(model, {CARD_KEY: json.dumps(card, ensure_ascii=False)})
    onnx.checker.check_model(model)
    data = model.SerializeToString()
    _check(data, encoder, heads)
    path.write_bytes(data)
    return card


def _append(model: ModelProto, key: str, head: Head) -> None:
    """Append a head to the embedding."""
    temperature = np.float32(head.temperature)
    values = {"weight": head.weight / temperature, "bias": head.bias / temperature}
    nodes: list[NodeProto] = [
        helper.make_node("Gemm", ["embedding", f"{key}.weight", f"{key}.bias"], [f"{key}.logits"], transB=1),
        helper.make_node("Softmax", [f"{key}.logits"], [key], axis=1),
    ]
    for name, value in values.items():
        model.graph.initializer.append(
            numpy_helper.from_array(np.ascontiguousarray(value, np.float32), f"{key}.{name}")
        )
    model.graph.node.extend(nodes)
    shape: list[str | int | None] = ["photos", len(head.task.classes)]
    model.graph.output.append(helper.make_tensor_value_info(key, TensorProto.FLOAT, shape))


def _check(data: bytes, encoder: Encoder, heads: Heads) -> None:
    session = ort.InferenceSession(data, providers=["CPUExecutionProvider"])
    size = encoder.spec.size
    pixels = np.random.default_rng(0).normal(size=(3, 3, size, size)).astype(np.float32)
    expected: Mapping[str, NDArray[np.float32]] = heads.probabilities(encoder.embed(pixels))
    found = session.run(list(expected), {"pixels": pixels})
    off = max(float(np.abs(f - e).max()) for f, e in zip(found, expected.values(), strict=True))
    if not off <= TOLERANCE:
        raise EncoderError(
            f"the exported model is not faithful: a probability is off by {off:.1e}, more than {TOLERANCE:.0e}; try "
            "other versions of onnx and onnxruntime"
        )
