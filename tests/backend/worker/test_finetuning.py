"""A fine-tuning in the live loop, from labels to the encoder's trial, by the smallest network."""

import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from backend.jobs.finetune_record import FinetuneRecord
from backend.jobs.finetune_requests import start_finetuning
from backend.jobs.queue import get_job_queue
from backend.loop.encoder_trial import trial
from backend.services import Services, get_services
from backend.worker.finetuning import FineTuning
from carcond.data.split import HOLDOUT, TRAIN
from carcond.errors import TrainingCancelledError, TrainingError
from carcond.evaluation.gate import Verdict
from carcond.model.encoder import Encoder, encoder_directory, find_encoder
from carcond.model.encoder_card import read_card
from carcond.training.network import build_encoder
from carcond.training.request import TrainingRequest
from carcond.training.settings import TrainingSettings
from tests.backend.conftest import MakeSettings
from tests.backend.fake_label_studio import PROJECT
from tests.backend.garage import Garage
from tests.backend.http_server import HttpServer, Reply

pytestmark = pytest.mark.slow

SMALL = "test_efficientnet"  # timm's smallest, of EfficientNet's family
HOW = {
    "image_size": 64,
    "batch_size": 8,
    "epochs": 1,
    "learning_rate": 3e-3,
    "linear_probe": False,
    "augmentation": {"smallest_crop": 1, "rotation": 0},
}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A models directory with the smallest network in use."""
    models_dir = tmp_path_factory.mktemp("models")
    build_encoder(models_dir, SMALL, "random")
    return models_dir


@pytest.fixture
def garage(built: Path, tmp_path: Path, server: HttpServer, make_settings: MakeSettings) -> Garage:
    """Forty-eight photos, of which thirty came labelled, and a version on the encoder that is in use."""
    shutil.rmtree(tmp_path / "models")
    shutil.copytree(built, tmp_path / "models")
    config = tmp_path / "training.yaml"
    config.write_text(yaml.safe_dump(HOW))
    make_settings(
        LABEL_STUDIO_URL=server.url,
        CARCOND_BACKBONE=SMALL,
        CARCOND_BACKBONE_WEIGHTS="random",
        CARCOND_FINETUNE_CONFIG=str(config),
    )
    made = Garage(get_services(), server)
    made.label(*made.add_photos(48)[:30])
    assert made.settle().version == "carcond-0001"
    return made


class Watched(FineTuning):
    """A fine-tuning of the garage's project that remembers what it told."""

    def __init__(self, services: Services, is_cancelled: Callable[[], bool] = lambda: False) -> None:
        told: list[Mapping[str, Any]] = []
        super().__init__(services, PROJECT, told.append, is_cancelled)
        object.__setattr__(self, "told", told)


def accept(*_: Any, **__: Any) -> Verdict:
    return Verdict(True, "accepted, for the test", "carcond-0001")


def encoder_of_the_serving_version(garage: Garage) -> str:
    version = garage.services.registry(PROJECT).current()
    assert version
    return version.heads.encoder_id


