"""The exported file is run by ONNX Runtime alone, as a program elsewhere would."""

import json
from importlib import util
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
from typer.testing import CliRunner

from backend.cli.main import app
from backend.services import get_services
from carcond.data.images import decode_photo, to_pixels
from carcond.errors import EncoderError
from carcond.model import onnx_export as portable_model
from carcond.model.heads import Heads
from tests.backend.conftest import MakeSettings
from tests.backend.versions import write_version


@pytest.fixture
def heads(make_settings: MakeSettings, models_dir: Path) -> Heads:
    make_settings()
    return write_version(models_dir)


def run(*arguments: str) -> str:
    result = CliRunner().invoke(app, ["export-model", *arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_the_file_alone_answers_what_is_served(heads: Heads, tmp_path: Path, drawn_cars: list[bytes]) -> None:
    path = tmp_path / "condition.onnx"
    card = json.loads(run(str(path), "--json"))
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    assert json.loads(session.get_modelmeta().custom_metadata_map["carcond"]) == card
    assert card["version"] == "carcond-0001"
    encoder = get_services().encoder(heads.encoder_id)
    assert card["encoder"]["encoder_id"] == encoder.encoder_id
    photos = [decode_photo(data, target=64, max_pixels=10**8) for data in drawn_cars]
    pixels = np.stack([to_pixels(photo, encoder.spec) for photo in photos])
    expected = heads.probabilities(encoder.embed(pixels))
    found = dict(zip(card["tasks"], session.run(list(card["tasks"]), {"pixels": pixels}), strict=True))
    assert set(found) == {"cleanliness", "damage"}
    for key, probabilities in expected.items():
        assert card["tasks"][key] == list(heads.by_task[key].task.class_keys)
        np.testing.assert_allclose(found[key], probabilities, atol=1e-6)


def test_the_export_says_what_it_wrote(heads: Heads, tmp_path: Path) -> None:
    text = run(str(tmp_path / "condition.onnx"))
    assert "carcond-0001" in text
    assert "damage (intact, damaged)" in text


def test_an_unfaithful_export_is_refused_and_not_written(
    heads: Heads, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(portable_model, "TOLERANCE", -1.0)
    with pytest.raises(EncoderError, match="not faithful"):
        run(str(tmp_path / "condition.onnx"))
    assert not (tmp_path / "condition.onnx").exists()


def test_without_the_package_it_is_told_what_to_install(
    heads: Heads, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("backend.cli.commands.export_model.find_spec", lambda name: None if name == "onnx" else util)
    with pytest.raises(EncoderError, match="pip install onnx"):
        run(str(tmp_path / "condition.onnx"))


def test_a_place_that_cannot_be_written_is_named(heads: Heads, tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["export-model", str(tmp_path / "nowhere" / "condition.onnx")])
    assert result.exit_code == 2
    assert "cannot be written" in result.output
