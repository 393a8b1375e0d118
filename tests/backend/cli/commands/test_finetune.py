import csv
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from accelerate.state import AcceleratorState
from typer.testing import CliRunner, Result

from backend.cli.main import app
from carcond.errors import CarcondError, LabelTableError, SettingsError, TrainingError
from carcond.settings import get_settings
from tests.carcond.training.trainings import SMALL, draw_photos

pytestmark = pytest.mark.slow


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Thirty drawn photos and their labels; one row has a photo that is not there, one a word of no class."""
    monkeypatch.chdir(tmp_path)
    AcceleratorState._reset_state(True)
    training = draw_photos(tmp_path / "photos", 30)
    rows = [{"file": photo.name, "damage": "", "cleanliness": "", **photo.label.classes} for photo in training.photos]
    rows += [{"file": "gone.png", "damage": "битый", "cleanliness": ""}]
    rows[2]["cleanliness"] = "rusty"
    with (tmp_path / "labels.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, ["file", "damage", "cleanliness"])
        writer.writeheader()
        writer.writerows(rows)
    (tmp_path / "train.yaml").write_text("epochs: 9\nbatch_size: 8\nlearning_rate: 1e-3\n")
    get_settings.cache_clear()
    yield tmp_path
    get_settings.cache_clear()


def invoke(*more: str) -> Result:
    fixed = ["finetune", "labels.csv", "--photos", "photos", "--backbone", SMALL, "--weights", "random"]
    return CliRunner().invoke(app, [*fixed, "--image-size", "64", "--config", "train.yaml", *more])


def test_it_trains_and_prints_nothing_but_json(folder: Path) -> None:
    result = invoke("--epochs", "2", "--loss-weight", "damage=2", "--json")
    assert result.exit_code == 0, result.output
    facts = json.loads(result.stdout)
    assert facts == json.loads((folder / "trained" / "train_report.json").read_text())
    assert facts["used"] == 30
    assert facts["missing_photos"] == ["gone.png"]
    assert [each["label"] for each in facts["unmapped_labels"]] == ["rusty"]
    assert facts["settings"]["loss_weights"] == {"cleanliness": 1.0, "damage": 2.0}
    assert facts["settings"]["batch_size"] == 8
    assert len(facts["history"]) == 3
    assert "photos not found: 1: gone.png" in result.stderr
    assert "epoch 2/2: train loss" in result.stderr


def test_without_json_it_compares_with_the_frozen_encoder(folder: Path) -> None:
    result = invoke("--epochs", "1", "--when-unmarked", "damage=intact", "--output", "other")
    assert result.exit_code == 0, result.output
    assert "fine-tuned" in result.stdout
    assert "on the validation photos" in result.stdout
    assert (folder / "other" / "card.json").is_file()


@pytest.mark.parametrize(
    ("more", "error", "message"),
    [
        (("--epochs", "0"), SettingsError, "epochs: Input should be greater"),
        (("--loss-weight", "rust=2"), SettingsError, "got rust=2"),
        (("--when-unmarked", "damage=rusty"), SettingsError, "got damage=rusty"),
        (("--freeze-until", "blocks.77"), TrainingError, "got 'blocks.77'"),
        (("--config", "absent.yaml"), SettingsError, "absent.yaml cannot be read"),
    ],
)
@pytest.mark.usefixtures("folder")
def test_what_cannot_be_done_is_said(more: tuple[str, ...], error: type[CarcondError], message: str) -> None:
    result = invoke(*more)
    assert isinstance(result.exception, error)
    assert message in str(result.exception)


@pytest.mark.usefixtures("folder")
def test_an_export_that_is_not_there_is_an_error() -> None:
    result = CliRunner().invoke(app, ["finetune", "absent.json", "--photos", "photos"])
    assert isinstance(result.exception, LabelTableError)


@pytest.mark.parametrize("more", [("--loss-weight", "damage"), ("--when-unmarked", "=intact")])
@pytest.mark.usefixtures("folder")
def test_a_malformed_option_is_refused(more: tuple[str, ...]) -> None:
    assert invoke(*more).exit_code == 2
