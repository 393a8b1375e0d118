import json
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from backend.cli.main import app
from carcond.errors import RegistryError, UnreadableImageError
from tests.backend.conftest import MakeSettings
from tests.backend.drawings import draw_photo
from tests.backend.fake_label_studio import PROJECT
from tests.backend.garage import Garage


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "car.jpg"
    path.write_bytes(draw_photo(3, cleanliness="clean", damage="damaged"))
    return path


def run(*arguments: object) -> str:
    result = CliRunner().invoke(app, ["explain", *map(str, arguments)], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_a_photo_gets_a_picture_with_both_tasks_and_the_answers(
    trained: tuple[Garage, list[int]], photo: Path, tmp_path: Path
) -> None:
    text = run(photo, "--output", tmp_path / "why.png")
    assert text.startswith("carcond-0001: Cleanliness: ")
    assert "Damage: " in text
    with Image.open(tmp_path / "why.png") as picture, Image.open(photo) as original:
        assert picture.format == "PNG"
        assert picture.width > 2 * original.width


def test_json_tells_what_the_heads_say(trained: tuple[Garage, list[int]], photo: Path, tmp_path: Path) -> None:
    facts = json.loads(run(photo, "--output", tmp_path / "why.png", "--project", PROJECT, "--json"))
    services = trained[0].services
    version = services.registry(PROJECT).current()
    assert version is not None
    embedding = services.encoder(version.heads.encoder_id).embed_photo(photo.read_bytes(), 10**7)
    for key, rows in version.heads.probabilities(embedding[None]).items():
        task = facts["tasks"][key]
        assert list(task["probabilities"].values()) == pytest.approx(rows[0], abs=1e-3)
        assert task["confidence"] == max(task["probabilities"].values())
        assert task["probabilities"][task["class"]] == task["confidence"]
    assert facts["version"] == "carcond-0001"
    assert set(facts) == {"version", "tasks", "suspected_damage", "picture"}


def test_an_older_version_can_be_asked(trained: tuple[Garage, list[int]], photo: Path, tmp_path: Path) -> None:
    garage, ids = trained
    garage.label(*ids[12:30])
    assert garage.settle().version == "carcond-0002"
    old, new = (
        json.loads(run(photo, "--output", tmp_path / "why.png", "--version", version, "--json"))
        for version in ("1", "carcond-0002")
    )
    assert (old["version"], new["version"]) == ("carcond-0001", "carcond-0002")
    assert old["tasks"] != new["tasks"]


def test_what_cannot_be_done_is_one_line_that_says_why(
    trained: tuple[Garage, list[int]], photo: Path, tmp_path: Path
) -> None:
    with pytest.raises(UnreadableImageError, match="the file cannot be read"):
        run(tmp_path / "nothing.jpg", "--output", tmp_path / "why.png")
    with pytest.raises(RegistryError, match="no model version of project 7"):
        run(photo, "--output", tmp_path / "why.png", "--project", "7")
    for output in (tmp_path / "missing" / "why.png", tmp_path / "why.nonsense"):
        result = CliRunner().invoke(app, ["explain", str(photo), "--output", str(output)])
        assert result.exit_code == 2
        assert "--output" in result.output
        assert not output.exists()


def test_with_no_model_at_all_it_says_how_to_find_one(make_settings: MakeSettings, photo: Path, tmp_path: Path) -> None:
    make_settings()
    with pytest.raises(RegistryError, match="there is no model version"):
        run(photo, "--output", tmp_path / "why.png")
