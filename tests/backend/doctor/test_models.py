"""Encoders on this machine's disk. Versions are in tests/e2e/test_doctor.py."""

import json
from pathlib import Path

from backend.doctor.models import check_encoder, check_object_store
from carcond.encoder import find_encoder
from carcond.model_mirror import ModelMirror
from carcond.store import Store
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


def test_models_come_from_the_object_store_first(look: Look, store: Store, models_dir: Path, tmp_path: Path) -> None:
    store.add_project(1)
    bucket, here = tmp_path / "bucket", tmp_path / "here"
    ModelMirror(models_dir, f"file://{bucket}").push_encoders()
    places = {"CARCOND_MODELS_URL": f"file://{bucket}", "CARCOND_MODELS_DIR": str(here)}
    assert look(check_object_store, **places)[""].what == "models are fetched"
    assert find_encoder(here).name == find_encoder(models_dir).name


def test_an_object_store_that_nobody_knows_is_told_with_the_setting(look: Look, store: Store) -> None:
    store.add_project(1)
    assert "CARCOND_MODELS_URL" in look(check_object_store, CARCOND_MODELS_URL="nothing://x")["object-store"].fix
