"""Every command in README.md and docs/ that can be run is run, in the order of its page, against the real stack."""

import json
import os
import re
import subprocess
from pathlib import Path

import pytest

from scripts.stack import CHECKOUT, Stack
from tests.docs.code_blocks import PROGRAMS, CodeBlock, blocks_to_run
from tests.e2e.scenario import Scenario

pytestmark = pytest.mark.e2e

# Pages speak of project 1, versions 1 and 2.
_PROJECT = re.compile(r"(--project|/api/projects|project_id)([ /=])1\b")


# Enough for a page to roll back and then to promote the third.
VERSIONS = 5


@pytest.fixture(scope="module")
def reader(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> tuple[Scenario, Path]:
    """A project with some versions, and a folder as a reader has it: checkout, settings, photos, labels."""
    folder = tmp_path_factory.mktemp("reader")
    scenario = Scenario(stack, "Documentation", folder / "photos", photos=60)
    for _ in range(3):
        for _ in range(9):
            scenario.label_next()
        scenario.wait_until_learned()
    while scenario.version().number < VERSIONS:
        scenario.label_next()
        scenario.wait_until_learned()
    for name in (".venv", "scripts", "docker-compose.yml", "backend", "carcond"):
        (folder / name).symlink_to(CHECKOUT / name)
    (folder / "models").symlink_to(stack.environment["CARCOND_MODELS_DIR"])
    (folder / ".carcond").symlink_to(stack.options.data_dir)
    (folder / "car.jpg").symlink_to(sorted((folder / "photos").glob("*.jpg"))[0])
    (folder / "labels.csv").symlink_to(folder / "photos" / "labels.csv")
    export = scenario.api.request("GET", f"/api/projects/{scenario.project_id}/export", params={"exportType": "JSON"})
    (folder / "export.json").write_text(json.dumps(export))
    return scenario, folder


@pytest.mark.parametrize("block", blocks_to_run(), ids=str)
def test_the_commands_of_a_page_can_be_run(block: CodeBlock, reader: tuple[Scenario, Path]) -> None:
    scenario, folder = reader
    if scenario.version().number != scenario.registry.numbers()[-1]:  # another page has rolled back
        scenario.registry.promote(scenario.registry.numbers()[-1], "the test", "each page begins alike")
    text = _PROJECT.sub(rf"\1\g<2>{scenario.project_id}", block.text)
    # A reader has one project; this stack has others, some of them broken on purpose.
    text = re.sub(
        r"carcond (doctor|predict|explain|export-model)\b(?!.*--project)",
        rf"\g<0> --project {scenario.project_id}",
        text,
    )
    environment = {name: os.environ[name] for name in ("LANG", "TMPDIR") if name in os.environ}
    path = f"{CHECKOUT / '.venv' / 'bin'}:{os.environ['PATH']}"
    environment |= scenario.stack.settings | {"PATH": path, "HOME": str(folder)}
    done = subprocess.run(
        [*PROGRAMS[block.language], text],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, f"{text}\n{done.stdout}\n{done.stderr}"
    assert "Traceback" not in done.stderr, done.stderr
