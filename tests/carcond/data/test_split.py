from collections import Counter

import numpy as np
import pytest
from scipy.stats import kstest

from carcond.data.split import HOLDOUT, TRAIN, assign_splits, draw_holdout, draw_number, split_imported
from carcond.store.tables import Photo


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
    changed = assign_splits(photos, {1})
    assert [p.task_id for p in changed] == [1]
    assert [p.side for p in photos] == [TRAIN, None]


def test_the_whole_group_of_a_labelled_photo_trains() -> None:
    photos = photos_in_groups(1, 2, 1, 1)
    assert [p.task_id for p in assign_splits(photos, {3})] == [1, 3, 4]
    assert [p.side for p in photos] == [TRAIN, None, TRAIN, TRAIN]


def test_a_drawn_photo_stays_in_the_holdout_when_it_is_labelled() -> None:
    photos = [photo(1, 1, HOLDOUT, drawn=True)]
    assert assign_splits(photos, {1}) == []
    assert photos[0].side == HOLDOUT


def test_a_labelled_photo_that_comes_late_to_a_sampled_group_does_not_train() -> None:
    photos = [photo(1, 7, HOLDOUT, drawn=True), photo(2, 7)]
    assert assign_splits(photos, {2}) == [photos[1]]
    assert (photos[1].side, photos[1].drawn) == (HOLDOUT, True)


def test_a_photo_that_comes_late_to_a_group_that_was_imported_is_no_sample_of_the_pool() -> None:
    photos = [photo(1, 7, HOLDOUT), photo(2, 7)]
    assign_splits(photos, set())
    assert (photos[1].side, photos[1].drawn) == (HOLDOUT, False)


def test_an_unlabelled_photo_that_comes_late_takes_the_side_of_its_group() -> None:
    photos = [photo(1, 7, TRAIN), photo(2, 7)]
    assign_splits(photos, set())
    assert photos[1].side == TRAIN


def test_a_photo_without_a_group_waits_for_one() -> None:
    photos = photos_in_groups(None, None)
    assert assign_splits(photos, {1}) == []
    assert [p.side for p in photos] == [None, None]


def test_settling_twice_changes_nothing_more() -> None:
    photos = photos_in_groups(1, 1, 2)
    assign_splits(photos, {1})
    assert assign_splits(photos, {1}) == []


# Sampling on arrival


def sampled(photos: list[Photo]) -> set[int]:
    return {p.task_id for p in photos if p.drawn}


def of_project(project_id: int, count: int) -> list[Photo]:
    photos = photos_in_groups(*range(count))
    for p in photos:
        p.project_id = project_id
    return photos


@pytest.mark.parametrize(("count", "held"), [(10, 1), (20, 2), (100, 10), (500, 50)])
def test_a_tenth_of_the_groups_is_held_out_and_all_others_train(count: int, held: int) -> None:
    photos = photos_in_groups(*range(count))
    assert len(draw_holdout(photos)) == count
    assert len(sampled(photos)) == held
    assert Counter(p.side for p in photos) == {HOLDOUT: held, TRAIN: count - held}
    assert {p.task_id for p in photos if p.side == HOLDOUT} == sampled(photos)


@pytest.mark.parametrize("count", range(10, 40))
def test_a_small_pool_has_one_in_the_holdout_at_least(count: int) -> None:
    together, one_by_one = of_project(3, count), of_project(3, count)
    draw_holdout(together)
    for i in range(1, count + 1):
        draw_holdout(one_by_one[:i])
    assert sampled(together)
    assert sampled(one_by_one)


