"""`scripts/setup` with a stand-in for Python, which notes how it is called and installs nothing."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

SETUP = Path(__file__).resolve().parents[2] / "scripts" / "setup"

PYTHON = """#!/usr/bin/env bash
trap 'echo "ended: $*" >>"$CALLS"; kill $(jobs -p); exit 143' TERM
echo "$*" >>"$CALLS"
case "$*" in
    "-m venv"*) mkdir -p "$3/bin" && cp "$0" "$3/bin/python" ;;
    *"pip install"*"--editable"*)
        if [ -n "${PIP_FAILS:-}" ]; then
            until grep -q label_studio_install "$CALLS"; do sleep 0.05; done
            exit 1
        fi
        touch .venv/bin/carcond && chmod +x .venv/bin/carcond ;;
    *label_studio_install*)
        if [ -n "${LABEL_STUDIO_FAILS:-}" ]; then echo "no room" >&2; exit 1; fi
        if [ -n "${PIP_FAILS:-}" ]; then sleep 60 & wait; fi ;;
esac
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    folder = tmp_path / "checkout"
    (folder / "scripts").mkdir(parents=True)
    shutil.copy(SETUP, folder / "scripts" / "setup")
    for name in ("pyproject.toml", "constraints.txt", "requirements-no-deps.txt"):
        (folder / name).write_text("one\n")
    (tmp_path / "python").write_text(PYTHON)
    (tmp_path / "python").chmod(0o755)
    return folder


def set_up(checkout: Path, *sets: str, **environment: str) -> subprocess.CompletedProcess[str]:
    stand_in = {"PYTHON": str(checkout.parent / "python"), "CALLS": str(checkout.parent / "calls")}
    return subprocess.run(
        [checkout / "scripts" / "setup", *sets],
        env=os.environ | stand_in | environment,
        capture_output=True,
        text=True,
        check=False,
    )


def calls(checkout: Path, part: str) -> list[str]:
    path = checkout.parent / "calls"
    return [line for line in path.read_text().splitlines() if part in line] if path.exists() else []


def test_the_stack_gets_what_it_needs_and_label_studio_beside_it(checkout: Path) -> None:
    done = set_up(checkout, "up")
    assert done.returncode == 0, done.stderr
    (installed,) = calls(checkout, "--editable")
    assert installed.endswith(".[encoder,local]")
    assert len(calls(checkout, "label_studio_install")) == 1
    assert "what the stack needs" in done.stdout


def test_each_set_is_installed_once_and_all_of_them_hold_each(checkout: Path) -> None:
    for name in ("up", "up", "demo", "demo"):
        assert set_up(checkout, name).returncode == 0
    assert len(calls(checkout, "--editable")) == 2
    for sets in ((), ("train",), ("up",)):
        assert set_up(checkout, *sets).returncode == 0
    assert [line.rpartition(".[")[2] for line in calls(checkout, "--editable")] == [
        "encoder,local]",
        "demo]",
        "encoder,train,local,demo,dev,s3]",
    ]


def test_changed_requirements_are_installed_anew(checkout: Path) -> None:
    set_up(checkout, "up")
    (checkout / "constraints.txt").write_text("two\n")
    set_up(checkout, "up")
    assert len(calls(checkout, "--editable")) == 2


def test_a_label_studio_that_cannot_be_installed_is_an_error_with_its_reason(checkout: Path) -> None:
    done = set_up(checkout, "up", LABEL_STUDIO_FAILS="1")
    assert done.returncode == 1
    assert "no room" in done.stderr
    assert "Label Studio could not be installed" in done.stderr


def test_when_pip_fails_the_installation_of_label_studio_is_ended(checkout: Path) -> None:
    done = set_up(checkout, "up", PIP_FAILS="1")
    assert done.returncode == 1
    assert "pip could not install" in done.stderr
    assert calls(checkout, "ended: -m scripts.label_studio_install")
    assert not calls(checkout, "requirements-no-deps")
    assert set_up(checkout, "up").returncode == 0  # and it goes on


def test_an_unknown_set_is_refused(checkout: Path) -> None:
    done = set_up(checkout, "everything")
    assert done.returncode == 1
    assert "expected up, train, demo, s3" in done.stderr
    assert not calls(checkout, "pip install")
