"""Two people label eighty photos in Chromium, and do all that people do beside the next photo."""

from dataclasses import dataclass

import pytest

from scripts.labellers.accounts import Account
from scripts.labellers.audit import ledger_differences
from scripts.labellers.crew import Crew
from scripts.labellers.deeds import SHARES, plan_deeds
from scripts.labellers.notebook import Notebook
from scripts.stack import Stack
from tests.browser.conftest import MakeCrew
from tests.e2e.scenario import Scenario

pytestmark = [pytest.mark.e2e, pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(1200)]

POOL, EACH = 140, 40


@dataclass(frozen=True)
class Session:
    """What two people did."""

    crew: Crew
    notebook: Notebook

    def incidents(self, kind: str) -> list[str]:
        """What should not be, of one kind."""
        return [
            f"{each.person} at {each.at_s} s: {each.detail}" for each in self.notebook.incidents if each.kind == kind
        ]


@pytest.fixture(scope="module")
def session(
    stack: Stack, accounts: list[Account], make_crew: MakeCrew, tmp_path_factory: pytest.TempPathFactory
) -> Session:
    """Two people have labelled."""
    folder = tmp_path_factory.mktemp("labelling")
    scenario = Scenario(stack, "labelling", folder, POOL)
    crew, notebook = make_crew(scenario, folder, 1.0), Notebook()
    crew.wait_until_served(POOL)
    crew.label(accounts, [plan_deeds(EACH, f"{number}") for number in (1, 2)], notebook, say=print)
    return Session(crew, notebook)


def test_no_submit_is_refused(session: Session) -> None:
    assert session.incidents("refused") == []
    assert session.notebook.submits >= 2 * EACH


def test_label_studio_and_the_serving_version_hold_exactly_what_was_meant(session: Session) -> None:
    assert len(session.notebook.ledger.entries()) >= 2 * EACH - 4
    assert ledger_differences(session.crew, session.notebook.ledger) == []


def test_every_photo_is_of_the_queue(session: Session) -> None:
    assert session.incidents("out_of_queue") == []


def test_hardly_a_photo_opens_without_its_pre_label(session: Session) -> None:
    assert len(session.incidents("blank")) <= 1, session.incidents("blank")


def test_the_pages_have_no_errors(session: Session) -> None:
    assert session.incidents("page_errors") == []


def test_hardly_a_photo_is_served_to_both(session: Session) -> None:
    # Label Studio looks for a lock before it sets its own: two who ask in the same moment can be given one photo.
    assert len(session.incidents("served_twice")) <= 2, session.incidents("served_twice")


def test_everything_that_people_do_was_done_by_both(session: Session) -> None:
    assert all(session.notebook.deeds[deed] >= 2 for deed in SHARES)
    assert session.notebook.deeds.total() == 2 * EACH
