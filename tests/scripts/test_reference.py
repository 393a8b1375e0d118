"""The reference pages say what the code says."""

import subprocess
import sys
from pathlib import Path

import pytest

from scripts.reference import REPOSITORY, commands_page, findings_page, settings_page, stale_pages


@pytest.mark.slow
def test_the_reference_pages_are_those_of_the_code() -> None:
    command = [sys.executable, "scripts/reference.py", "--check"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_page_that_is_missing_or_edited_is_found(tmp_path: Path) -> None:
    (tmp_path / "edited.md").write_text("# Another\n")
    (tmp_path / "same.md").write_text("# Page\n")
    texts = {"missing.md": "# Page\n", "edited.md": "# Page\n", "same.md": "# Page\n"}
    assert stale_pages(texts, tmp_path) == ["missing.md", "edited.md"]


def test_a_setting_is_told_with_its_variable_default_and_bounds() -> None:
    page = settings_page()
    assert "| `REDIS_URL` | `redis://127.0.0.1:6379/0` | URL of Redis, which holds the job queue. |" in page
    assert "| `CARCOND_QUEUE_SIZE` | `20` | Number of photos in the queue. (at least 10, at most 1 000) |" in page


def test_a_command_is_told_with_its_example() -> None:
    assert "\n    carcond status --project 1 --watch\n" in commands_page()


def test_a_finding_is_told_with_what_stands_for_what_is_met() -> None:
    assert (
        "| `sampling` | fault | Photos come in order of import, or at random. "
        "| The project's task sampling is SAMPLING, and not WANTED." in findings_page()
    )
