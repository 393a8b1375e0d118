from collections import Counter

import numpy as np
import pytest
from scipy.stats import chisquare

from carcond.split import HOLDOUT, TRAIN, draw_holdout, settle_sides
from carcond.tables import Photo


def photo(task_id: int, group: int | None, side: str | None = None, drawn: bool = False) -> Photo:
    return Photo(project_id=1, task_id=task_id, url="", group=group, side=side, drawn=drawn)


def photos_in_groups(*groups: int | None) -> list[Photo]:
    """One photo for each number given, with task ids 1, 2, 3, ..."""
    return [photo(i + 1, group) for i, group in enumerate(groups)]


def all_ids(photos: list[Photo]) -> set[int]:
    return {p.task_id for p in photos}


def sides_by_group(photos: list[Photo]) -> dict[int | None, set[str | None]]:
    sides: dict[int | None, set[str | None]] = {}
    for p in photos:
        if p.group is not None:
            sides.setdefault(p.group, set()).add(p.side)
    return sides


# Settling


def test_a_labelled_photo_trains() -> None:
    photos = photos_in_groups(1, 2)
    changed = settle_sides(photos, {1})
    assert [p.task_id for p in changed] == [1]
    assert [p.side for p in photos] == [TRAIN, None]


def test_the_whole_group_of_a_labelled_photo_trains() -> None:
    photos = photos_in_groups(1, 2, 1, 1)
    assert [p.task_id for p in settle_sides(photos, {3})] == [1, 3, 4]
    assert [p.side for p in photos] == [TRAIN, None, TRAIN, TRAIN]


def test_a_drawn_photo_stays_in_the_holdout_when_it_is_labelled() -> None:
    photos = [photo(1, 1, HOLDOUT, drawn=True)]
    assert settle_sides(photos, {1}) == []
    assert photos[0].side == HOLDOUT


def test_a_labelled_photo_that_comes_late_to_a_drawn_group_does_not_train() -> None:
    photos = [photo(1, 7, HOLDOUT, drawn=True), photo(2, 7)]
    assert settle_sides(photos, {2}) == [photos[1]]
    assert photos[1].side == HOLDOUT
    assert not photos[1].drawn


def test_an_unlabelled_photo_that_comes_late_takes_the_side_of_its_group() -> None:
    photos = [photo(1, 7, TRAIN), photo(2, 7)]
    settle_sides(photos, set())
    assert photos[1].side == TRAIN


def test_a_photo_without_a_group_waits_for_one() -> None:
    photos = photos_in_groups(None, None)
    assert settle_sides(photos, {1}) == []
    assert [p.side for p in photos] == [None, None]


def test_settling_twice_changes_nothing_more() -> None:
    photos = photos_in_groups(1, 1, 2)
    settle_sides(photos, {1})
    assert settle_sides(photos, {1}) == []


# Drawing


def test_as_many_photos_are_drawn_as_are_wanted() -> None:
    photos = photos_in_groups(*range(20))
    changed = draw_holdout(photos, all_ids(photos), 4, np.random.default_rng(0))
    assert sum(p.drawn for p in photos) == 4
    assert {p.task_id for p in changed} == {p.task_id for p in photos if p.side == HOLDOUT}


def test_drawn_photos_stay_drawn_until_they_are_labelled() -> None:
    photos = photos_in_groups(*range(20))
    draw_holdout(photos, all_ids(photos), 3, np.random.default_rng(0))
    before = [p.task_id for p in photos if p.drawn]
    assert draw_holdout(photos, all_ids(photos), 3, np.random.default_rng(1)) == []
    assert [p.task_id for p in photos if p.drawn] == before


def test_a_labelled_draw_is_replaced_by_one_other_and_keeps_its_side() -> None:
    photos = photos_in_groups(*range(20))
    draw_holdout(photos, all_ids(photos), 3, np.random.default_rng(0))
    first = next(p for p in photos if p.drawn)
    changed = draw_holdout(photos, all_ids(photos) - {first.task_id}, 3, np.random.default_rng(1))
    assert len(changed) == 1
    assert sum(p.drawn for p in photos) == 4
    assert first.side == HOLDOUT


