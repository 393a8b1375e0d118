from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from carcond.analysis.replay_set import Columns, ReplayDataset, group_rows, load_dataset
from carcond.arrays import IntArray
from carcond.data.label_table import TaskLabels
from carcond.errors import LabelTableError
from carcond.taxonomy import DAMAGE

MAX_PIXELS = 1_000_000


def draw_dataset(groups: IntArray) -> ReplayDataset:
    damage = np.random.default_rng(0).integers(0, 2, len(groups))
    embeddings = np.zeros((len(groups), 2), np.float32)
    return ReplayDataset(embeddings, {"damage": TaskLabels(DAMAGE, damage)}, groups)


def make_rows(count: int, **columns: str) -> list[dict[str, str]]:
    return [{"file": f"{i}.jpg", "damage": "damaged" if i % 2 else "intact"} | columns for i in range(count)]


def load(rows: list[dict[str, str]], groups: IntArray, *, rotate: bool = False) -> ReplayDataset:
    embeddings = np.zeros((len(rows), 2), np.float32)
    return load_dataset(rows, Columns(), embeddings, groups, rotate=rotate)


# Test photos


@pytest.mark.parametrize("first", [0, 5])
def test_each_photo_is_measured_on_by_one_of_five_seeds_and_groups_stay_whole(first: int) -> None:
    groups = np.arange(200) // 2
    dataset = draw_dataset(groups)
    tests = np.stack([dataset.for_seed(seed).measured() for seed in range(first, first + 5)])
    assert (tests.sum(axis=0) == 1).all()
    assert (np.abs(tests.sum(axis=1) - 40) <= 2).all()
    assert (tests[:, ::2] == tests[:, 1::2]).all()
    shares = [dataset.labels["damage"].indices[test].mean() for test in tests]
    assert max(shares) - min(shares) < 0.1


def test_the_next_five_seeds_deal_anew() -> None:
    dataset = draw_dataset(np.arange(200))
    first, other = ({tuple(dataset.for_seed(s + start).measured()) for s in range(5)} for start in (0, 5))
    assert not first & other


def test_marked_test_photos_are_those_of_every_seed() -> None:
    rows = [row | {"split": "test" if i < 4 else "train"} for i, row in enumerate(make_rows(12))]
    dataset = load(rows, np.arange(12))
    assert [np.flatnonzero(dataset.for_seed(seed).measured()).tolist() for seed in (0, 7)] == [[0, 1, 2, 3]] * 2


def test_marked_test_photos_can_be_done_without() -> None:
    rows = [row | {"split": "test" if i < 4 else "train"} for i, row in enumerate(make_rows(20))]
    assert load(rows, np.arange(20), rotate=True).test is None


def test_a_set_for_no_seed_has_no_test_photos_yet() -> None:
    with pytest.raises(ValueError, match="expected a set for one seed"):
        draw_dataset(np.arange(20)).pool()


def test_a_split_that_a_group_crosses_is_refused_with_two_of_its_photos() -> None:
    rows = [row | {"split": "test" if i < 4 else "train"} for i, row in enumerate(make_rows(12))]
    groups = np.arange(12)
    groups[7] = groups[2]
    with pytest.raises(LabelTableError, match=r"got 7\.jpg in train and 2\.jpg in test, and the same of 1 groups"):
        load(rows, groups)
    assert load(rows, groups, rotate=True).test is None


# Groups


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Photos 0 to 5, of which 3 is a smaller copy of 0."""
    for i in range(6):
        pixels = np.random.default_rng(i).integers(0, 256, (6, 9, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((180, 120), Image.Resampling.BICUBIC).save(tmp_path / f"{i}.jpg", quality=95)
    with Image.open(tmp_path / "0.jpg") as photo:
        photo.resize((120, 80)).save(tmp_path / "3.jpg")
    return tmp_path


def test_near_duplicates_are_grouped_where_no_column_says_so(folder: Path) -> None:
    groups = group_rows(make_rows(6), folder, MAX_PIXELS)
    assert groups[0] == groups[3]
    assert len(set(groups.tolist())) == 5


def test_a_row_without_a_group_joins_that_of_its_near_duplicate(folder: Path) -> None:
    rows = [row | {"group": name} for row, name in zip(make_rows(6), ("a", "b", "a", "", "", "b"), strict=True)]
    groups = group_rows(rows, folder, MAX_PIXELS).tolist()
    assert groups[0] == groups[2] == groups[3]
    assert groups[1] == groups[5]
    assert len(set(groups)) == 3


def test_named_groups_are_taken_as_they_are_and_no_photo_is_read(tmp_path: Path) -> None:
    rows = [row | {"group": name} for row, name in zip(make_rows(4), "abab", strict=True)]
    groups = group_rows(rows, tmp_path / "nowhere", MAX_PIXELS).tolist()
    assert groups[0] == groups[2] != groups[1] == groups[3]


def test_a_photo_that_cannot_be_read_is_a_group_of_its_own(folder: Path) -> None:
    (folder / "1.jpg").write_bytes(b"broken")
    (folder / "4.jpg").unlink()
    groups = group_rows(make_rows(6), folder, MAX_PIXELS).tolist()
    assert groups[0] == groups[3]
    assert len(set(groups)) == 5
