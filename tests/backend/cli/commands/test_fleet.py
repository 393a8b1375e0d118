import csv
import json
import os
from pathlib import Path

import pytest
from typer.testing import CliRunner

from backend.cli.main import app
from carcond.errors import LabelTableError
from tests.backend.conftest import MakeSettings
from tests.backend.versions import write_version


@pytest.fixture
def table(make_settings: MakeSettings, models_dir: Path, tmp_path: Path, drawn_cars: list[bytes]) -> Path:
    """Six photos of three cars in two months, a broken one among them, and a version that serves."""
    make_settings()
    write_version(models_dir)
    lines = ["file,car,driver,date"]
    for number, data in enumerate(drawn_cars):
        (tmp_path / f"{number}.jpg").write_bytes(data if number != 5 else b"no photo")
        lines.append(f"{number}.jpg,car {number % 3},driver {number % 2},2026-0{4 + number // 3}-01")
    path = tmp_path / "fleet.csv"
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def run(*arguments: str) -> str:
    result = CliRunner().invoke(app, ["fleet", *arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_cars_are_summed_up_in_json_csv_and_a_picture(table: Path, tmp_path: Path) -> None:
    out, plot = tmp_path / "cars.csv", tmp_path / "cars.png"
    facts = json.loads(run(str(table), "--json", "--csv", str(out), "--plot", str(plot)))
    assert (facts["project"], facts["version"]) == (1, "carcond-0001")
    assert (facts["subjects"], facts["visits"], facts["photos"]) == (3, 6, 6)
    assert [row["name"] for row in facts["rows"]] == ["car 0", "car 1", "car 2"]
    assert any("expected a JPEG" in reason for each in facts["for_a_human"] for reason in each["reasons"])
    with out.open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [(row["car"], row["visits"]) for row in rows] == [("car 0", "2"), ("car 1", "2"), ("car 2", "2")]
    assert rows[0]["damage"] == facts["rows"][0]["damage"]
    assert plot.read_bytes().startswith(b"\x89PNG")


def test_drivers_are_summed_up_as_text(table: Path) -> None:
    text = run(str(table), "--by", "driver")
    assert "2 drivers, 6 visits, 6 photos" in text
    for words in ("driver 0", "driver 1", "2026-05", "To be looked at by a human", "5.jpg"):
        assert words in text


def test_folders_are_cars(table: Path, tmp_path: Path, drawn_cars: list[bytes]) -> None:
    (tmp_path / "garage" / "red").mkdir(parents=True)
    (tmp_path / "garage" / "red" / "1.jpg").write_bytes(drawn_cars[0])
    facts = json.loads(run(str(tmp_path / "garage"), "--json"))
    assert [row["name"] for row in facts["rows"]] == ["red"]
    assert facts["months"] == []


def test_cars_and_photos_with_names_that_are_no_utf_8_are_told(
    table: Path, tmp_path: Path, drawn_cars: list[bytes]
) -> None:
    for car, data in (("кот", drawn_cars[0]), ("кит", b"no photo")):
        folder = tmp_path / "garage" / os.fsdecode(car.encode("cp1251"))
        folder.mkdir(parents=True)
        (folder / os.fsdecode(b"\xea.jpg")).write_bytes(data)
    out, plot = tmp_path / "out.csv", tmp_path / "out.png"
    text = run(str(tmp_path / "garage"), "--csv", str(out), "--plot", str(plot))
    for name in (r"\udcea\udcee\udcf2", r"\udcea\udce8\udcf2"):
        assert name in text
        assert name in out.read_text(encoding="utf-8")
    assert r"\udcea\udce8\udcf2/\udcea.jpg" in text


def test_a_table_that_is_not_there_is_an_error(table: Path, tmp_path: Path) -> None:
    with pytest.raises(LabelTableError, match=r"nothing\.csv"):
        run(str(tmp_path / "nothing.csv"))


@pytest.mark.parametrize("option", ["--csv", "--plot"])
def test_a_place_that_cannot_be_written_is_named(table: Path, tmp_path: Path, option: str) -> None:
    (tmp_path / "file").write_text("in the way")
    result = CliRunner().invoke(app, ["fleet", str(table), option, str(tmp_path / "file" / "out")])
    assert result.exit_code == 2
    assert option in result.output
    assert "cannot be written" in " ".join(result.output.replace("│", " ").split())
