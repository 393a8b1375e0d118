import subprocess
import time
from pathlib import Path

import pytest

from scripts.bench_startup import bench_startup, time_stages
from scripts.preflight import StackError

UP = """#!/usr/bin/env bash
mkdir -p .venv .carcond/label-studio-venv
head -c 3000000 /dev/urandom >.venv/packages
head -c 1000000 /dev/urandom >.carcond/label-studio-venv/packages
echo "setup: installing what the stack needs"
echo "setup: carcond is installed, waiting for Label Studio"
echo "setup: done, .venv/bin/carcond is ready"
echo "encoder tf_efficientnet_lite0-0: views 224" >&2
echo "up: 60 new photos imported"
echo "    Open      http://127.0.0.1:8080"
exec sleep 600
"""


def make_repository(folder: Path, up: str) -> Path:
    """A repository whose `scripts/up` says what the real one does."""
    (folder / "scripts").mkdir(parents=True)
    (folder / "scripts" / "up").write_text(up)
    (folder / "scripts" / "up").chmod(0o755)
    git = ["git", "-C", str(folder), "-c", "user.name=Test", "-c", "user.email=test@example.com"]
    for arguments in (["init", "--quiet"], ["add", "."], ["commit", "--quiet", "-m", "Start"]):
        subprocess.run([*git, *arguments], check=True)
    return folder


def test_each_stage_has_its_seconds_and_each_part_its_disk_space(tmp_path: Path) -> None:
    repository, folder = make_repository(tmp_path / "repository", UP), tmp_path / "measured"
    folder.mkdir()
    said: list[str] = []
    report = bench_startup(repository, folder, empty_cache=True, say=said.append)
    assert list(report["seconds"]) == [
        "clone",
        "make environment",
        "install carcond",
        "wait for Label Studio's installation",
        "make encoder",
        "start Label Studio, import photos",
        "connect",
        "total",
    ]
    megabytes = report["megabytes"]
    assert megabytes["carcond's environment"] == pytest.approx(3e6 / 2**20, abs=0.1)
    assert megabytes["Label Studio's environment"] == pytest.approx(1e6 / 2**20, abs=0.1)
    assert megabytes["pip's cache"] == 0
    assert any("http://127.0.0.1:8080" in line for line in said)


def test_a_start_that_fails_is_an_error_and_its_output_is_shown(tmp_path: Path) -> None:
    repository, folder = make_repository(tmp_path / "repository", "#!/bin/sh\necho no space; exit 1\n"), tmp_path / "x"
    folder.mkdir()
    said: list[str] = []
    with pytest.raises(StackError, match="ended before the stage 'make environment'"):
        bench_startup(repository, folder, empty_cache=False, say=said.append)
    assert said == ["no space"]


def test_a_stage_that_says_nothing_counts_to_the_next() -> None:
    lines = ["setup: done, .venv/bin/carcond is ready", "encoder x", "up: 60 new photos imported", "Open http://x"]
    assert next(iter(time_stages(lines, time.monotonic(), lambda _: None))) == "wait for Label Studio's installation"
