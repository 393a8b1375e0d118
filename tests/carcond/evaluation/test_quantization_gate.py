from pathlib import Path

import numpy as np
import pytest

from carcond.arrays import UNKNOWN, FloatArray
from carcond.evaluation.calibration import calibration_error
from carcond.evaluation.quantization_gate import ComparedPhotos, compare_encoders, objections
from carcond.model.encoder import Encoder
from carcond.model.encoder_card import ONNX_NAME, EncoderComparison, TaskAgreement
from carcond.model.head_fitting import fit_heads
from carcond.model.heads import Heads
from carcond.model.quantization import quantize

PHOTOS = 120


def compared_as(
    agreement: float = 1.0, base_error: float = 0.03, error: float = 0.03, ms: float = 1.0
) -> EncoderComparison:
    task = TaskAgreement(photos=400, agreement=agreement, labels=120, base_error=base_error, error=error)
    return EncoderComparison(tasks={"damage": task}, base_ms=2.0, ms=ms)


@pytest.mark.parametrize(
    ("compared", "expected"),
    [
        (compared_as(), []),
        (compared_as(agreement=0.99, error=0.035), []),
        (compared_as(error=0.0), []),
        (compared_as(agreement=0.9875), ["damage: 98.8% of 400 photos keep their class, expected 99%"]),
        (
            compared_as(error=0.036),
            ["damage: calibration error 0.0360 after 0.0300 on 120 hold-out labels, expected a rise of 0.005 at most"],
        ),
        (compared_as(ms=2.0), ["not faster: 2.0 ms a photo, fp32 2.0 ms"]),
    ],
)
def test_what_changes_answers_or_is_not_faster_is_refused_with_its_numbers(
    compared: EncoderComparison, expected: list[str]
) -> None:
    assert objections(compared) == expected


@pytest.fixture(scope="module")
def base(tiny_encoder_dir: Path) -> Encoder:
    return Encoder.load(tiny_encoder_dir, threads=1)


@pytest.fixture(scope="module")
def pixels() -> FloatArray:
    """Photos of two kinds: half of them have a brighter upper half."""
    made = np.random.default_rng(0).normal(size=(2 * PHOTOS, 3, 64, 64)).astype(np.float32)
    made[::2, :, :32] += 0.3
    return made


@pytest.fixture(scope="module")
def heads(base: Encoder, pixels: FloatArray) -> Heads:
    classes = np.arange(PHOTOS) % 2
    return fit_heads(base.encoder_id, base.embed(pixels[:PHOTOS]), {"damage": classes})


@pytest.fixture(scope="module")
def photos(pixels: FloatArray) -> ComparedPhotos:
    classes = np.arange(PHOTOS) % 2
    classes[::3] = UNKNOWN
    return ComparedPhotos(pixels[PHOTOS:], {"damage": classes}, np.arange(PHOTOS))


def quantized(base: Encoder, directory: Path, target: Path, calibration: FloatArray) -> Encoder:
    quantize(directory / ONNX_NAME, target, [calibration[:8], calibration[8:16]])
    return base.with_network(target, threads=1)


def test_the_comparison_counts_equal_classes_and_measures_both_calibrations(
    base: Encoder, tiny_encoder_dir: Path, pixels: FloatArray, heads: Heads, photos: ComparedPhotos, tmp_path: Path
) -> None:
    small = quantized(base, tiny_encoder_dir, tmp_path / "int8.onnx", pixels)
    compared = compare_encoders(base, small, heads, photos).tasks["damage"]
    both = [heads.by_task["damage"].probabilities(encoder.embed(photos.pixels)) for encoder in (base, small)]
    known = photos.classes["damage"] != UNKNOWN
    assert compared.agreement == np.mean([a.argmax() == b.argmax() for a, b in zip(*both, strict=True)]) >= 0.99
    assert (compared.photos, compared.labels) == (PHOTOS, PHOTOS * 2 // 3)
    errors = [calibration_error(each[known], photos.classes["damage"][known]) for each in both]
    assert [compared.base_error, compared.error] == pytest.approx(errors)


def test_a_quantization_calibrated_on_the_wrong_photos_is_refused(
    base: Encoder, tiny_encoder_dir: Path, pixels: FloatArray, heads: Heads, photos: ComparedPhotos, tmp_path: Path
) -> None:
    small = quantized(base, tiny_encoder_dir, tmp_path / "int8.onnx", pixels / np.float32(100))
    found = objections(compare_encoders(base, small, heads, photos))
    assert any("keep their class, expected 99%" in each for each in found)
