import json
import logging
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import load_file, save_file

from carcond.errors import WeightsUnavailableError
from carcond.model import pretrained_encoder
from carcond.model.car_detector import CLASS_COUNT
from carcond.model.encoder import Encoder, find_encoder
from carcond.model.encoder_card import EncoderCard, read_card
from carcond.model.pretrained_encoder import build_pretrained_encoder, needs_torch
from carcond.training.network import build_encoder

pytestmark = pytest.mark.slow

LITE0 = "tf_efficientnet_lite0"
VIEWS = (32, 64)


@pytest.fixture(scope="module")
def lite0_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "lite0.safetensors"
    save_file(timm.create_model(LITE0, num_classes=CLASS_COUNT).state_dict(), path)
    return path


def without_versions(card: EncoderCard) -> EncoderCard:
    return card.model_copy(update={"versions": {}, "created": "", "onnx_sha256": ""})


def test_the_encoder_is_the_one_that_pytorch_makes(tmp_path: Path, lite0_weights: Path) -> None:
    own = build_pretrained_encoder(tmp_path / "own", LITE0, str(lite0_weights), VIEWS)
    other = build_encoder(tmp_path / "other", LITE0, str(lite0_weights), VIEWS)
    assert without_versions(read_card(own)) == without_versions(read_card(other))
    pixels = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0)).numpy()
    found, expected = Encoder.load(own), Encoder.load(other)
    embeddings = expected.embed(pixels)
    np.testing.assert_allclose(found.embed(pixels), embeddings, atol=1e-3 * np.abs(embeddings).max())
    assert found.car_head
    assert expected.car_head
    cars = expected.car_head.car_probability(embeddings)
    np.testing.assert_allclose(found.car_head.car_probability(embeddings), cars, rtol=1e-5)


@pytest.mark.usefixtures("no_hub")
def test_without_the_hub_the_fallback_is_built_loudly_and_looked_for_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(2):
        directory = build_pretrained_encoder(tmp_path, "efficientnet_b4", "hub", VIEWS)
    card = read_card(directory)
    assert card.backbone == LITE0
    assert card.request.backbone == "efficientnet_b4"
    assert "could not be downloaded" in (card.fallback_reason or "")
    warnings = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert sum("NOT USING efficientnet_b4!" in each for each in warnings) == 2
    assert Encoder.load(directory).dimension == 2 * 1280


def test_an_encoder_that_was_tuned_from_the_fallback_stays_in_use(
    tmp_path: Path, lite0_weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = build_pretrained_encoder(tmp_path, LITE0, str(lite0_weights), VIEWS)
    card = directory / "encoder.json"
    tuned = {"fallback_reason": "no hub", "weights_source": "fine-tuned on 90 photos from package: lite0 0.1.0"}
    card.write_text(json.dumps(json.loads(card.read_text()) | tuned))
    monkeypatch.delattr(pretrained_encoder, "_load_or_fallback")
    assert build_pretrained_encoder(tmp_path, LITE0, str(lite0_weights), VIEWS) == directory


def test_half_precision_and_missing_counters_give_the_encoder_of_the_values(
    tmp_path: Path, lite0_weights: Path
) -> None:
    halves = {name: values.half() for name, values in load_file(lite0_weights).items() if "num_batches" not in name}
    save_file(halves, tmp_path / "halves.safetensors")
    counters = {name: values for name, values in load_file(lite0_weights).items() if "num_batches" in name}
    save_file({name: values.float() for name, values in halves.items()} | counters, tmp_path / "same.safetensors")
    cards = [
        read_card(build_pretrained_encoder(tmp_path / name, LITE0, str(tmp_path / f"{name}.safetensors"), VIEWS))
        for name in ("halves", "same")
    ]
    assert cards[0].encoder_id == cards[1].encoder_id


def test_weights_of_other_shapes_are_refused(tmp_path: Path, lite0_weights: Path) -> None:
    odd = load_file(lite0_weights) | {"blocks.3.1.conv_pw.weight": torch.zeros(7, 7, 1, 1)}
    save_file(odd, tmp_path / "odd.safetensors")
    with pytest.raises(WeightsUnavailableError, match="other shapes than those of tf_efficientnet_lite0"):
        build_pretrained_encoder(tmp_path / "models", LITE0, str(tmp_path / "odd.safetensors"), VIEWS)


def test_an_encoder_in_use_is_not_built_again(
    tmp_path: Path, lite0_weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = build_pretrained_encoder(tmp_path, LITE0, str(lite0_weights), VIEWS)
    assert find_encoder(tmp_path) == directory
    monkeypatch.delattr(pretrained_encoder, "_load_or_fallback")
    assert build_pretrained_encoder(tmp_path, LITE0, str(lite0_weights), VIEWS) == directory


def test_a_file_that_cannot_be_used_has_no_fallback(tmp_path: Path, lite0_weights: Path) -> None:
    with pytest.raises(WeightsUnavailableError, match="another network than efficientnet_b4"):
        build_pretrained_encoder(tmp_path, "efficientnet_b4", str(lite0_weights))


@pytest.mark.parametrize(
    ("backbone", "weights", "needs"),
    [
        ("efficientnet_b4", "hub", False),
        (LITE0, "b4.safetensors", False),
        ("efficientnet_b4", "b4.pth", True),
        ("efficientnet_b4", "random", True),
        ("efficientnet_b2", "hub", True),
    ],
)
def test_other_networks_and_files_are_left_to_pytorch(backbone: str, weights: str, needs: bool) -> None:
    assert needs_torch(backbone, weights) == needs


def test_pytorch_is_not_imported() -> None:
    program = "import sys, carcond.model.pretrained_encoder; sys.exit('torch' in sys.modules or 'timm' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
