"""A fine-tuning on a host that shares no disk with the others; a tiny encoder stands for what is learnt."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from backend.loop.encoder_trial import candidate_encoder
from backend.services import Services
from backend.worker import finetuning
from backend.worker.finetuning import FineTuning
from carcond.data.split import HOLDOUT, TRAIN
from carcond.model.encoder import encoder_directory, encoders_dir
from carcond.model.encoder_card import read_card
from carcond.registry.object_store import ModelMirror
from carcond.training.request import MODELS, REQUEST, TrainingRequest
from tests.backend.fake_label_studio import PROJECT
from tests.backend.garage import Garage
from tests.conftest import MakeEncoder

BASE, TUNED = "tiny-00000000", "tiny-00000001"


@pytest.fixture
def requests(make_tiny_encoder: MakeEncoder, monkeypatch: pytest.MonkeyPatch) -> list[TrainingRequest]:
    """What the process that trains was asked for; it is not started."""
    asked: list[TrainingRequest] = []

    def train(directory: Path, *_: Any) -> Mapping[str, Any]:
        request = TrainingRequest.model_validate_json((directory / REQUEST).read_bytes())
        assert all(photo.file.stat().st_size for photo in request.photos)
        asked.append(request)
        made = make_tiny_encoder(directory / MODELS, 1)
        card = read_card(made).model_copy(update={"tuning": request.tuning()})
        (made / "encoder.json").write_text(card.model_dump_json())
        return {"encoder_id": TUNED, "facts": {}}

    monkeypatch.setattr(finetuning, "run_trainer", train)
    return asked


def test_the_new_encoder_reaches_other_hosts_and_what_all_projects_use_stays(
    trained: tuple[Garage, list[int]], requests: list[TrainingRequest], tmp_path: Path
) -> None:
    garage, _ = trained
    url = f"file://{tmp_path / 'store'}"
    settings = garage.services.settings
    ModelMirror(settings.models_dir, url).push_encoders()
    here = Services(settings.model_copy(update={"models_url": url}))
    labels: list[int] = []
    tuning = FineTuning(here, PROJECT, lambda _: None, lambda: False)
    assert tuning.run(labels.append)["encoder_id"] == TUNED
    assert labels == [12]
    assert not tuning.directory.exists()

    elsewhere = Services(settings.model_copy(update={"models_url": url, "models_dir": tmp_path / "elsewhere"}))
    elsewhere.pull_models(PROJECT)
    assert elsewhere.encoder_id() == BASE
    assert read_card(encoder_directory(tmp_path / "elsewhere", TUNED)).tuning == requests[0].tuning()
    assert elsewhere.encoder(TUNED).encoder_id == TUNED
    serving = garage.services.registry(PROJECT).current()
    assert candidate_encoder(elsewhere, PROJECT, serving) == TUNED
    here.store.close()
    here.photos.close()


def test_the_hold_out_is_not_handed_to_the_training(garage: Garage, requests: list[TrainingRequest]) -> None:
    garage.label(*garage.add_photos(48)[:30])  # they came labelled: a fifth is held out
    garage.settle()
    FineTuning(garage.services, PROJECT, lambda _: None, lambda: False).run(lambda _: None)
    sides = {task_id: row["side"] for task_id, row in garage.rows().items()}
    assert HOLDOUT in sides.values()
    handed = {photo.task for photo in requests[0].photos}
    assert handed == {task_id for task_id, side in sides.items() if side == TRAIN}
    assert {photo.side for photo in requests[0].photos} == {"train", "validation"}
    assert json.loads(requests[0].model_dump_json())["base"] == BASE
    assert (encoders_dir(garage.services.settings.models_dir) / "current").read_text() == f"{BASE}\n"
