from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState

from carcond.data.split import TRAIN
from carcond.errors import TrainingError
from carcond.model.head_fitting import fit_heads
from carcond.training.checkpoint import Checkpoints
from carcond.training.dataset import VALIDATION, TrainingSet
from carcond.training.history import Epoch
from carcond.training.inputs import PhotoInputs
from carcond.training.loop import TrainingData, TrainingLoop, TrainingProgress, make_accelerator
from carcond.training.network import TwoHeadNetwork
from carcond.training.pretrained_weights import load_backbone
from carcond.training.settings import NO_AUGMENTATION, TrainingSettings
from tests.carcond.training.trainings import SMALL, draw_photos, quick

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> TrainingSet:
    return draw_photos(tmp_path_factory.mktemp("photos"), 40)


@pytest.fixture(autouse=True)
def fresh_accelerator() -> None:
    """Accelerate keeps its first precision for the whole process."""
    AcceleratorState._reset_state(True)


def make_loop(training: TrainingSet, settings: TrainingSettings) -> tuple[TwoHeadNetwork, TrainingLoop]:
    backbone = load_backbone(SMALL, "random")
    backbone = backbone.resized(settings.image_size or backbone.spec.size)
    torch.manual_seed(settings.seed)
    network = TwoHeadNetwork(backbone, settings.dropout)
    inputs = PhotoInputs(training.files, backbone.spec, settings.augmentation, 10_000_000, settings.seed)
    data = TrainingData(inputs, training.classes(), training.positions(TRAIN), training.positions(VALIDATION))
    return network, TrainingLoop(network, data, settings, make_accelerator(settings))


class KilledError(Exception):
    """Stands for the end of the process."""


def kill_at(step: int) -> Callable[[TrainingProgress], None]:
    def watch(progress: TrainingProgress) -> None:
        if progress.step == step:
            raise KilledError

    return watch


def watch_nothing(progress: TrainingProgress) -> None:
    pass


def measured(history: list[Epoch]) -> list[Epoch]:
    """Without what the clock says."""
    return [replace(epoch, seconds=0.0) for epoch in history]


def train(
    training: TrainingSet, settings: TrainingSettings, folder: Path
) -> tuple[list[Epoch], dict[str, torch.Tensor]]:
    network, loop = make_loop(training, settings)
    history = measured(loop.run(Checkpoints(folder), watch_nothing))
    return history, {name: value.contiguous() for name, value in network.state_dict().items()}


