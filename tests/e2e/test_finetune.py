"""A fine-tuning beside a real Label Studio: asked for, done by its worker, taken over whole, and rolled back."""

import json
from pathlib import Path
from typing import Any

import pytest

from carcond.data.split import TRAIN
from carcond.data.synthetic_photos import draw_samples
from carcond.model.encoder import encoders_dir, find_encoder
from carcond.model.encoder_card import read_card
from scripts.stack import Stack
from tests.e2e.scenario import Scenario, wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(900)]

PHOTOS = 50
LABELS = 24


def test_a_fine_tuned_encoder_takes_over_while_people_label_and_can_be_rolled_back(
    stack: Stack, tmp_path_factory: pytest.TempPathFactory
) -> None:
    scenario = Scenario(stack, "finetune", tmp_path_factory.mktemp("finetune"), PHOTOS)
    for _ in range(LABELS):
        scenario.label_next()
    scenario.wait_until_learned()
    models_dir = Path(stack.environment["CARCOND_MODELS_DIR"])
    base = find_encoder(models_dir).name
    project = str(scenario.project_id)

    def told(*more: str) -> dict[str, Any]:
        facts: dict[str, Any] = json.loads(scenario.carcond("finetune", "--project", project, "--json", *more))
        return facts

    def fine_tune() -> str | None:
        assert told()["state"] in ("waiting", "running")
        wait_until(lambda: told("--status")["state"] not in ("waiting", "running"), "the end of the training")
        ended = told("--status")
        assert ended["state"] == "done", ended
        encoder_id: str | None = ended["encoder_id"]
        return encoder_id

    before, sides, tuned = scenario.version(), scenario.sides(), fine_tune()
    for _ in range(3):
        if tuned:
            break
        # On four photos for validation an epoch can be worse than none by chance: the encoder stays, as it should.
        for _ in range(3):
            scenario.label_next()
        scenario.wait_until_learned()
        before, sides, tuned = scenario.version(), scenario.sides(), fine_tune()
    assert tuned
    tuning = read_card(encoders_dir(models_dir) / tuned).tuning
    assert tuning
    assert {sides[task_id] for task_id in tuning.trained_on} == {TRAIN}

    # People go on while the pool is shown to it: whatever is served has its pre-label.
    scenario.served.clear()
    for _ in range(3):
        scenario.label_next()
    wait_until(lambda: scenario.version().heads.encoder_id == tuned, "the new encoder to serve")
    scenario.wait_until_quiet()
    for _ in range(2):
        scenario.label_next()
    assert all(slots != () for slots in (served.slots for served in scenario.served))
    assert told("--status")["encoder"]["verdict"] == "accepted"
    assert f"{tuned} was accepted" in scenario.carcond("status", "--project", project)
    assert find_encoder(models_dir).name == base

    # Back, as far as a version of the old encoder; photos that come are seen by it.
    while scenario.version().heads.encoder_id == tuned:
        scenario.carcond("versions", "rollback", "--project", project, "--why", "calls wet cars dirty", "--by", "anna")
    assert scenario.version().number >= before.number
    scenario.carcond("versions", "unpin", "--project", project, "--why", "labels are to be learnt", "--by", "anna")
    more = tmp_path_factory.mktemp("more")
    draw_samples(more, 3, seed=8)
    stack.import_photos(scenario.project_id, more)
    wait_until(lambda: len(scenario.tasks()) == PHOTOS + 3, "the new photos")
    scenario.wait_until_quiet()
    assert scenario.version().heads.encoder_id == base
    assert scenario.model_version() == scenario.version().name
    assert scenario.stale_tasks() == []
