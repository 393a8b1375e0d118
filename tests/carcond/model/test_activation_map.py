import matplotlib as mpl
import numpy as np
import pytest
from PIL import Image

from carcond.arrays import FloatArray
from carcond.model.activation_map import PHOTO_SIDE, overlay, side_by_side

GREY = (120, 120, 120)
TOP = 26  # the caption's room


def photo(width: int = 210, height: int = 140) -> Image.Image:
    return Image.new("RGB", (width, height), GREY)


def spot(row: int, column: int, value: float = 4.0) -> FloatArray:
    activation = np.full((7, 7), -1.0, np.float32)
    activation[row, column] = value
    return activation


@pytest.mark.parametrize(("row", "column"), [(0, 0), (1, 5), (3, 3), (6, 2)])
def test_a_map_is_stretched_over_the_whole_photo(row: int, column: int) -> None:
    """Whatever the photo's proportions: the encoder has seen it squashed into a square."""
    picture = np.asarray(overlay(photo(), spot(row, column)), int)[TOP:, :210]
    change = np.abs(picture - GREY).sum(axis=2)
    y, x = np.unravel_index(change.argmax(), change.shape)
    assert (y // 20, x // 30) == (row, column)


def test_what_speaks_against_the_class_is_the_photo_in_grey() -> None:
    red = Image.new("RGB", (210, 140), (200, 30, 30))
    picture = np.asarray(overlay(red, np.full((7, 7), -3.0, np.float32)))[TOP:, :210]
    assert (picture == red.convert("L").getpixel((0, 0))).all()


def test_a_photo_stays_visible_below_the_brightest_colour() -> None:
    dark, light = (Image.new("RGB", (70, 70), grey) for grey in ((0, 0, 0), (255, 255, 255)))
    activation = np.ones((7, 7), np.float32)
    shown = [np.asarray(overlay(each, activation), int)[TOP + 35, 35] for each in (dark, light)]
    assert (shown[1] - shown[0] > 50).all()


def test_a_common_scale_makes_a_weaker_map_darker() -> None:
    bright, faint = (np.asarray(overlay(photo(), spot(3, 3, v), greatest=4.0), int)[TOP + 70, 105] for v in (4.0, 1.0))
    assert np.abs(bright - GREY).sum() > 2 * np.abs(faint - GREY).sum()


def test_the_colour_bar_runs_from_zero_at_the_bottom_to_the_greatest_at_the_top() -> None:
    bar = np.asarray(overlay(photo(), spot(0, 0)), int)[TOP:, 210 + 8]
    inferno = (255 * np.array(mpl.colormaps["inferno"](np.linspace(1, 0.25, len(bar))))[:, :3]).astype(int)
    assert np.abs(bar - inferno).max() < 40  # it is drawn from four of its colours


def test_the_greatest_activation_stands_beside_the_bar() -> None:
    three, four = (np.asarray(overlay(photo(), spot(0, 0, v)))[TOP : TOP + 20, 236:] for v in (3.0, 4.0))
    assert (three != four).any()


def test_a_caption_stands_above_the_photo() -> None:
    plain, named = (np.asarray(overlay(photo(), spot(0, 0), caption)) for caption in ("", "Damage: damaged 93 %"))
    assert (plain[:TOP, :210] == 255).all()
    assert (named[:TOP] != 255).any()
    assert (plain[TOP:] == named[TOP:]).all()


def test_a_large_photo_is_shrunk_and_a_small_one_left() -> None:
    assert overlay(photo(3000, 1500), spot(0, 0)).size == overlay(photo(PHOTO_SIDE, PHOTO_SIDE // 2), spot(0, 0)).size
    assert overlay(photo(50, 20), spot(0, 0)).height == 20 + TOP


def test_the_photo_itself_is_not_drawn_on() -> None:
    mine = photo()
    overlay(mine, spot(3, 3))
    assert mine.tobytes() == photo().tobytes()


def test_pictures_stand_side_by_side() -> None:
    red, blue = Image.new("RGB", (10, 20), "red"), Image.new("RGB", (30, 10), "blue")
    row = side_by_side([red, blue])
    assert row.size == (40, 20)
    assert [row.getpixel((0, 0)), row.getpixel((10, 0)), row.getpixel((10, 19))] == [
        (255, 0, 0),
        (0, 0, 255),
        (255, 255, 255),
    ]
