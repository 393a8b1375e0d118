"""What the owner does while people label in Chromium: roll back, and bring more photos."""

import shutil
from concurrent.futures import ThreadPoolExecutor

import pytest

from carcond.data.synthetic_photos import draw_samples
from scripts.labellers.accounts import Account
from scripts.labellers.audit import ledger_differences
from scripts.labellers.deeds import plan_deeds
from scripts.labellers.notebook import Notebook
from scripts.stack import Stack
from tests.browser.conftest import MakeCrew
from tests.e2e.scenario import Scenario, wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(900)]

POOL, MORE, EACH = 60, 20, 18


def test_a_rollback_and_an_import_while_two_people_label_refuse_nothing_and_lose_nothing(
    stack: Stack, accounts: list[Account], make_crew: MakeCrew, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder, all_photos = tmp_path_factory.mktemp("owner"), tmp_path_factory.mktemp("all")
    paths = draw_samples(all_photos, POOL + MORE, seed=7, labels=True)  # the first ones are those of the scenario
    scenario = Scenario(stack, "owner", folder, POOL)
    crew, notebook = make_crew(scenario, all_photos, 1.0), Notebook()
    crew.wait_until_served(POOL)
    with ThreadPoolExecutor(1) as pool:
        people = pool.submit(crew.label, accounts, [plan_deeds(EACH, f"{number}") for number in (1, 2)], notebook)
        wait_until(lambda: len(scenario.registry.numbers()) >= 3 or people.done(), "three versions")
        scenario.carcond("versions", "rollback", "--project", str(scenario.project_id), "--why", "to try it")
        chosen = scenario.version().number
        for path in paths[POOL:]:
            shutil.copy(path, folder)
        assert stack.import_photos(scenario.project_id, folder) == MORE
        assert not people.done(), "expected the people to be at work still"
        people.result()
    assert [each for each in notebook.incidents if each.kind in ("refused", "out_of_queue", "page_errors")] == []
    # The earlier version is pinned: what was labelled since is learnt, by versions that do not serve.
    assert ledger_differences(crew, notebook.ledger, serving=False) == []
    assert scenario.version().number == chosen
    scenario.carcond("versions", "unpin", "--project", str(scenario.project_id), "--why", "it was tried")
    assert ledger_differences(crew, notebook.ledger) == []
    crew.wait_until_served(POOL + MORE)
