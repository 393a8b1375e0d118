"""The code blocks of README.md and docs/: which of them are run, and why others are not."""

import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
PAGES = sorted([*REPOSITORY.glob("README*.md"), *REPOSITORY.glob("docs/*.md"), REPOSITORY / "deploy" / "README.md"])

OWN_TESTS = {
    "docs/api.md": "tests/backend/web/api/test_api_examples.py",
    "docs/existing-project.md": "tests/e2e/test_existing_project_page.py",
}
"""Pages whose commands want surroundings of their own, and the tests that run them there."""

PROGRAMS = {"bash": ("bash", "-eu", "-o", "pipefail", "-c"), "python": (sys.executable, "-c")}
"""Language -> the program that runs a block of it, given as its last argument."""

_BLOCK = re.compile(
    r"^(?: *<!-- not run: (?P<reason>[^\n]+?) -->\n)?(?P<indent> *)```(?P<language>\w*)\n(?P<text>.*?)^(?P=indent)```$",
    re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True)
class CodeBlock:
    """A fenced block of a page.

    Attributes:
        page: where it stands, from the repository.
        line: of its first line of code, counted from 1.
        language: as it is marked; empty when it is not.
        text: the code.
        reason: why it cannot be run by a test; empty for one that is run.
    """

    page: str
    line: int
    language: str
    text: str
    reason: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def blocks_of(name: str, text: str) -> Iterator[CodeBlock]:
    """The fenced blocks of a page's text."""
    for found in _BLOCK.finditer(text):
        line = text.count("\n", 0, found.start("text")) + 1
        yield CodeBlock(name, line, found["language"], found["text"], found["reason"] or "")


def blocks_to_run() -> list[CodeBlock]:
    """The blocks of shell commands and of Python that are run as they stand."""
    return [b for b in all_blocks() if b.language in PROGRAMS and not b.reason and b.page not in OWN_TESTS]


def all_blocks() -> list[CodeBlock]:
    """The fenced blocks of all pages."""
    return [
        block
        for page in PAGES
        for block in blocks_of(str(page.relative_to(REPOSITORY)), page.read_text(encoding="utf-8"))
    ]
