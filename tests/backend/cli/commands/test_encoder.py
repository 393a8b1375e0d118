import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from backend.cli.main import app
from carcond.errors import MissingPackageError
from carcond.model import pretrained_encoder
from carcond.model.encoder import find_encoder
from tests.backend.conftest import MakeSettings

WARNING = "NOT the encoder that was asked for"


def run() -> str:
    result = CliRunner().invoke(app, ["encoder"], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_a_stand_in_that_is_there_already_is_warned_of_once(
    make_settings: MakeSettings, lite0_models_dir: Path
) -> None:
    make_settings(CARCOND_MODELS_DIR=str(lite0_models_dir))
    assert run().count(WARNING) == 1


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


def test_making_a_stand_in_warns_by_itself_and_is_not_warned_of_again(
    make_settings: MakeSettings, lite0_models_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_settings(CARCOND_MODELS_DIR=str(tmp_path / "empty"))
    monkeypatch.setattr(pretrained_encoder, "build_pretrained_encoder", lambda *_: find_encoder(lite0_models_dir))
    output = run()
    assert WARNING not in output
    assert "tf_efficientnet_lite0" in output


def test_an_encoder_of_another_network_needs_pytorch(
    make_settings: MakeSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_settings(CARCOND_MODELS_DIR=str(tmp_path), CARCOND_BACKBONE="efficientnet_b2")
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(MissingPackageError, match=r"an encoder of efficientnet_b2.*scripts/setup train"):
        CliRunner().invoke(app, ["encoder"], catch_exceptions=False)
