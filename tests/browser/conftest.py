"""People who label in Chromium, on the stack that the end-to-end tests share."""

from collections.abc import Callable
from pathlib import Path

import pytest

from scripts.labellers.accounts import Account
from scripts.labellers.crew import Crew
from scripts.oracle import read_truth
from scripts.stack import Stack
from tests.e2e.browser import ARTEFACTS, find_chromium
from tests.e2e.scenario import Scenario

MakeCrew = Callable[..., Crew]


@pytest.fixture(scope="session")
def make_crew() -> MakeCrew:
    """Call with a scenario, the folder with its `labels.csv`, and the seconds for which a photo is looked at."""

    def make(scenario: Scenario, folder: Path, pace_s: float) -> Crew:
        truth = read_truth(folder / "labels.csv")
        return Crew(scenario.stack, find_chromium(), scenario.project_id, truth, pace_s, ARTEFACTS / "labellers")

    return make


@pytest.fixture(scope="session")
def accounts(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> list[Account]:
    """The owner, and a second person who has signed up by the invitation."""
    return Crew(stack, find_chromium(), 0, {}, 1.0, tmp_path_factory.mktemp("accounts")).accounts(2)