def assert_equal_weights(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> None:
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_two_equal_runs_are_equal_to_the_last_bit_and_another_seed_is_not(drawn: TrainingSet, tmp_path: Path) -> None:
    settings = quick(dropout=0.4)
    history, weights = train(drawn, settings, tmp_path / "a")
    again, weights_again = train(drawn, settings, tmp_path / "b")
    assert history == again
    assert_equal_weights(weights, weights_again)
    assert train(drawn, quick(dropout=0.4, seed=1), tmp_path / "c")[0] != history


@pytest.mark.parametrize("killed_at", [0, 3, 7])
def test_a_killed_run_goes_on_and_ends_as_if_nothing_had_happened(
    drawn: TrainingSet, tmp_path: Path, killed_at: int
) -> None:
    settings = quick(dropout=0.4)
    expected, expected_weights = train(drawn, settings, tmp_path / "whole")
    _, loop = make_loop(drawn, settings)
    with pytest.raises(KilledError):
        loop.run(Checkpoints(tmp_path / "killed"), kill_at(killed_at))
    history, weights = train(drawn, settings, tmp_path / "killed")
    assert history == expected
    assert_equal_weights(weights, expected_weights)


def test_accumulated_batches_teach_what_one_large_batch_does(drawn: TrainingSet, tmp_path: Path) -> None:
    large, _ = train(drawn, quick(batch_size=8), tmp_path / "large")
    small, _ = train(drawn, quick(batch_size=2, gradient_accumulation=4), tmp_path / "small")
    for one, other in zip(large, small, strict=True):
        assert one.validation.loss == pytest.approx(other.validation.loss, rel=1e-3)
        assert one.learning_rate == other.learning_rate


def test_the_network_ends_with_the_weights_of_its_best_epoch(drawn: TrainingSet, tmp_path: Path) -> None:
    settings = quick(learning_rate=0.5, epochs=2)  # far too high: nothing gets better than the start
    network, loop = make_loop(drawn, settings)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    history = loop.run(Checkpoints(tmp_path), watch_nothing)
    assert history[0].validation.loss == min(epoch.validation.loss or 0 for epoch in history)
    assert_equal_weights(dict(network.state_dict()), before)


def test_patience_ends_the_training_early(drawn: TrainingSet, tmp_path: Path) -> None:
    history, _ = train(drawn, quick(learning_rate=0.5, epochs=9, patience=2), tmp_path)
    assert [epoch.number for epoch in history] == [0, 1, 2]


def test_the_learning_rate_rises_and_falls_as_a_cosine(drawn: TrainingSet, tmp_path: Path) -> None:
    settings = quick(batch_size=24, epochs=10, warmup=0.3, learning_rate=1e-3, image_size=32)
    history, _ = train(drawn, settings, tmp_path)
    rates = [epoch.learning_rate for epoch in history[1:]]  # a step an epoch
    expected = [1e-5 + step * (1e-3 - 1e-5) / 3 for step in range(3)]
    expected += [0.5e-3 * (1 + np.cos(np.pi * step / 10)) for step in range(3, 10)]
    assert rates == pytest.approx(expected)


def test_two_hundred_photos_are_learnt_without_a_mistake(tmp_path: Path) -> None:
    photos = draw_photos(tmp_path / "photos", 201).photos
    training = TrainingSet([replace(photo, side=VALIDATION if i == 200 else TRAIN) for i, photo in enumerate(photos)])
    _, loop = make_loop(training, quick(epochs=8, augmentation=NO_AUGMENTATION))
    loop.run(Checkpoints(tmp_path / "checkpoints"), watch_nothing)
    assert len(training.positions(TRAIN)) == 200
    assert loop.measure(training.positions(TRAIN)).accuracy == {"cleanliness": 1.0, "damage": 1.0}


def test_the_time_left_is_told_and_ends_at_nothing(drawn: TrainingSet, tmp_path: Path) -> None:
    told: list[TrainingProgress] = []
    make_loop(drawn, quick(epochs=2))[1].run(Checkpoints(tmp_path), told.append)
    assert [progress.step for progress in told] == [0, 1, 2, 3, 3, 4, 5, 6, 6]
    assert told[0].seconds_left is None
    assert told[-1].seconds_left == 0
    assert all(progress.seconds_left is not None and progress.seconds_left > 0 for progress in told[1:-2])


def test_a_network_that_has_taken_over_heads_answers_as_they_do(drawn: TrainingSet) -> None:
    network, loop = make_loop(drawn, quick())
    positions = np.arange(len(drawn.photos))
    embeddings = loop.embeddings(positions)
    classes = drawn.classes()
    classes["cleanliness"] = np.where(classes["cleanliness"] == 1, -1, classes["cleanliness"])
    heads = fit_heads("frozen", embeddings, classes)
    network.adopt(heads)
    network.eval()
    with torch.inference_mode():
        logits = network(torch.stack([loop.data.inputs.plain(i) for i in range(len(positions))]))
    for key, probabilities in heads.probabilities(embeddings).items():
        np.testing.assert_allclose(torch.softmax(logits[key], dim=1).numpy(), probabilities, atol=1e-3)


def test_a_mixed_precision_run_learns_too(drawn: TrainingSet, tmp_path: Path) -> None:
    history, _ = train(drawn, quick(mixed_precision="bf16"), tmp_path)
    assert history[-1].validation.loss is not None
    assert history[0].validation.loss is not None
    assert history[-1].validation.loss < history[0].validation.loss


@pytest.mark.skipif(torch.accelerator.is_available(), reason="there is a GPU")
def test_fp16_without_a_gpu_is_refused() -> None:
    with pytest.raises(TrainingError, match="fp16 needs a GPU"):
        make_accelerator(quick(mixed_precision="fp16"))
