"""Encoders on this machine's disk. Versions are in tests/e2e/test_doctor.py."""

import json
from pathlib import Path

from backend.doctor.models import check_encoder
from carcond.encoder import find_encoder
from tests.backend.doctor.conftest import Look


def test_an_encoder_that_is_whole_is_fine(look: Look, models_dir: Path) -> None:
    assert look(check_encoder)[""].what == find_encoder(models_dir).name


def test_no_encoder_is_told_with_the_command_that_makes_one(look: Look, tmp_path: Path) -> None:
    found = look(check_encoder, CARCOND_MODELS_DIR=str(tmp_path / "none"))["no-encoder"]
    assert found.fix.startswith(f"carcond encoder, with CARCOND_MODELS_DIR={tmp_path / 'none'}")


def test_a_damaged_encoder_is_told_with_the_commands_that_mend_it(look: Look, models_dir: Path) -> None:
    directory = find_encoder(models_dir)
    with (directory / "encoder.onnx").open("ab") as file:
        file.write(b"!")
    assert look(check_encoder)["encoder-broken"].fix == f"rm -r {directory} && carcond encoder"


def test_a_stand_in_is_told_with_what_it_stands_for_and_why(look: Look, models_dir: Path) -> None:
    path = find_encoder(models_dir) / "encoder.json"
    card = json.loads(path.read_text())
    card |= {"fallback_reason": "the hub was away", "request": {"backbone": "efficientnet_b4", "weights": "hub"}}
    path.write_text(json.dumps(card))
    assert "a stand-in for efficientnet_b4: the hub was away" in look(check_encoder)["fallback-encoder"].what
