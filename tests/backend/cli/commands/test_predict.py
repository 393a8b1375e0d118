import csv
import json
import os
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from backend.cli.main import app
from backend.services import get_services
from carcond.errors import LabelTableError, RegistryError, UnreadableImageError
from carcond.model.heads import Heads
from tests.backend.conftest import MakeSettings
from tests.backend.versions import write_version


@pytest.fixture
def heads(make_settings: MakeSettings, models_dir: Path) -> Heads:
    make_settings()
    return write_version(models_dir)


@pytest.fixture
def photos(tmp_path: Path, drawn_cars: list[bytes]) -> Path:
    """Two cars, one of them in a folder, and a file that is no photo."""
    folder = tmp_path / "photos"
    (folder / "night").mkdir(parents=True)
    (folder / "a.jpg").write_bytes(drawn_cars[0])
    (folder / "night" / "b.JPG").write_bytes(drawn_cars[1])
    (folder / "broken.jpg").write_bytes(b"no photo")
    (folder / "notes.txt").write_text("not a photo either")
    return folder


def run(*arguments: str) -> str:
    result = CliRunner().invoke(app, ["predict", *arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_a_folder_is_predicted_in_json(heads: Heads, photos: Path, drawn_cars: list[bytes]) -> None:
    facts = json.loads(run(str(photos), "--json"))
    assert (facts["project"], facts["version"]) == (1, "carcond-0001")
    assert [photo["file"] for photo in facts["photos"]] == ["a.jpg", "night/b.JPG"]
    (unreadable,) = facts["unreadable"]
    assert unreadable["file"] == "broken.jpg"
    assert "expected a JPEG" in unreadable["problem"]
    embedding = get_services().encoder(heads.encoder_id).embed_photo(drawn_cars[0], 10**8)
    expected = heads.by_task["damage"].probabilities(embedding[np.newaxis])[0]
    found = facts["photos"][0]["tasks"]["damage"]["probabilities"]
    np.testing.assert_allclose([found["intact"], found["damaged"]], expected, atol=1e-4)


def test_the_table_and_the_csv_file_have_a_row_for_each_photo(heads: Heads, photos: Path, tmp_path: Path) -> None:
    text = run(str(photos), "--csv", str(tmp_path / "out.csv"))
    with (tmp_path / "out.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["file"] for row in rows] == ["a.jpg", "night/b.JPG", "broken.jpg"]
    for row in rows:
        assert row["file"] in text
    assert rows[0]["cleanliness"] in {"clean", "slightly_dirty", "very_dirty"}
    assert rows[2]["damage"] == ""
    assert "expected a JPEG" in rows[2]["problem"]


def test_one_photo_may_be_named(heads: Heads, photos: Path) -> None:
    assert [photo["file"] for photo in json.loads(run(str(photos / "a.jpg"), "--json"))["photos"]] == ["a.jpg"]


@pytest.mark.parametrize("as_json", [["--json"], []])
def test_photos_with_names_that_are_no_utf_8_are_told_each(heads: Heads, photos: Path, as_json: list[str]) -> None:
    for name, data in (("кот.jpg", (photos / "a.jpg").read_bytes()), ("кит.jpg", b"no photo")):
        (photos / os.fsdecode(name.encode("cp1251"))).write_bytes(data)
    text = run(str(photos), "--csv", str(photos / "out.csv"), *as_json)
    with (photos / "out.csv").open(encoding="utf-8") as file:
        names = [row["file"] for row in csv.DictReader(file)]
    assert names == ["a.jpg", "night/b.JPG", r"\udcea\udcee\udcf2.jpg", "broken.jpg", r"\udcea\udce8\udcf2.jpg"]
    for name in names:
        assert (json.dumps(name) if as_json else name) in text


def test_one_photo_with_a_name_that_is_no_utf_8_may_be_named(heads: Heads, photos: Path) -> None:
    photo = (photos / "a.jpg").rename(photos / os.fsdecode(b"\xea.jpg"))
    assert r"\udcea.jpg" in run(str(photo))


def test_an_empty_folder_is_an_error(heads: Heads, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(LabelTableError, match="expected photos"):
        run(str(tmp_path / "empty"))


def test_a_photo_that_does_not_exist_is_told_as_such(heads: Heads, tmp_path: Path) -> None:
    with pytest.raises(LabelTableError, match=r"nope\.jpg does not exist"):
        run(str(tmp_path / "nope.jpg"))


@pytest.mark.parametrize("place", ["broken.jpg", "."])
def test_when_no_photo_could_be_read_the_reasons_are_told_and_it_fails(heads: Heads, photos: Path, place: str) -> None:
    (photos / "a.jpg").unlink()
    (photos / "night" / "b.JPG").write_bytes(b"")
    arguments = ["predict", str(photos / place), "--csv", str(photos / "out.csv"), "--json"]
    result = CliRunner().invoke(app, arguments)
    assert isinstance(result.exception, UnreadableImageError)  # which `backend.cli.main.main` makes exit code 1
    assert str(result.exception).startswith("none of ")
    unreadable = json.loads(result.stdout)["unreadable"]
    assert "expected a JPEG" in unreadable[0]["problem"]
    with (photos / "out.csv").open(encoding="utf-8") as file:
        assert len(list(csv.DictReader(file))) == len(unreadable)


def test_without_a_version_it_is_told_where_one_was_looked_for(
    make_settings: MakeSettings, models_dir: Path, photos: Path
) -> None:
    make_settings()
    with pytest.raises(RegistryError, match=rf"no model version in {models_dir}"):
        run(str(photos))
    write_version(models_dir)
    with pytest.raises(RegistryError, match="no model version of project 7"):
        run(str(photos), "--project", "7")


def test_with_several_projects_one_has_to_be_named(heads: Heads, models_dir: Path, photos: Path) -> None:
    write_version(models_dir, 12)
    with pytest.raises(RegistryError, match="one of 1, 12"):
        run(str(photos))
    assert json.loads(run(str(photos), "--project", "12", "--json"))["project"] == 12
