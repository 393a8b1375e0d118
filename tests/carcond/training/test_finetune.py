"""From photos to an encoder with heads, by the smallest network."""

import gzip
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from accelerate.state import AcceleratorState
from safetensors.numpy import load_file
from safetensors.torch import save_file
from sklearn.metrics import f1_score

from carcond.arrays import UNKNOWN
from carcond.data.split import HOLDOUT, TRAIN
from carcond.errors import TrainingError
from carcond.model.car_detector import CLASS_COUNT
from carcond.model.embedding_cache import embed_files
from carcond.model.encoder import Encoder, find_encoder
from carcond.model.head_fitting import fit_temperature
from carcond.model.heads import Heads
from carcond.model.version_card import VersionCard
from carcond.registry.registry import Registry
from carcond.reports.card_text import card_text
from carcond.training.data_report import TrainingReport
from carcond.training.dataset import VALIDATION, TrainingSet
from carcond.training.inputs import PhotoInputs
from carcond.training.offline_training import OfflineTraining
from carcond.training.pretrained_weights import load_backbone
from carcond.training.settings import TrainingSettings
from tests.carcond.training.trainings import SMALL, draw_photos, quick

pytestmark = pytest.mark.slow

COUNT = 60


def asked(training: TrainingSet, output: Path, settings: TrainingSettings, **more: Any) -> OfflineTraining:
    report = TrainingReport(used=len(training.photos))
    return OfflineTraining(training, report, settings, SMALL, "random", output, 10_000_000, **more)


def run(job: OfflineTraining) -> dict[str, Any]:
    AcceleratorState._reset_state(True)
    return job.run(lambda progress: None, lambda done, total: None)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> TrainingSet:
    return draw_photos(tmp_path_factory.mktemp("photos"), COUNT)


