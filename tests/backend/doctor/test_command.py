"""`carcond doctor` as people and scripts use it."""

import json
import os
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from backend.cli.main import app
from tests.backend.conftest import MakeSettings


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["doctor", *arguments], catch_exceptions=False)


def test_where_nothing_runs_all_is_told_and_the_exit_code_is_1(make_settings: MakeSettings) -> None:
    make_settings()
    result = run("--project", "7")
    assert result.exit_code == 1
    text = " ".join(result.stdout.split())
    assert "Label Studio does not answer at http://127.0.0.1:1" in text
    assert "Fix: Start it (scripts/up, docker compose up)" in text
    assert "first mend Label Studio: " in text
    assert "Project 7" in text
    assert "3 faults, " in text


def test_json_is_all_that_is_printed_then(make_settings: MakeSettings) -> None:
    make_settings()
    result = run("--json")
    assert result.exit_code == 1
    report = json.loads(result.stdout)
    assert report["level"] == "fault"
    assert {"name", "level", "project", "check", "what", "why", "fix"} == set(report["findings"][0])


def test_settings_that_cannot_be_used_are_exit_code_2(
    make_settings: MakeSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_settings()
    monkeypatch.setenv("CARCOND_QUEUE_SIZE", "many")
    result = run()
    assert result.exit_code == 2
    assert "CARCOND_QUEUE_SIZE" in result.stderr


def test_nothing_is_made(make_settings: MakeSettings, tmp_path: Path) -> None:
    make_settings()
    before = sorted(os.walk(tmp_path))
    run("--project", "7")
    assert sorted(os.walk(tmp_path)) == before
