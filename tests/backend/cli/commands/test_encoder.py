import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from backend.cli.main import app
from carcond.errors import EncoderError, MissingPackageError
from carcond.model import pretrained_encoder
from carcond.model.encoder import encoders_dir, find_encoder
from carcond.model.encoder_card import EncoderComparison, Quantization, TaskAgreement, read_card, save_encoder
from tests.backend.conftest import MakeSettings


def run(*arguments: str) -> str:
    result = CliRunner().invoke(app, ["encoder", *arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_what_stands_in_is_replaced_once_the_weights_can_be_had(
    make_settings: MakeSettings, lite0_models_dir: Path, models_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_settings(CARCOND_MODELS_DIR=str(lite0_models_dir))
    monkeypatch.setattr(pretrained_encoder, "build_pretrained_encoder", lambda *_: find_encoder(models_dir))
    assert run().startswith("encoder tiny-")


def test_the_views_of_the_settings_are_built(
    make_settings: MakeSettings, lite0_models_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_settings(CARCOND_MODELS_DIR=str(tmp_path / "empty"), CARCOND_VIEWS="128+256")
    asked: list[object] = []

    def build(*arguments: object) -> Path:
        asked.extend(arguments)
        return find_encoder(lite0_models_dir)

    monkeypatch.setattr(pretrained_encoder, "build_pretrained_encoder", build)
    run()
    assert asked[-1] == (128, 256)


def test_quantized_encoders_are_listed_with_their_comparison_and_trial(
    make_settings: MakeSettings, models_dir: Path
) -> None:
    make_settings()
    base = find_encoder(models_dir)
    task = TaskAgreement(photos=400, agreement=0.9951, labels=120, base_error=0.03, error=0.0312)
    made = Quantization(
        project=3,
        base=base.name,
        version="carcond-0007",
        convolutions=160,
        float_convolutions=27,
        calibration_photos=64,
        comparison=EncoderComparison(tasks={"damage": task}, base_ms=84.1, ms=52.3),
    )
    card = read_card(base).model_copy(update={"encoder_id": "tiny-int8-12345678", "quantization": made})
    save_encoder(encoders_dir(models_dir), card, base / "encoder.onnx")
    assert run("--backbone", "tiny", "--weights", "random").splitlines()[1:] == [
        "encoder tiny-int8-12345678: tiny-00000000 with 133 of 160 convolutions in int8, for project 3",
        "compared by the heads of carcond-0007:",
        "  damage: 99.5% of 400 photos keep their class (at least 99%); calibration error 0.0312 after 0.0300 on 120 "
        "hold-out labels (a rise of 0.005 at most)",
        "  52.3 ms a photo, fp32 84.1 ms",
    ]


def test_the_encoder_of_a_project_without_a_version_is_not_quantized(make_settings: MakeSettings) -> None:
    make_settings()
    with pytest.raises(EncoderError, match="project 3 has no version whose answers could be compared"):
        run("--quantize", "3")


def test_quantizing_names_the_missing_package(make_settings: MakeSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    make_settings()
    monkeypatch.setattr("backend.cli.commands.encoder.find_spec", lambda _: None)
    with pytest.raises(MissingPackageError, match="pip install onnx"):
        run("--quantize", "3")


def test_another_network_is_not_made_while_quantizing() -> None:
    result = CliRunner().invoke(app, ["encoder", "--quantize", "3", "--backbone", "resnet18"])
    assert (result.exit_code, "leave out --backbone" in result.output) == (2, True)


def test_an_encoder_of_another_network_needs_pytorch(
    make_settings: MakeSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_settings(CARCOND_MODELS_DIR=str(tmp_path), CARCOND_BACKBONE="efficientnet_b2")
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(MissingPackageError, match=r"an encoder of efficientnet_b2.*scripts/setup train"):
        CliRunner().invoke(app, ["encoder"], catch_exceptions=False)
