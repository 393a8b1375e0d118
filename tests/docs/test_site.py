"""The documentation is built as a site, and no link in it, or in the pages beside it, leads nowhere."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.code_blocks import REPOSITORY

# Those of docs/ are checked when the site is built.
OUTSIDE = [*REPOSITORY.glob("*.md"), *(REPOSITORY / folder / "README.md" for folder in ("deploy", "models"))]


@pytest.mark.slow
def test_the_site_is_built_without_a_warning(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "site" / "tutorial" / "index.html").is_file()


@pytest.mark.parametrize("page", OUTSIDE, ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_a_page_outside_the_site_links_to_what_is_there(page: Path) -> None:
    targets = re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text(encoding="utf-8"))
    assert [target for target in targets if not (page.parent / target).exists()] == []
