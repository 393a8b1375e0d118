import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from carcond.arrays import FloatArray
from carcond.model.damage_box import Box, suspected_box


def spots(*places: tuple[int, int, float]) -> FloatArray:
    evidence = np.full((7, 7), -1.0, np.float32)
    for row, column, value in places:
        evidence[row, column] = value
    return evidence


def test_the_box_lies_around_the_place_that_speaks_most() -> None:
    box = suspected_box(spots((1, 5, 6.0)))
    assert box is not None
    assert box.left < 5.5 / 7 < box.left + box.width
    assert box.top < 1.5 / 7 < box.top + box.height
    assert box.width == pytest.approx(1 / 7, abs=0.05)


def test_a_second_place_that_speaks_less_is_left_out() -> None:
    both = suspected_box(spots((1, 1, 6.0), (5, 5, 4.0)))
    assert both == suspected_box(spots((1, 1, 6.0)))


def test_there_is_no_box_where_nothing_speaks_for_the_class() -> None:
    assert suspected_box(np.full((7, 7), -0.1, np.float32)) is None
    assert suspected_box(np.zeros((7, 7), np.float32)) is None


def test_there_is_no_box_where_nearly_everything_does() -> None:
    assert suspected_box(np.ones((7, 7), np.float32)) is None


@pytest.mark.parametrize("seed", range(20))
def test_the_box_is_that_of_the_connected_component_that_scipy_finds(seed: int) -> None:
    evidence = np.random.default_rng(seed).normal(size=(7, 7)).astype(np.float32)
    fine = np.asarray(Image.fromarray(evidence).resize((28, 28), Image.Resampling.BICUBIC))
    labels, _ = ndimage.label(fine >= fine.max() / 2)
    rows, columns = ndimage.find_objects((labels == labels.flat[fine.argmax()]).astype(int))[0]
    width, height = columns.stop - columns.start, rows.stop - rows.start
    expected = Box(columns.start / 28, rows.start / 28, width / 28, height / 28)
    assert suspected_box(evidence) == (expected if 0.01 <= width * height / 28**2 <= 0.4 else None)