def test_the_rest_of_a_drawn_group_goes_along_without_being_drawn() -> None:
    photos = photos_in_groups(5, 5, 5)
    changed = draw_holdout(photos, all_ids(photos), 1, np.random.default_rng(0))
    assert len(changed) == 3
    assert {p.side for p in photos} == {HOLDOUT}
    assert sum(p.drawn for p in photos) == 1


def test_a_group_is_drawn_once_however_many_are_wanted() -> None:
    photos = photos_in_groups(5, 5, 5, 6)
    draw_holdout(photos, all_ids(photos), 4, np.random.default_rng(0))
    assert Counter(p.group for p in photos if p.drawn) == {5: 1, 6: 1}


def test_photos_that_train_are_never_drawn() -> None:
    photos = [photo(1, 1, TRAIN), photo(2, 2)]
    draw_holdout(photos, {1, 2}, 2, np.random.default_rng(0))
    assert [(p.side, p.drawn) for p in photos] == [(TRAIN, False), (HOLDOUT, True)]


def test_a_photo_that_comes_late_to_a_training_group_is_not_drawn() -> None:
    photos = [photo(1, 7, TRAIN), photo(2, 7)]
    assert draw_holdout(photos, {1, 2}, 1, np.random.default_rng(0)) == []
    assert photos[0].side == TRAIN


def test_photos_that_cannot_be_labelled_are_not_drawn() -> None:
    photos = photos_in_groups(1, 2, None)
    draw_holdout(photos, {2, 3}, 3, np.random.default_rng(0))
    assert [p.drawn for p in photos] == [False, True, False]


@pytest.mark.parametrize("wanted", [-1, 0])
def test_nothing_is_drawn_when_nothing_is_wanted(wanted: int) -> None:
    photos = photos_in_groups(1, 2)
    assert draw_holdout(photos, all_ids(photos), wanted, np.random.default_rng(0)) == []


def test_an_empty_pool_gives_nothing_to_draw() -> None:
    assert draw_holdout([], set(), 3, np.random.default_rng(0)) == []


def test_over_many_seeds_every_photo_is_drawn_equally_often() -> None:
    counts: Counter[int] = Counter()
    for seed in range(2000):
        photos = photos_in_groups(*range(10))
        draw_holdout(photos, all_ids(photos), 2, np.random.default_rng(seed))
        counts.update(p.task_id for p in photos if p.drawn)
    assert len(counts) == 10
    assert chisquare(list(counts.values())).pvalue > 0.01


def test_drawing_one_by_one_as_labels_come_is_uniform_too() -> None:
    """The photo drawn second must not depend on how sure the model was of the first."""
    counts: Counter[int] = Counter()
    for seed in range(2000):
        photos, unlabelled = photos_in_groups(*range(10)), set(range(1, 11))
        generator = np.random.default_rng(seed)
        for _ in range(3):
            draw_holdout(photos, unlabelled, 1, generator)
            unlabelled -= {p.task_id for p in photos if p.drawn}
        counts.update(p.task_id for p in photos if p.drawn)
    assert counts.total() == 6000
    assert chisquare(list(counts.values())).pvalue > 0.01


@pytest.mark.parametrize("seed", range(25))
def test_no_group_is_ever_on_two_sides_and_no_photo_changes_its_side(seed: int) -> None:
    """Whatever order photos come, go and return, are labelled, unlabelled and drawn in."""
    rng = np.random.default_rng(seed)
    photos: list[Photo] = []
    labelled: set[int] = set()
    sides: dict[int, str] = {}
    for _ in range(60):
        for _ in range(rng.integers(0, 4)):
            photos.append(photo(len(photos) + 1, int(rng.integers(12)) if rng.random() < 0.9 else None))
        if photos:
            labelled ^= {int(rng.integers(1, len(photos) + 1))}
        unlabelled = {p.task_id for p in photos if rng.random() < 0.8} - labelled
        settle_sides(photos, labelled)
        draw_holdout(photos, unlabelled, int(rng.integers(0, 4)), rng)
        assert not any({TRAIN, HOLDOUT} <= found for found in sides_by_group(photos).values())
        for p in photos:
            if p.side is not None:
                assert sides.setdefault(p.task_id, p.side) == p.side
    assert set(sides.values()) == {TRAIN, HOLDOUT}
