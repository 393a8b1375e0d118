from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from carcond.arrays import UNKNOWN
from carcond.data.annotations import ConsensusLabel
from carcond.data.split import HOLDOUT, TRAIN
from carcond.training.dataset import VALIDATION, TrainingPhoto, TrainingSet, validation_groups


def photo(number: int, side: str = TRAIN, group: int | None = None, **classes: str) -> TrainingPhoto:
    label = ConsensusLabel(classes, dict.fromkeys(classes, 1.0), ())
    return TrainingPhoto(f"{number}.jpg", Path(f"{number}.jpg"), label, side, number if group is None else group)


MIXED = TrainingSet(
    [
        photo(0, TRAIN, damage="damaged"),
        photo(1, VALIDATION, damage="intact", cleanliness="clean"),
        photo(2, HOLDOUT, cleanliness="very_dirty"),
    ]
)


def test_a_task_without_an_answer_has_no_class() -> None:
    classes = MIXED.classes()
    assert classes["damage"].tolist() == [1, 0, UNKNOWN]
    assert classes["cleanliness"].tolist() == [UNKNOWN, 0, 2]


def test_a_card_is_of_the_hold_out_and_knows_no_validation_photo() -> None:
    labelled = MIXED.labelled(np.eye(3, dtype=np.float32))
    assert [example.task_id for example in labelled.examples] == [0, 2]
    assert labelled.holdout.tolist() == [False, True]
    assert labelled.embeddings.tolist() == [[1, 0, 0], [0, 0, 1]]
    assert labelled.classes["cleanliness"].tolist() == [UNKNOWN, 2]


def test_without_a_hold_out_a_card_is_of_the_validation_photos() -> None:
    labelled = TrainingSet(MIXED.photos[:2]).labelled(np.eye(2, dtype=np.float32))
    assert labelled.holdout.tolist() == [False, True]


@pytest.mark.parametrize(
    "other",
    [
        [photo(0, VALIDATION, damage="damaged"), *MIXED.photos[1:]],
        [photo(0, TRAIN, damage="intact"), *MIXED.photos[1:]],
        [photo(0, TRAIN, group=7, damage="damaged"), *MIXED.photos[1:]],
        MIXED.photos[1:],
    ],
)
def test_the_fingerprint_tells_sets_apart(other: list[TrainingPhoto]) -> None:
    assert TrainingSet(other).fingerprint() != MIXED.fingerprint()
    assert TrainingSet([replace(each) for each in MIXED.photos]).fingerprint() == MIXED.fingerprint()


@pytest.mark.parametrize(("share", "expected"), [(0.2, 0.2), (0.5, 0.5), (0.1, 0.1)])
def test_each_class_of_each_task_gives_its_share_to_validation(share: float, expected: float) -> None:
    rng = np.random.default_rng(0)
    words = [("damage", ["intact", "damaged"], 0.8), ("cleanliness", ["clean", "slightly_dirty", "very_dirty"], 0.5)]
    photos = []
    for number in range(600):
        classes = {task: str(rng.choice(keys)) for task, keys, answered in words if rng.uniform() < answered}
        photos.append(photo(number, group=number // 2, **classes))
    chosen = validation_groups(TrainingSet(photos), share, 0)
    for task, keys, _ in words:
        for key in keys:
            members = [each for each in photos if each.label.classes.get(task) == key]
            got = sum(each.group in chosen for each in members) / len(members)
            assert abs(got - expected) < 0.03


def test_a_class_of_one_photo_is_kept_to_be_learnt_from() -> None:
    photos = [photo(number, damage="intact") for number in range(20)] + [photo(20, damage="damaged")]
    for seed in range(10):
        assert 20 not in validation_groups(TrainingSet(photos), 0.2, seed)


def test_no_photos_have_no_validation() -> None:
    assert validation_groups(TrainingSet([]), 0.2, 0) == set()
