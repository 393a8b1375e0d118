"""The examples of docs/fleet.md, each run as a command line."""

import re
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from backend.cli.main import app
from tests.backend.conftest import MakeSettings
from tests.backend.versions import write_version

PAGE = (Path(__file__).resolve().parents[3] / "docs" / "fleet.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"^    carcond (.*)$", PAGE, re.MULTILINE)
TABLE = re.search(r"^    (file,.*(?:\n    .*)+)$", PAGE, re.MULTILINE)


@pytest.fixture
def garage(
    make_settings: MakeSettings,
    models_dir: Path,
    tmp_path: Path,
    drawn_cars: list[bytes],
    monkeypatch: pytest.MonkeyPatch,
) -> Path:
    """A folder with what the examples name."""
    make_settings()
    write_version(models_dir)
    monkeypatch.chdir(tmp_path)
    assert TABLE
    (tmp_path / "fleet.csv").write_text(TABLE[1].replace("\n    ", "\n"), encoding="utf-8")
    names = ("car.jpg", "photos/A123/1.jpg", "photos/B456/1.jpg", "monday/1.jpg", "monday/2.jpg", "tuesday/1.jpg")
    for name, data in zip(names, drawn_cars, strict=True):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(data)
    return tmp_path


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_of_the_page_works(garage: Path, command: str) -> None:
    before = {path.name for path in garage.iterdir()}
    result = CliRunner().invoke(app, shlex.split(command), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    named = set(re.findall(r"\S+\.(?:csv|png|onnx)", command)) - before
    assert named == {path.name for path in garage.iterdir()} - before
    assert "cannot be read" not in result.output


def test_the_page_names_each_command() -> None:
    assert {command.split()[0] for command in COMMANDS} == {"predict", "fleet", "export-model"}
