import json
from pathlib import Path

import pytest
from PIL import Image

from carcond.training.curves import curve_points, save_training_curves
from carcond.training.history import Epoch, Measured, best_epoch, is_exhausted


def epochs(*losses: float | None) -> list[Epoch]:
    return [
        Epoch(
            number,
            Measured(1.0 / (number + 1), {"damage": 0.5}, None) if number else None,
            Measured(loss, {"damage": 0.6, "cleanliness": 0.7}, 0.4),
            1e-4,
            2.0,
        )
        for number, loss in enumerate(losses)
    ]


@pytest.mark.parametrize(
    ("losses", "best"),
    [((3.0, 2.0, 1.0), 2), ((1.0, 2.0), 0), ((3.0, 1.0, 1.0), 1), ((None, None), 1), ((None, 2.0), 1)],
)
def test_the_best_epoch_has_the_lowest_validation_loss(losses: tuple[float | None, ...], best: int) -> None:
    assert best_epoch(epochs(*losses)) == best


def test_patience_ends_a_training_after_so_many_epochs_without_a_better_loss() -> None:
    assert not is_exhausted(epochs(3.0, 2.0, 2.5), 2)
    assert is_exhausted(epochs(3.0, 2.0, 2.5, 2.1), 2)
    assert not is_exhausted(epochs(3.0, 2.0, 2.5, 2.1), 0)


def test_an_epoch_comes_back_from_json_to_the_last_bit() -> None:
    for epoch in epochs(0.1 + 0.2, 1 / 3):
        assert Epoch.from_json(json.loads(json.dumps(epoch.as_json()))) == epoch


def test_curves_have_a_point_for_each_epoch_that_was_measured() -> None:
    assert curve_points(epochs(3.0, None, 1.0)) == {
        "loss/train": [(1, 0.5), (2, 1 / 3)],
        "loss/validation": [(0, 3.0), (2, 1.0)],
        "accuracy/damage/train": [(1, 0.5), (2, 0.5)],
        "accuracy/damage/validation": [(0, 0.6), (1, 0.6), (2, 0.6)],
        "accuracy/cleanliness/validation": [(0, 0.7), (1, 0.7), (2, 0.7)],
        "combined/validation": [(0, 0.4), (1, 0.4), (2, 0.4)],
    }


@pytest.mark.parametrize("count", [1, 3])
def test_curves_are_drawn_from_the_first_epoch_on(tmp_path: Path, count: int) -> None:
    save_training_curves(epochs(3.0, 2.0, 1.0)[:count], tmp_path / "new" / "curves.png")
    with Image.open(tmp_path / "new" / "curves.png") as image:
        assert image.format == "PNG"
        assert image.width > 1000