def test_a_fine_tuned_encoder_takes_over_whole_and_can_be_rolled_back(
    garage: Garage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One training for all of it: it takes half a minute."""
    services, models_dir = garage.services, garage.services.settings.models_dir
    base = find_encoder(models_dir).name
    tuning = Watched(services)
    labels: list[int] = []
    outcome = tuning.run(labels.append)
    tuned = outcome["encoder_id"]

    # What it was trained on is known, and nothing of the hold-out is in it.
    sides = {task_id: row["side"] for task_id, row in garage.rows().items()}
    card = read_card(encoder_directory(models_dir, tuned))
    assert card.tuning
    assert labels == [30]
    assert (card.tuning.project, card.tuning.base, card.tuning.labels) == (PROJECT, base, 30)
    assert HOLDOUT in sides.values()
    assert {sides[task_id] for task_id in card.tuning.trained_on} == {TRAIN}
    assert len(card.tuning.trained_on) < list(sides.values()).count(TRAIN)  # some chose the epoch
    assert Encoder.load(encoder_directory(models_dir, tuned)).spec.size == 64
    assert outcome["facts"]["best_epoch"] == 1
    assert not tuning.directory.exists()
    assert find_encoder(models_dir).name == base  # other projects keep theirs

    # It is shown the pool while the old version serves, and then takes over with the whole queue.
    report = garage.turn()
    assert (report.version, report.candidate, report.candidate_unseen) == ("carcond-0001", tuned, 48)
    assert trial(services, PROJECT, tuned) == {
        "encoder_id": tuned, "verdict": "waits", "version": None, "reason": "", "photos_left": 48
    }  # fmt: skip
    garage.show_pool(tuned)
    assert {p.model_version for i in garage.truth for p in garage.studio.predictions_of(i)} == {"carcond-0001"}
    with monkeypatch.context() as patch:
        patch.setattr("backend.loop.refit.evaluate_candidate", accept)
        assert garage.settle().version == "carcond-0002"
    assert encoder_of_the_serving_version(garage) == tuned
    assert trial(services, PROJECT, tuned)["verdict"] == "accepted"
    waiting = [i for i in garage.truth if i not in garage.rows()]
    assert {garage.studio.prediction(i).model_version for i in waiting} == {"carcond-0002"}
    version = services.registry(PROJECT).current()
    assert version
    # Too few of its training photos are new to the encoder: the temperature is chosen on the hold-out.
    assert version.card.calibration["damage"].cross_fitted

    # New labels and photos are for the new encoder, the one in use for all is no candidate any more.
    garage.label(waiting[0])
    assert garage.turn().candidate == ""
    assert encoder_of_the_serving_version(garage) == tuned

    # Rolled back, the old encoder sees the photos that come and its heads go on learning.
    services.registry(PROJECT).promote(1, "anna", "wet cars", "rollback")
    (added,) = garage.add_photos(1)
    report = garage.settle()
    assert encoder_of_the_serving_version(garage) == base
    assert report.version == "carcond-0004"  # the label that came meanwhile
    assert garage.studio.prediction(added).model_version == "carcond-0004"
    assert all(set(words) == {"cleanliness", "damage"} for words in garage.words(added))
    assert garage.turn().candidate == ""


def test_a_photo_that_has_no_side_yet_is_not_learnt_from(garage: Garage) -> None:
    """A turn may draw it into the hold-out a moment later."""
    store = garage.services.store
    training = [photo.task_id for photo in store.photos(PROJECT) if photo.side == TRAIN]
    store.update_photos(PROJECT, [{"task_id": task_id, "side": None} for task_id in training[:5]])
    photos, labels = Watched(garage.services)._photos(TrainingSettings.model_validate(HOW), 64)
    assert {photo.task for photo in photos} == set(training[5:]) & set(garage.rows())
    assert labels == 30


def test_the_views_of_the_encoder_in_use_are_the_ones_that_are_trained(garage: Garage) -> None:
    """Whatever the settings say now: the weights of its id are to be compared with those that are loaded."""
    base = read_card(find_encoder(garage.services.settings.models_dir)).model_copy(update={"views": (32, 64)})
    request = Watched(garage.services)._request(base, TrainingSettings.model_validate(HOW))
    assert TrainingRequest.model_validate_json(request.model_dump_json()).views == (32, 64)


def test_what_was_begun_is_gone_on_with_and_other_settings_begin_anew(garage: Garage, tmp_path: Path) -> None:
    def cancelled_in_the_middle() -> bool:
        return (tuning.directory / "unfinished" / "checkpoints").exists()

    for path in list(garage.server.answers)[:3]:
        garage.server.answers[path] = Reply(b"no photo")
    tuning = Watched(garage.services, cancelled_in_the_middle)
    with pytest.raises(TrainingCancelledError):
        tuning.run(lambda _: None)
    garage.server.answers.clear()  # no photo is fetched again
    tuned = Watched(garage.services).run(lambda _: None)["encoder_id"]
    card = read_card(encoder_directory(garage.services.settings.models_dir, tuned))
    assert card.tuning
    trained_on = {task_id for task_id, row in garage.rows().items() if row["side"] == TRAIN}
    assert set(card.tuning.trained_on) < trained_on - {1, 2, 3}  # what cannot be read is left out
    (tmp_path / "training.yaml").write_text(yaml.safe_dump({**HOW, "epochs": 2}))
    with pytest.raises(TrainingError, match="got 0 that can be read"):
        Watched(garage.services).run(lambda _: None)
    assert not tuning.directory.exists()


def test_it_can_be_cancelled_while_photos_are_fetched(garage: Garage) -> None:
    asked = len(garage.server.requests)
    with pytest.raises(TrainingCancelledError):
        Watched(garage.services, lambda: True).run(lambda _: None)
    assert len(garage.server.requests) == asked


def test_an_encoder_of_other_weights_than_the_settings_name_is_not_fine_tuned(garage: Garage) -> None:
    others = {"backbone": "test_resnet", "backbone_weights": "random"}
    garage.services.settings = garage.services.settings.model_copy(update=others)
    with pytest.raises(TrainingError, match="expected the weights of test_efficientnet"):
        Watched(garage.services).run(lambda _: None)


def test_a_worker_of_its_own_does_it_and_another_goes_on_when_it_is_killed(
    garage: Garage, redis_url: str, make_settings: MakeSettings, server: HttpServer
) -> None:
    make_settings(LABEL_STUDIO_URL=server.url, REDIS_URL=redis_url, CARCOND_RECONCILE_EVERY_S="1")
    garage.services.store.add_project(PROJECT)
    queue, models_dir = get_job_queue(), garage.services.settings.models_dir
    record = FinetuneRecord(queue.redis, PROJECT)
    directory = Watched(garage.services).directory
    command = [sys.executable, "-m", "backend.worker", "--queues", "finetune"]
    assert start_finetuning(queue, PROJECT, "anna")
    first = subprocess.Popen(command)
    until((directory / "unfinished" / "checkpoints" / "0000").exists)
    first.kill()
    first.wait()
    assert record.is_under_way
    report = garage.turn()  # nobody else is held up
    assert report.version == "carcond-0001"
    second = subprocess.Popen(command)
    try:
        until(lambda: not record.is_under_way)
    finally:
        second.terminate()
        second.wait()
    told = record.read()
    assert (told["state"], told["labels"], told["facts"]["epochs"]) == ("done", 30, 1)
    card = read_card(encoder_directory(models_dir, told["encoder_id"]))
    assert card.tuning
    assert not directory.exists()
    assert len(queue.queues()[0]) == 1  # the turn that has the pool shown to it
    assert garage.turn().candidate == told["encoder_id"]


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 900
    while not condition():
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.02)
