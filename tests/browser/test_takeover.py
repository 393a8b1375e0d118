"""A person in Chromium submits in the moment in which a version takes over, and two submit in the same moment."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from scripts.labellers.accounts import Account
from scripts.labellers.audit import ledger_differences
from scripts.labellers.crew import Crew
from scripts.labellers.deeds import Deed
from scripts.labellers.ledger import Meant
from scripts.labellers.notebook import Notebook
from scripts.stack import Stack
from tests.browser.conftest import MakeCrew
from tests.e2e.scenario import Scenario

pytestmark = [pytest.mark.e2e, pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(900)]

POOL, WARM_UP, TAKEOVERS, PAIRS = 90, 8, 8, 10


@dataclass(frozen=True)
class Started:
    """A project that has a version, and all that was meant so far."""

    scenario: Scenario
    crew: Crew
    notebook: Notebook
    owner: Account

    def label_by_the_api(self) -> None:
        """Let the owner label one more photo, which begins a turn."""
        done = self.scenario.label_next().labelled
        self.notebook.ledger.write(done.task_id, self.owner.user_id, Meant(done.classes))

    def refused(self) -> list[str]:
        return [each.detail for each in self.notebook.incidents if each.kind == "refused"]


@pytest.fixture(scope="module")
def started(
    stack: Stack, accounts: list[Account], make_crew: MakeCrew, tmp_path_factory: pytest.TempPathFactory
) -> Started:
    """Photos of both classes of both tasks are labelled and learnt."""
    folder: Path = tmp_path_factory.mktemp("takeover")
    scenario = Scenario(stack, "takeover", folder, POOL)
    started = Started(scenario, make_crew(scenario, folder, 0.1), Notebook(), accounts[0])
    started.crew.wait_until_served(POOL)
    for _ in range(WARM_UP):
        started.label_by_the_api()
    scenario.wait_until_learned()
    return started


# Before: the new version is there, and its predictions are just being written. After: Label Studio has moved to it.
@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_submit_in_the_second_in_which_a_version_takes_over_is_accepted(
    started: Started, accounts: list[Account], moment: str
) -> None:
    scenario = started.scenario
    with started.crew.seat(accounts[1], started.notebook) as labeller:
        shown = labeller.begin()
        for _ in range(TAKEOVERS):
            assert shown is not None
            watched = scenario.model_version if moment == "after" else lambda: scenario.version().name
            before = watched()
            started.label_by_the_api()
            wait_for_change(watched, before)
            shown = labeller.do(Deed.LABEL, shown)
    assert started.refused() == []
    assert ledger_differences(started.crew, started.notebook.ledger) == []


def wait_for_change(read: Callable[[], str], before: str) -> None:
    """Look often: it is about the second in which it changes."""
    deadline = time.monotonic() + 60
    while read() == before:
        assert time.monotonic() < deadline, f"expected another version than {before}"
        time.sleep(0.03)


def test_of_two_who_submit_in_the_same_moment_none_is_refused_and_both_labels_count(
    started: Started, accounts: list[Account]
) -> None:
    together = threading.Barrier(2, timeout=60)

    def meet() -> None:
        try:
            together.wait()
        except threading.BrokenBarrierError:
            return  # the other one has done all

    notebook = started.notebook
    before = len(notebook.ledger.entries())
    started.crew.label(accounts, [[Deed.LABEL] * PAIRS] * 2, notebook, before_submit=meet)
    assert started.refused() == []
    assert len(notebook.ledger.entries()) == before + 2 * PAIRS
    # Label Studio looks for a lock before it sets its own, so a photo can go to both.
    twice = [each for each in notebook.incidents if each.kind == "served_twice"]
    assert len(twice) <= PAIRS // 4, twice
    assert ledger_differences(started.crew, notebook.ledger) == []
