"""Quantization by the real ONNX Runtime, of a tiny network and of EfficientNet-Lite0."""

import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from carcond.arrays import FloatArray
from carcond.data.images import decode_photo, to_pixels
from carcond.errors import EncoderError
from carcond.model.encoder import Encoder, find_encoder
from carcond.model.encoder_card import ONNX_NAME, read_card, save_encoder
from carcond.model.head_fitting import fit_heads
from carcond.model.onnx_export import export_model
from carcond.model.quantization import count_convolutions, quantize
from tests.conftest import MakeEncoder


def random_pixels(count: int) -> FloatArray:
    return np.random.default_rng(0).normal(size=(count, 3, 64, 64)).astype(np.float32)


def similarity(first: FloatArray, second: FloatArray) -> float:
    """The smallest cosine of two embeddings of one photo."""
    lengths = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
    return float(((first * second).sum(axis=1) / lengths).min())


def quantized(directory: Path, target: Path, pixels: FloatArray, float_convolutions: int = 0) -> Encoder:
    quantize(directory / ONNX_NAME, target, [pixels[:8], pixels[8:]], float_convolutions)
    return Encoder.load(directory, threads=1).with_network(target, threads=1)


@pytest.mark.parametrize("views", [(64,), (32, 64)])
def test_a_quantized_network_gives_nearly_the_same_embeddings(
    tmp_path: Path, make_tiny_encoder: MakeEncoder, views: tuple[int, ...]
) -> None:
    directory = make_tiny_encoder(tmp_path / "models", views=views)
    pixels = random_pixels(16)
    encoder = quantized(directory, tmp_path / "int8.onnx", pixels)
    expected = Encoder.load(directory, threads=1).embed(pixels)
    found = encoder.embed(pixels)
    assert similarity(expected, found) > 0.999
    assert np.abs(expected - found).max() > 0


def test_the_embedding_is_the_mean_of_the_feature_map(tiny_encoder_dir: Path, tmp_path: Path) -> None:
    pixels = random_pixels(16)
    encoding = quantized(tiny_encoder_dir, tmp_path / "int8.onnx", pixels).encode(pixels)
    np.testing.assert_allclose(encoding.feature_maps.mean(axis=(2, 3)), encoding.embeddings, rtol=1e-5, atol=1e-6)


def test_a_quantized_encoder_is_exported_with_its_heads(tiny_encoder_dir: Path, tmp_path: Path) -> None:
    pixels = random_pixels(16)
    quantized(tiny_encoder_dir, tmp_path / "int8.onnx", pixels)
    card = read_card(tiny_encoder_dir).model_copy(update={"encoder_id": "tiny-int8"})
    directory = save_encoder(tmp_path / "encoders", card, tmp_path / "int8.onnx")
    embeddings = Encoder.load(directory, threads=1).embed(pixels)
    heads = fit_heads("tiny-int8", embeddings, {"damage": np.arange(16) % 2})
    export_model(directory, heads, "carcond-0001", tmp_path / "model.onnx")
    session = ort.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    (found,) = session.run(["damage"], {"pixels": pixels})
    np.testing.assert_allclose(found, heads.probabilities(embeddings)["damage"], atol=1e-4)


def test_the_first_convolutions_stay_in_fp32(tiny_encoder_dir: Path, tmp_path: Path) -> None:
    assert count_convolutions(tiny_encoder_dir / ONNX_NAME) == 2
    weights = []
    for float_convolutions in (0, 1):
        file = tmp_path / f"{float_convolutions}.onnx"
        quantized(tiny_encoder_dir, file, random_pixels(16), float_convolutions)
        tensors = onnx.load(file).graph.initializer
        weights.append(Counter(tensor.data_type for tensor in tensors if len(tensor.dims) == 4))
    assert weights == [{onnx.TensorProto.INT8: 2}, {onnx.TensorProto.INT8: 1, onnx.TensorProto.FLOAT: 1}]


def test_a_network_of_too_few_convolutions_is_not_quantized(tiny_encoder_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(EncoderError, match="expected a network with more than 2 convolutions to quantize, got 2"):
        quantized(tiny_encoder_dir, tmp_path / "int8.onnx", random_pixels(16), float_convolutions=2)


def test_a_damaged_network_is_not_quantized(tmp_path: Path) -> None:
    (tmp_path / ONNX_NAME).write_bytes(b"\xff no network")
    with pytest.raises(EncoderError, match=r"encoder.onnx cannot be read"):
        count_convolutions(tmp_path / ONNX_NAME)
    with pytest.raises(EncoderError, match=r"encoder.onnx cannot be read"):
        quantize(tmp_path / ONNX_NAME, tmp_path / "int8.onnx", [random_pixels(1)])


@pytest.mark.slow
def test_a_pretrained_network_stays_near_its_embeddings(
    lite0_models_dir: Path, tmp_path: Path, drawn_cars: list[bytes]
) -> None:
    directory = find_encoder(lite0_models_dir)
    encoder = Encoder.load(directory, threads=1)
    pixels = np.stack(
        [to_pixels(decode_photo(data, target=224, max_pixels=10**7), encoder.spec) for data in drawn_cars]
    )
    convolutions = count_convolutions(directory / ONNX_NAME)
    quantize(directory / ONNX_NAME, tmp_path / "int8.onnx", [pixels[:4]], round(convolutions / 6))
    small = encoder.with_network(tmp_path / "int8.onnx", threads=1)
    assert similarity(encoder.embed(pixels), small.embed(pixels)) > 0.95
    assert (tmp_path / "int8.onnx").stat().st_size < (directory / ONNX_NAME).stat().st_size / 2


def test_running_an_encoder_does_not_import_onnx() -> None:
    code = "import sys, backend.web.app, carcond.model.encoder; sys.exit('onnx' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
