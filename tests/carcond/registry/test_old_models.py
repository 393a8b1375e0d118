"""Versions and encoders as earlier and later programs write them."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from carcond.errors import EncoderError, RegistryError
from carcond.model import heads as heads_module
from carcond.model.encoder_card import EncoderCard, read_card
from carcond.model.heads import FORMAT, Heads
from carcond.model.version_card import VersionCard
from carcond.registry.registry import Registry
from carcond.reports.card_text import card_text

# Written by the program as it was before formats were counted and cards had a verdict, intervals or sources.
OLD_MODELS = Path(__file__).parents[1] / "old_models"
PROJECT = 1


@pytest.fixture
def models(tmp_path: Path) -> Path:
    return Path(shutil.copytree(OLD_MODELS, tmp_path / "models"))


def heads_file(models: Path, number: int = 1) -> Path:
    return models / "projects" / str(PROJECT) / "versions" / f"{number:04d}" / "heads.safetensors"


def set_format(path: Path, written: str) -> None:
    with safe_open(path, framework="numpy") as file:
        metadata = file.metadata()
    save_file(load_file(path), path, metadata=metadata | {"format": written})


def test_a_version_of_an_earlier_release_serves(models: Path) -> None:
    version = Registry(models, PROJECT).current()
    assert version is not None
    assert (version.name, version.heads.encoder_id) == ("carcond-0001", "tiny-00000000")
    embeddings = np.random.default_rng(0).normal(size=(5, 32)).astype(np.float32)
    for key, classes in {"cleanliness": 3, "damage": 2}.items():
        probabilities = version.heads.probabilities(embeddings)[key]
        assert probabilities.shape == (5, classes)
        np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-5)


def test_the_labels_and_the_card_of_an_earlier_release_are_read(models: Path) -> None:
    registry = Registry(models, PROJECT)
    assert len(registry.labels(1)) == 12
    assert [task.name for task in registry.load(1).card.tasks] == ["Cleanliness", "Damage"]
    assert "carcond-0001" in card_text(registry.card(1))


def test_versions_go_on_after_those_of_an_earlier_release(models: Path) -> None:
    registry = Registry(models, PROJECT)
    old = registry.load(1)
    assert registry.write(old.heads, VersionCard(parent=old.name), []) == 2
    with safe_open(heads_file(models, 2), framework="numpy") as file:
        assert file.metadata()["format"] == str(FORMAT)


@pytest.mark.parametrize("written", [str(FORMAT + 1), "12.1", "next"])
def test_heads_of_a_newer_format_are_refused_with_what_to_do(models: Path, written: str) -> None:
    set_format(heads_file(models), written)
    with pytest.raises(RegistryError, match=f"of format {FORMAT} or older.*'{written}': a newer carcond wrote it"):
        Heads.load(heads_file(models))


def test_a_version_of_a_newer_format_leaves_the_last_readable_one_serving(
    models: Path, caplog: pytest.LogCaptureFixture
) -> None:
    registry = Registry(models, PROJECT)
    registry.promote(registry.write(registry.load(1).heads, VersionCard(), []))
    set_format(heads_file(models, 2), str(FORMAT + 1))
    serving = Registry(models, PROJECT).current()
    assert serving is not None
    assert serving.name == "carcond-0001"
    assert "a newer carcond wrote it" in caplog.text


def test_a_later_program_reads_the_heads_of_this_one(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heads_module, "FORMAT", FORMAT + 1)
    assert set(Heads.load(heads_file(models)).by_task) == {"cleanliness", "damage"}


def test_the_card_of_an_earlier_encoder_is_read(models: Path) -> None:
    card = read_card(models / "encoders" / "tiny-00000000")
    assert (card.encoder_id, card.dimension, card.format) == ("tiny-00000000", 32, 1)
    assert EncoderCard.model_validate_json(card.model_dump_json()) == card


def test_an_encoder_of_a_newer_format_is_refused_with_what_to_do(models: Path) -> None:
    path = models / "encoders" / "tiny-00000000" / "encoder.json"
    # Fields that this program needs may be called otherwise there.
    path.write_text(json.dumps({"format": 7, "name": "tiny"}))
    with pytest.raises(EncoderError, match=r"of format 1 or older.*of format 7: a newer carcond wrote it"):
        read_card(path.parent)
