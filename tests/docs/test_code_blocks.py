"""Every code block can be run, or says why not; those that can are run by tests/e2e/test_documentation.py."""

import json
import subprocess

import pytest
import yaml

from tests.docs.code_blocks import OWN_TESTS, PROGRAMS, REPOSITORY, CodeBlock, all_blocks, blocks_of

BLOCKS = all_blocks()
KNOWN = {"bash", "sh", "json", "yaml", "python", "xml", "ini", "text"}
SHELL = ("bash", "sh")


def test_a_block_is_found_with_its_line_and_the_reason_why_it_is_not_run() -> None:
    text = "# Page\n\n```bash\ntrue\n```\n\n<!-- not run: takes a day -->\n```bash\nsleep 86400\n```\n"
    assert list(blocks_of("page.md", text)) == [
        CodeBlock("page.md", 4, "bash", "true\n", ""),
        CodeBlock("page.md", 9, "bash", "sleep 86400\n", "takes a day"),
    ]


def test_every_block_says_its_language() -> None:
    assert [f"{block}: {block.language!r}" for block in BLOCKS if block.language not in KNOWN] == []


def test_a_page_that_is_run_by_a_test_of_its_own_is_named_in_it() -> None:
    for page, test in OWN_TESTS.items():
        assert page in (REPOSITORY / test).read_text(encoding="utf-8")


def test_a_reason_stands_only_before_what_would_be_run() -> None:
    assert [str(block) for block in BLOCKS if block.reason and block.language not in PROGRAMS] == []


@pytest.mark.parametrize("block", [b for b in BLOCKS if b.language in SHELL], ids=str)
def test_a_shell_block_is_valid_bash(block: CodeBlock) -> None:
    text = block.text.replace("<this repository>", "repository")
    done = subprocess.run(["bash", "-n"], input=text, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("block", [b for b in BLOCKS if b.language in ("json", "yaml")], ids=str)
def test_a_data_block_can_be_read(block: CodeBlock) -> None:
    json.loads(block.text) if block.language == "json" else yaml.safe_load(block.text)
