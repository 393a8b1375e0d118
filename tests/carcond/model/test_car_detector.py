"""Telling cars from other things: by arithmetic, and with the real weights of EfficientNet-Lite0."""

from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save_file
from scipy.special import softmax
from sklearn.datasets import load_sample_images

from carcond.data.photo_checks import NOT_A_CAR
from carcond.errors import EncoderError
from carcond.model.car_detector import CAR_CLASSES, CAR_HEAD_NAME, CLASS_COUNT, CarHead
from carcond.model.encoder import Encoder, find_encoder

LIMIT = 60_000_000


@pytest.fixture
def head() -> CarHead:
    rng = np.random.default_rng(0)
    return CarHead(
        rng.normal(size=(CLASS_COUNT, 32)).astype(np.float32), rng.normal(size=CLASS_COUNT).astype(np.float32)
    )


def test_the_probability_is_the_share_of_all_classes_that_are_cars(head: CarHead) -> None:
    embeddings = np.random.default_rng(1).normal(size=(5, 32)).astype(np.float32)
    expected = softmax(embeddings @ head.weight.T + head.bias, axis=1)[:, list(CAR_CLASSES)].sum(axis=1)
    np.testing.assert_allclose(head.car_probability(embeddings), expected, rtol=1e-5)


def test_great_logits_do_not_overflow(head: CarHead) -> None:
    great = CarHead(head.weight * 1000, head.bias)
    assert np.isfinite(great.car_probability(np.ones((1, 32), np.float32))).all()


def test_what_was_saved_is_loaded(head: CarHead, tmp_path: Path) -> None:
    head.save(tmp_path)
    loaded = CarHead.load(tmp_path, 32)
    assert loaded is not None
    np.testing.assert_array_equal(loaded.weight, head.weight)
    np.testing.assert_array_equal(loaded.bias, head.bias)
    assert loaded.cars == tuple(CAR_CLASSES)


def test_an_encoder_of_before_has_none(tmp_path: Path, tiny_encoder_dir: Path) -> None:
    assert CarHead.load(tmp_path, 32) is None
    assert Encoder.load(tiny_encoder_dir, 1).car_head is None


def test_the_head_of_another_encoder_is_refused(head: CarHead, tmp_path: Path) -> None:
    head.save(tmp_path)
    with pytest.raises(EncoderError, match=r"expected a weight \(1000, 64\).*got \(1000, 32\)"):
        CarHead.load(tmp_path, 64)


def test_a_broken_file_is_refused_with_what_to_do(head: CarHead, tmp_path: Path) -> None:
    (tmp_path / CAR_HEAD_NAME).write_bytes(b"broken")
    with pytest.raises(EncoderError, match="make it again"):
        CarHead.load(tmp_path, 32)
    save_file({"weight": head.weight, "bias": head.bias}, tmp_path / CAR_HEAD_NAME)
    with pytest.raises(EncoderError, match="cars"):
        CarHead.load(tmp_path, 32)


@pytest.mark.slow
def test_a_temple_and_a_flower_are_no_cars(lite0_models_dir: Path) -> None:
    encoder = Encoder.load(find_encoder(lite0_models_dir))
    assert encoder.car_head
    for picture in load_sample_images().images:
        file = BytesIO()
        Image.fromarray(picture).save(file, "PNG")
        embedding = encoder.embed_photo(file.getvalue(), LIMIT)
        assert encoder.car_head.car_probability(embedding[np.newaxis])[0] < NOT_A_CAR / 2


@pytest.mark.slow
def test_drawn_cars_are_cars(lite0_models_dir: Path, drawn_cars: list[bytes]) -> None:
    encoder = Encoder.load(find_encoder(lite0_models_dir))
    assert encoder.car_head
    embeddings = np.stack([encoder.embed_photo(data, LIMIT) for data in drawn_cars])
    assert (encoder.car_head.car_probability(embeddings) > NOT_A_CAR).all()
