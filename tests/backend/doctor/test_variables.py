"""Environment variables that are meant for carcond."""

import re
from pathlib import Path

from backend.doctor import variables
from backend.doctor.variables import check_variables
from carcond.settings import FORMER_VARIABLES, Settings, variable_name
from tests.backend.doctor.conftest import Look

ROOT = Path(__file__).resolve().parents[3]


def test_a_misspelt_variable_is_told_with_the_name_that_was_meant(look: Look) -> None:
    found = look(check_variables, CARCOND_GATE_MARGINS="0.1")["unknown-variable"]
    assert found.what == "CARCOND_GATE_MARGINS is set, and carcond has no such setting."
    assert found.fix == "Rename it to CARCOND_GATE_MARGIN, or remove it, and start the processes again"


def test_a_variable_like_no_other_is_told_without_a_guess(look: Look) -> None:
    found = look(check_variables, CARCOND_XYZZY="1")["unknown-variable"]
    assert "docs/reference/settings.md" in found.fix


def test_settings_and_what_the_stack_is_told_are_fine(look: Look) -> None:
    assert set(look(check_variables, CARCOND_GATE_MARGIN="0.1", CARCOND_WORKER_MEMORY="2g", HOME="/root")) == {""}


def test_every_variable_that_the_stack_reads_is_known() -> None:
    files = [ROOT / "Dockerfile", *ROOT.glob("docker-compose*.yml")]
    for folder, pattern in (("docker", "*.py"), ("scripts", "*"), ("deploy", "**/*.yaml"), ("docs", "*.md")):
        files += [path for path in (ROOT / folder).glob(pattern) if path.is_file()]
    read = {name for file in files for name in re.findall(r"CARCOND_[A-Z_]*[A-Z]\b", file.read_text(encoding="utf-8"))}
    settings = {variable_name(setting) for setting in Settings.model_fields}
    assert len(read) > len(variables._STACK)
    assert read - settings - variables._ELSEWHERE - FORMER_VARIABLES.keys() == set()
