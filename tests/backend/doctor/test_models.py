"""Encoders and damaged versions on this machine's disk. Other versions are in tests/e2e/test_doctor.py."""

import json
from pathlib import Path

import pytest

from backend.doctor.examination import Examination, ProjectExamination
from backend.doctor.finding import Finding, Level
from backend.doctor.models import check_encoder, check_object_store, check_version
from carcond.model.encoder import find_encoder
from carcond.registry.object_store import ModelMirror
from carcond.registry.registry import Registry
from carcond.store.store import Store
from tests.backend.conftest import MakeSettings
from tests.backend.doctor.conftest import Look
from tests.backend.versions import write_version


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


def look_at_version(make_settings: MakeSettings) -> Finding:
    with Examination(make_settings(), "http://127.0.0.1:9090") as whole:
        (found,) = check_version(ProjectExamination(whole, 1))
        return found


def test_a_version_that_is_whole_is_fine_and_so_is_none(make_settings: MakeSettings, models_dir: Path) -> None:
    assert look_at_version(make_settings).what == "no version yet"
    write_version(models_dir)
    assert look_at_version(make_settings).what == "carcond-0001"
    Registry(models_dir, 1).pin_serving(1, "anna", "measured")
    assert look_at_version(make_settings).what == "carcond-0001 serves; carcond-0001 is pinned by anna: measured"


@pytest.mark.parametrize("name", ["heads.safetensors", "card.json"])
def test_a_damaged_version_is_told_with_its_place_what_serves_and_how_to_mend_it(
    name: str, make_settings: MakeSettings, models_dir: Path
) -> None:
    write_version(models_dir)
    write_version(models_dir)
    directory = Registry(models_dir, 1).root / "versions" / "0002"
    (directory / name).write_bytes(b"junk")
    found = look_at_version(make_settings)
    assert (found.name, found.level) == ("version-broken", Level.WARNING)
    assert found.what.startswith("carcond-0002, which was promoted, cannot be read, and carcond-0001 serves instead: ")
    assert str(directory) in found.what
    assert "carcond versions promote VERSION --project 1" in found.fix


def test_a_damaged_version_beside_which_there_is_none_is_told(make_settings: MakeSettings, models_dir: Path) -> None:
    write_version(models_dir)
    (Registry(models_dir, 1).root / "versions" / "0001" / "heads.safetensors").unlink()
    assert "and none serves instead" in look_at_version(make_settings).what