@pytest.fixture(scope="module")
def output(drawn: TrainingSet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("runs") / "trained"
    run(asked(drawn, directory, quick(epochs=4, linear_probe=False), tensorboard=True))
    return directory


@pytest.fixture(scope="module")
def report(output: Path) -> dict[str, Any]:
    facts: dict[str, Any] = json.loads((output / "train_report.json").read_text())
    return facts


def test_the_output_is_a_models_directory_with_the_new_encoder_in_use(output: Path, report: dict[str, Any]) -> None:
    encoder = Encoder.load(find_encoder(output))
    assert encoder.encoder_id == report["encoder_id"]
    assert encoder.weights_source == "fine-tuned on 36 photos from random numbers"
    assert encoder.spec.size == 64
    assert Heads.load(output / "heads.safetensors").encoder_id == encoder.encoder_id
    assert not (output / "unfinished").exists()


def test_a_fine_tuned_encoder_keeps_no_classifier_of_what_it_was_before(drawn: TrainingSet, tmp_path: Path) -> None:
    path = tmp_path / "pretrained.safetensors"
    save_file(timm.create_model(SMALL, pretrained=False, num_classes=CLASS_COUNT).state_dict(), path)
    assert load_backbone(SMALL, str(path)).car_head
    job = OfflineTraining(
        drawn, TrainingReport(used=COUNT), quick(epochs=1), SMALL, str(path), tmp_path / "out", 10_000_000
    )
    run(job)
    assert Encoder.load(find_encoder(tmp_path / "out")).car_head is None


def test_the_encoder_computes_what_the_trained_backbone_does(drawn: TrainingSet, output: Path) -> None:
    trained = load_backbone(SMALL, str(output / "backbone.safetensors"))
    untrained = load_backbone(SMALL, "random")
    encoder = Encoder.load(find_encoder(output))
    inputs = PhotoInputs(drawn.files, encoder.spec, quick().augmentation, 10_000_000, 0)
    pixels = torch.stack([inputs.plain(i) for i in range(4)])
    with torch.inference_mode():
        expected, before = (each.module(pixels).mean(dim=(2, 3)).numpy() for each in (trained, untrained))
    scale = np.abs(expected).max()
    np.testing.assert_allclose(encoder.embed(pixels.numpy()), expected, atol=1e-4 * scale)
    assert np.abs(before - expected).max() > 1e-2 * scale


def test_heads_are_fitted_on_train_photos_and_calibrated_on_validation_photos(drawn: TrainingSet, output: Path) -> None:
    heads = Heads.load(output / "heads.safetensors")
    encoder = Encoder.load(find_encoder(output))
    embeddings = embed_files(encoder, drawn.files, output / "cache", 10_000_000, lambda *done: None).embeddings
    chosen = drawn.positions(VALIDATION)
    for key, head in heads.by_task.items():
        indices = drawn.classes()[key][chosen]
        known = indices != UNKNOWN
        expected = fit_temperature(head.logits(embeddings[chosen][known]), indices[known])
        assert head.temperature == pytest.approx(expected, rel=1e-5)
        assert head.cross_fitted


def test_the_card_is_of_the_hold_out_and_the_report_says_the_same(
    drawn: TrainingSet, output: Path, report: dict[str, Any]
) -> None:
    card = json.loads((output / "card.json").read_text())
    assert card["labels"] == {"train": 36, "holdout": 12, "unusable": 0}
    heads, encoder = Heads.load(output / "heads.safetensors"), Encoder.load(find_encoder(output))
    embeddings = embed_files(encoder, drawn.files, output / "cache", 10_000_000, lambda *done: None).embeddings
    held = drawn.positions(HOLDOUT)
    for key, probabilities in heads.probabilities(embeddings[held]).items():
        indices = drawn.classes()[key][held]
        known = indices != UNKNOWN
        expected = f1_score(indices[known], probabilities[known].argmax(axis=1), average="macro")
        assert report["tasks"][key]["macro_f1"] == card["holdout"][key]["macro_f1"] == pytest.approx(expected)
        compared = report["against_frozen"][key]["macro_f1"]
        assert compared["candidate"] == pytest.approx(expected)
        assert compared["serving"] == pytest.approx(report["frozen"][key]["macro_f1"])
    assert "Report card of test_efficientnet-" in card_text(card)
    assert "<!doctype html>" in (output / "report.html").read_text()


def test_curves_history_and_labels_are_written(output: Path, report: dict[str, Any]) -> None:
    assert [epoch["number"] for epoch in report["history"]] == list(range(5))
    assert report["best_epoch"] == min(report["history"], key=lambda epoch: epoch["validation"]["loss"])["number"]
    assert report["used"] == COUNT
    assert report["peak_memory_mb"] > 100
    assert (output / "curves.png").stat().st_size > 10_000
    assert list((output / "tensorboard").glob("events.out.tfevents.*"))
    with gzip.open(output / "labels.jsonl.gz", "rt") as file:
        assert [json.loads(line)["side"] for line in file][:5] == [TRAIN, TRAIN, TRAIN, VALIDATION, HOLDOUT]


def test_a_registry_takes_the_result_as_a_version(output: Path, tmp_path: Path) -> None:
    registry = Registry(tmp_path, 1)
    card = VersionCard(**json.loads((output / "card.json").read_text()))
    number = registry.write(Heads.load(output / "heads.safetensors"), card, [])
    registry.promote(number)
    serving = registry.current()
    assert serving is not None
    assert serving.heads.encoder_id == card.encoder_id


def test_a_complete_run_is_not_run_again_and_another_one_is_refused(drawn: TrainingSet, output: Path) -> None:
    written = (output / "train_report.json").stat().st_mtime_ns
    assert run(asked(drawn, output, quick(epochs=4, linear_probe=False, loader_processes=1)))["epochs"] == 4
    assert (output / "train_report.json").stat().st_mtime_ns == written
    with pytest.raises(TrainingError, match=r"other settings\.epochs, settings\.seed: choose another"):
        run(asked(drawn, output, quick(epochs=5, linear_probe=False, seed=3)))
    with pytest.raises(TrainingError, match="other photos"):
        run(asked(TrainingSet(drawn.photos[1:]), output, quick(epochs=4, linear_probe=False)))


def test_a_tail_on_kept_activations_is_the_same_encoder_up_to_the_frozen_stage(
    drawn: TrainingSet, tmp_path: Path
) -> None:
    report = run(asked(drawn, tmp_path, quick(freeze_until="blocks.4", kept_views=2, linear_probe=False)))
    assert report["history"][-1]["validation"]["loss"] < report["history"][0]["validation"]["loss"]
    before = load_backbone(SMALL, "random").module.state_dict()
    after = load_file(tmp_path / "backbone.safetensors")
    changed = {name.rsplit(".", 1)[0] for name in after if not np.array_equal(after[name], before[name].numpy())}
    assert changed
    assert all(name.startswith(("blocks.4", "conv_head", "bn2")) for name in changed)


@pytest.mark.parametrize("freeze_until", [None, "blocks.4"])
def test_two_views_are_trained_together_and_so_they_are_served(
    drawn: TrainingSet, tmp_path: Path, freeze_until: str | None
) -> None:
    """The loss falls, the weights have timm's names, and the encoder computes what the trained network does."""
    settings = quick(freeze_until=freeze_until, linear_probe=False)
    report = run(asked(drawn, tmp_path, settings, views=(224, 448)))  # 32 and 64 pixels at the image size of the tests
    assert report["best_epoch"] > 0
    assert report["history"][-1]["validation"]["loss"] < report["history"][0]["validation"]["loss"]
    encoder = Encoder.load(find_encoder(tmp_path))
    assert (encoder.card.views, encoder.card.request.views) == ((32, 64), (224, 448))
    trained = load_backbone(SMALL, str(tmp_path / "backbone.safetensors"), (32, 64))
    inputs = PhotoInputs(drawn.files, encoder.spec, settings.augmentation, 10_000_000, 0)
    pixels = torch.stack([inputs.plain(i) for i in range(4)])
    with torch.inference_mode():
        expected = trained.network()(pixels).mean(dim=(2, 3)).numpy()
    np.testing.assert_allclose(encoder.embed(pixels.numpy()), expected, atol=1e-4 * np.abs(expected).max())
    untrained = load_backbone(SMALL, "random").module.state_dict()
    after = load_file(tmp_path / "backbone.safetensors")
    assert any(not np.array_equal(after[name], untrained[name].numpy()) for name in after)


def test_a_training_that_teaches_nothing_keeps_the_frozen_encoder(drawn: TrainingSet, tmp_path: Path) -> None:
    report = run(asked(drawn, tmp_path, quick(epochs=1, learning_rate=1.0)))
    assert report["best_epoch"] == 0
    assert report["against_frozen"]["damage"]["macro_f1"]["difference"] == 0


def test_labels_of_one_class_cannot_be_trained_on(drawn: TrainingSet, tmp_path: Path) -> None:
    label = replace(drawn.photos[1].label, classes={"damage": "damaged"})
    training = TrainingSet([replace(photo, label=label) for photo in drawn.photos])
    with pytest.raises(TrainingError, match="at least two classes of one task in 36 training photos"):
        run(asked(training, tmp_path, quick()))
    assert json.loads((tmp_path / "train_report.json").read_text())["used"] == COUNT


JOB = """
import json, os, sys
from pathlib import Path
from tests.carcond.training.test_finetune import asked, run
from tests.carcond.training.trainings import draw_photos, quick

rank = os.environ.get("RANK", "0")
training = draw_photos(Path(sys.argv[1]) / rank, 60)
run(asked(training, Path(sys.argv[2]), quick(**json.loads(sys.argv[3])), main=rank == "0"))
"""


def start(tmp_path: Path, output: Path, processes: int = 1, **settings: Any) -> subprocess.Popen[bytes]:
    """Processes that train in their own right."""
    script = tmp_path / "job.py"
    script.write_text(JOB)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    torchrun = ["-m", "torch.distributed.run", f"--nproc-per-node={processes}", f"--master-port={port}"]
    command = [sys.executable, *(torchrun if processes > 1 else []), str(script), str(tmp_path / "photos"), str(output)]
    environment = os.environ | {"PYTHONPATH": str(Path.cwd()), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen([*command, json.dumps(settings)], env=environment)


@pytest.fixture
def one_thread() -> Iterator[None]:
    """As the started processes have: the order of sums depends on it."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("one_thread")
def test_two_processes_teach_what_one_does(drawn: TrainingSet, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"epochs": 2, "linear_probe": False}
    job = start(tmp_path, tmp_path / "two", processes=2, **settings)
    one = run(asked(drawn, tmp_path / "one", quick(**settings)))
    assert job.wait(600) == 0
    two = json.loads((tmp_path / "two" / "train_report.json").read_text())
    assert one["history"][-1]["validation"]["loss"] < one["history"][0]["validation"]["loss"]
    for mine, other in zip(two["history"], one["history"], strict=True):
        assert mine["validation"]["loss"] == pytest.approx(other["validation"]["loss"], rel=1e-3)
        assert mine["validation"]["accuracy"] == other["validation"]["accuracy"]
        if other["train"]:
            assert mine["train"]["loss"] == pytest.approx(other["train"]["loss"], rel=1e-3)
            assert mine["train"]["accuracy"] == other["train"]["accuracy"]


@pytest.mark.usefixtures("one_thread")
def test_a_process_that_was_killed_outright_is_gone_on_from(drawn: TrainingSet, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"epochs": 6, "linear_probe": False, "dropout": 0.4}
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    job = start(tmp_path, killed, **settings)
    deadline = time.monotonic() + 900
    while not (killed / "unfinished" / "checkpoints" / "0002").exists() and time.monotonic() < deadline:
        assert job.poll() is None, "it ended before it could be killed"
        time.sleep(0.01)
    job.send_signal(signal.SIGKILL)
    assert job.wait() == -signal.SIGKILL
    assert not (killed / "card.json").exists()
    expected = run(asked(drawn, whole, quick(**settings)))
    found = run(asked(drawn, killed, quick(**settings)))
    assert found["best_epoch"] > 0
    assert found["encoder_id"] == expected["encoder_id"]  # it has a hash of all weights in it
    assert found["tasks"] == expected["tasks"]
    assert found["frozen"] == expected["frozen"]
