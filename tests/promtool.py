"""Prometheus's own checker of what it is given to read."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest


def assert_promtool_finds_no_fault(*arguments: str, text: str = "") -> None:
    """Run `promtool check`, with a text to read if it wants one."""
    done = _promtool("check", *arguments, text=text)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "WARNING" not in done.stderr


def assert_rules_do(tests: Path) -> None:
    """Run `promtool test rules` on a file of tests."""
    done = _promtool("test", "rules", str(tests))
    assert done.returncode == 0, done.stdout + done.stderr


def _promtool(*arguments: str, text: str = "") -> subprocess.CompletedProcess[str]:
    """Run promtool. Without it the test is skipped; in CI it has to be there."""
    program = shutil.which("promtool")
    if program is None and os.environ.get("CI") == "true":
        pytest.fail("promtool is missing, and in CI it has to be there")
    if program is None:
        pytest.skip("promtool is not installed: it is in Debian's package prometheus")
    return subprocess.run([program, *arguments], input=text, capture_output=True, text=True, check=False)