def test_a_sampled_group_is_held_out_whole() -> None:
    photos = photos_in_groups(*[i // 3 for i in range(90)])
    draw_holdout(photos)
    assert len(sampled(photos)) == 9
    assert all(len(sides) == 1 for sides in sides_by_group(photos).values())


def test_a_turn_that_was_killed_draws_the_same_again() -> None:
    lost, made = photos_in_groups(*range(60)), photos_in_groups(*range(60))
    draw_holdout(lost)
    draw_holdout(made[::-1])
    assert sampled(lost) == sampled(made) != set()


def test_what_is_settled_stays_as_it_is() -> None:
    photos = photos_in_groups(*range(40))
    draw_holdout(photos)
    before = {p.task_id: (p.side, p.drawn) for p in photos}
    assert draw_holdout(photos) == []
    photos += [photo(i, i) for i in range(41, 81)]
    changed = draw_holdout(photos)
    assert all_ids(changed) == set(range(41, 81))
    assert {p.task_id: (p.side, p.drawn) for p in photos[:40]} == before


def test_photos_without_a_group_and_deleted_ones_wait() -> None:
    photos = photos_in_groups(*range(20), None)
    photos[0].gone = True
    draw_holdout(photos)
    assert [p.task_id for p in photos if p.side is None] == [1, 21]


def test_no_photo_is_nothing_to_draw() -> None:
    assert draw_holdout([]) == []


@pytest.mark.parametrize("first", [30, 13])
def test_every_photo_has_the_same_chance_however_photos_arrive(first: int) -> None:
    counts: Counter[int] = Counter()
    for project_id in range(1500):
        photos = of_project(project_id, 30)
        draw_holdout(photos[:first])
        draw_holdout(photos)
        counts.update(sampled(photos))
    shares = np.array([counts[i] for i in range(1, 31)]) / 1500
    assert (abs(shares - 0.1) < 0.035).all()  # 4.5 standard deviations


def test_draw_numbers_are_uniform_and_the_same_for_ever() -> None:
    numbers = [draw_number("photo", 1, i) for i in range(5000)]
    assert kstest(numbers, "uniform").pvalue > 0.01
    assert draw_number("photo", 7, 42) == pytest.approx(0.97329577, abs=1e-8)
    assert draw_number("photo", 7, 42) != draw_number("photo", 74, 2)


def test_a_project_of_the_version_before_goes_over() -> None:
    """Its labelled photos have a split, four wait in the hold-out with their near-duplicates, the others have none."""
    trained = [photo(i, i, TRAIN) for i in range(1, 91)]
    measured = [photo(i, i, HOLDOUT, drawn=True) for i in range(91, 101)]
    waiting = [photo(i, i, HOLDOUT, drawn=True) for i in range(101, 105)]
    copies = [photo(105, 101, HOLDOUT), photo(106, 1, TRAIN)]
    rest = [photo(i, i) for i in range(107, 307)]
    late = [photo(307, 102), photo(308, 2)]  # not grouped when it was stopped
    photos = [*trained, *measured, *waiting, *copies, *rest, *late]
    before = {p.task_id: p.side for p in photos if p.side is not None}
    labelled = set(range(1, 101)) | {107}  # one was labelled meanwhile
    for _ in range(2):
        assign_splits(photos, labelled)
        draw_holdout(photos)
    assert {p.task_id: p.side for p in photos if p.task_id in before} == before
    assert photos[-2].side == HOLDOUT
    assert photos[-1].side == TRAIN
    assert rest[0].side == TRAIN
    assert sum(p.side == HOLDOUT for p in rest[1:]) in (19, 20)
    assert all(p.side for p in rest)
    assert all(len(sides) == 1 for sides in sides_by_group(photos).values())


@pytest.mark.parametrize("seed", range(25))
def test_no_group_is_ever_on_two_sides_and_no_photo_changes_its_side(seed: int) -> None:
    """Whatever order photos come, go, return, and are labelled and unlabelled in."""
    rng = np.random.default_rng(seed)
    photos: list[Photo] = []
    labelled: set[int] = set()
    sides: dict[int, str] = {}
    for _ in range(60):
        for _ in range(rng.integers(0, 4)):
            photos.append(photo(len(photos) + 1, int(rng.integers(40)) if rng.random() < 0.9 else None))
        if photos:
            labelled ^= {int(rng.integers(1, len(photos) + 1))}
        for p in photos:
            p.gone = bool(rng.random() < 0.1)
        assign_splits(photos, labelled)
        draw_holdout(photos)
        assert not any({TRAIN, HOLDOUT} <= found for found in sides_by_group(photos).values())
        assert all(p.side for p in photos if p.group is not None and not p.gone)
        for p in photos:
            if p.side is not None:
                assert sides.setdefault(p.task_id, p.side) == p.side
    assert set(sides.values()) == {TRAIN, HOLDOUT}


# Imported sets


def import_labels(count: int, seed: int = 0, first: int = 1) -> dict[int, dict[str, str]]:
    """Labels of photos `first`, `first` + 1, ...: damage is even, one photo in ten is very dirty, some say nothing."""
    rng = np.random.default_rng(seed)
    labels = {}
    for task_id in range(first, first + count):
        labels[task_id] = {"damage": str(rng.choice(["intact", "damaged"]))}
        if rng.random() < 0.8:
            labels[task_id]["cleanliness"] = str(
                rng.choice(["clean", "slightly_dirty", "very_dirty"], p=[0.6, 0.3, 0.1])
            )
    return labels


def held_out(photos: list[Photo]) -> set[int]:
    return {p.task_id for p in photos if p.side == HOLDOUT}


@pytest.mark.parametrize("count", [25, 60, 300])
def test_a_fifth_of_an_imported_set_is_held_out_by_class_of_both_tasks(count: int) -> None:
    labels = import_labels(count)
    photos = photos_in_groups(*range(1, count + 1))
    changed = split_imported(photos, labels, set(), np.random.default_rng(0))
    assert all_ids(changed) == held_out(photos)
    assert abs(len(changed) - count / 5) <= 1
    answers = Counter(answer for classes in labels.values() for answer in classes.items())
    held = Counter(answer for task_id in held_out(photos) for answer in labels[task_id].items())
    assert all(abs(held[answer] - total / 5) <= 1.5 for answer, total in answers.items())


def test_the_classes_of_both_tasks_are_dealt_better_than_by_chance() -> None:
    labels = import_labels(200)
    answers = Counter(answer for classes in labels.values() for answer in classes.items())

    def unevenness(ids: set[int]) -> float:
        held = Counter(answer for task_id in ids for answer in labels[task_id].items())
        return max(abs(held[answer] - total / 5) for answer, total in answers.items())

    dealt, chance = [], []
    for seed in range(30):
        photos = photos_in_groups(*range(1, 201))
        split_imported(photos, labels, set(), np.random.default_rng(seed))
        dealt.append(unevenness(held_out(photos)))
        chance.append(unevenness(set(np.random.default_rng(seed).permutation(200)[:40] + 1)))
    assert max(dealt) <= 2 < np.median(chance)


def test_fewer_photos_than_a_set_train() -> None:
    photos = photos_in_groups(*range(1, 25))
    assert split_imported(photos, import_labels(24), set(), np.random.default_rng(0)) == []


def test_labels_that_the_model_asked_for_are_no_import() -> None:
    photos = photos_in_groups(*range(1, 101))
    labels = import_labels(100)
    assert split_imported(photos, labels, all_ids(photos), np.random.default_rng(0)) == []
    asked = set(range(1, 51))
    split_imported(photos, labels, asked, np.random.default_rng(0))
    assert len(held_out(photos)) == 10
    assert not held_out(photos) & asked


def test_a_group_with_a_label_that_was_asked_for_trains_whole() -> None:
    photos = photos_in_groups(*[1 + i // 2 for i in range(100)])
    for seed in range(10):
        split_imported(photos, import_labels(100), set(range(1, 101, 2)), np.random.default_rng(seed))
        assert held_out(photos) == set()


def test_a_group_is_held_out_whole_with_its_unlabelled_photos() -> None:
    photos = photos_in_groups(*[1 + i // 4 for i in range(200)])
    labels = {task_id: classes for task_id, classes in import_labels(200).items() if task_id % 4}
    split_imported(photos, labels, set(), np.random.default_rng(0))
    assign_splits(photos, labels)
    assert all(len(sides) == 1 for sides in sides_by_group(photos).values())
    assert len(held_out(photos)) == 40
    assert not any(p.drawn for p in photos)


def test_a_class_with_one_photo_is_learnt_from() -> None:
    labels = import_labels(60) | {7: {"damage": "intact", "cleanliness": "unheard_of"}}
    for seed in range(20):
        photos = photos_in_groups(*range(1, 61))
        split_imported(photos, labels, set(), np.random.default_rng(seed))
        assert 7 not in held_out(photos)


def test_a_class_with_one_photo_may_be_held_out_once_another_trains() -> None:
    labels = import_labels(60) | {7: {"cleanliness": "unheard_of"}, 61: {"cleanliness": "unheard_of"}}
    found = []
    for seed in range(40):
        photos = [*photos_in_groups(*range(1, 61)), photo(61, 61, TRAIN)]
        split_imported(photos, labels, set(), np.random.default_rng(seed))
        found.append(7 in held_out(photos))
    assert any(found)


def test_splitting_again_changes_nothing() -> None:
    photos, labels = photos_in_groups(*range(1, 61)), import_labels(60)
    split_imported(photos, labels, set(), np.random.default_rng(0))
    assign_splits(photos, labels)
    before = held_out(photos)
    assert split_imported(photos, labels, set(), np.random.default_rng(1)) == []
    assert held_out(photos) == before


def test_a_split_that_was_lost_is_made_again_alike() -> None:
    labels = import_labels(60)
    lost, made = photos_in_groups(*range(1, 61)), photos_in_groups(*range(1, 61))
    split_imported(lost, labels, set(), np.random.default_rng((1, 0)))
    split_imported(made, labels, set(), np.random.default_rng((1, 0)))
    assert held_out(lost) == held_out(made) != set()


def test_a_later_import_is_split_and_the_first_stays() -> None:
    photos, labels = photos_in_groups(*range(1, 101)), import_labels(100)
    split_imported(photos, labels, set(), np.random.default_rng(0))
    assign_splits(photos, labels)
    before = {p.task_id: p.side for p in photos}
    photos += [photo(i, i) for i in range(101, 151)]
    labels |= import_labels(50, 1, first=101)
    split_imported(photos, labels, set(), np.random.default_rng(1))
    assign_splits(photos, labels)
    assert {p.task_id: p.side for p in photos[:100]} == before
    assert abs(len(held_out(photos[100:])) - 10) <= 1


def test_a_late_copy_of_an_imported_photo_takes_its_side() -> None:
    photos, labels = photos_in_groups(*range(1, 61)), import_labels(61)
    split_imported(photos, labels, set(), np.random.default_rng(0))
    assign_splits(photos, labels)
    copied = next(p for p in photos if p.side == HOLDOUT)
    photos.append(photo(61, copied.group))
    split_imported(photos, labels, set(), np.random.default_rng(1))
    assign_splits(photos, labels)
    assert photos[-1].side == HOLDOUT


def test_an_import_whose_photos_come_one_by_one_is_held_out_to_a_fifth_too() -> None:
    """Photos are embedded, and so grouped, bit by bit."""
    labels = import_labels(200)
    shares = []
    for seed in range(10):
        photos = [photo(i, None) for i in range(1, 201)]
        for i, one in enumerate(photos):
            one.group = i
            split_imported(photos, labels, set(), np.random.default_rng((seed, i)))
            assign_splits(photos, labels)
        shares.append(len(held_out(photos)) / 200)
    assert 0.18 < np.mean(shares) < 0.22


def test_every_imported_photo_has_the_same_chance_whatever_its_group_and_class() -> None:
    groups = [1 + i if i < 20 else 20 + i // 4 for i in range(60)]
    labels = import_labels(60, 3)
    counts: Counter[int] = Counter()
    for seed in range(1000):
        photos = photos_in_groups(*groups)
        split_imported(photos, labels, set(), np.random.default_rng(seed))
        counts.update(held_out(photos))
    shares = np.array([counts[i] for i in range(1, 61)]) / 1000
    assert abs(shares.mean() - 0.2) < 0.01
    assert (abs(shares - 0.2) < 0.06).all()  # 4.7 standard deviations


def test_photos_without_a_group_wait_for_one() -> None:
    photos = [photo(i, None) for i in range(1, 61)]
    assert split_imported(photos, import_labels(60), set(), np.random.default_rng(0)) == []
