from collections.abc import Sequence

import numpy as np
import pytest

from carcond.arrays import UNKNOWN, FloatArray
from carcond.data.annotations import ConsensusLabel
from carcond.data.dataset import LabelledSet, labelled_set, merge_annotations, source_of
from carcond.data.split import HOLDOUT, TRAIN
from carcond.store.tables import AnnotationRow, Photo


def annotation(
    task_id: int, classes: dict[str, str], annotator: int = 1, minute: int = 0, cancelled: bool = False
) -> AnnotationRow:
    return AnnotationRow(
        project_id=1,
        annotation_id=0,
        task_id=task_id,
        annotator=annotator,
        updated_at=f"2026-01-01T10:{minute:02d}:00Z",
        cancelled=cancelled,
        classes=classes,
    )


def photo(task_id: int, side: str | None = TRAIN, problem: str | None = None) -> Photo:
    return Photo(project_id=1, task_id=task_id, url="", side=side, problem=problem)


def label(**classes: str) -> ConsensusLabel:
    return ConsensusLabel(classes, dict.fromkeys(classes, 1.0), ())


def vectors(task_ids: Sequence[int]) -> FloatArray:
    """An embedding that tells its task id."""
    return np.array([[task_id, 0.5, -task_id] for task_id in task_ids], dtype=np.float32).reshape(-1, 3)


@pytest.fixture
def labelled() -> LabelledSet:
    """Five photos: 1 and 4 train, 2 is held out, 3 has no embedding, 5 has no label."""
    photos = [photo(1), photo(2, HOLDOUT), photo(3, problem="cannot be decoded"), photo(4), photo(5, None)]
    labels = {
        1: label(damage="intact", cleanliness="very_dirty"),
        2: label(damage="damaged"),
        3: label(damage="damaged"),
        4: label(cleanliness="clean"),
    }
    return labelled_set(photos, labels, np.array([1, 2, 4, 5]), vectors([1, 2, 4, 5]))


# Annotations


def test_annotations_of_one_photo_are_merged_and_photos_kept_apart() -> None:
    merged = merge_annotations(
        [
            annotation(1, {"damage": "intact"}, annotator=1),
            annotation(2, {"damage": "damaged"}, annotator=1),
            annotation(1, {"damage": "intact"}, annotator=2),
        ]
    )
    assert {task: m.classes for task, m in merged.items()} == {1: {"damage": "intact"}, 2: {"damage": "damaged"}}


def test_a_skipped_photo_has_no_label() -> None:
    assert merge_annotations([annotation(1, {"damage": "intact"}, cancelled=True)]) == {}


def test_a_skip_by_one_annotator_leaves_the_opinion_of_another() -> None:
    rows = [annotation(1, {}, annotator=1, cancelled=True), annotation(1, {"damage": "intact"}, annotator=2)]
    assert merge_annotations(rows)[1].classes == {"damage": "intact"}


def test_a_later_annotation_of_the_same_annotator_replaces_the_earlier() -> None:
    rows = [annotation(1, {"damage": "damaged"}, minute=9), annotation(1, {"damage": "intact"}, minute=1)]
    assert merge_annotations(rows)[1].classes == {"damage": "damaged"}


# The set


def test_only_labelled_photos_are_examples(labelled: LabelledSet) -> None:
    assert [example.task_id for example in labelled.examples] == [1, 2, 3, 4]


def test_embeddings_and_classes_are_those_of_the_same_photo(labelled: LabelledSet) -> None:
    np.testing.assert_array_equal(labelled.embeddings, vectors([1, 2, 4]))
    np.testing.assert_array_equal(labelled.classes["damage"], [0, 1, UNKNOWN])
    np.testing.assert_array_equal(labelled.classes["cleanliness"], [2, UNKNOWN, 0])


def test_a_photo_without_an_embedding_is_listed_with_its_problem_and_not_used(labelled: LabelledSet) -> None:
    assert labelled.examples[2].problem == "cannot be decoded"
    assert len(labelled.embeddings) == 3


def test_a_photo_still_to_be_embedded_says_so() -> None:
    waiting = labelled_set([photo(1)], {1: label(damage="intact")}, np.array([], dtype=np.int64), vectors([]))
    assert waiting.examples[0].problem == "not embedded yet"
    assert waiting.embeddings.shape == (0, 3)
    assert waiting.classes["damage"].shape == waiting.holdout.shape == (0,)


def test_a_photo_whose_embedding_outlived_a_problem_is_used() -> None:
    kept = labelled_set([photo(1, problem="timed out")], {1: label(damage="intact")}, np.array([1]), vectors([1]))
    assert kept.examples[0].problem is None


def test_each_side_has_its_own_photos_only(labelled: LabelledSet) -> None:
    train, train_classes = labelled.side(holdout=False)
    held_out, held_out_classes = labelled.side(holdout=True)
    np.testing.assert_array_equal(train, vectors([1, 4]))
    np.testing.assert_array_equal(held_out, vectors([2]))
    np.testing.assert_array_equal(train_classes["cleanliness"], [2, 0])
    np.testing.assert_array_equal(held_out_classes["damage"], [1])


def test_a_class_key_that_the_program_does_not_know_is_unknown() -> None:
    odd = labelled_set([photo(1)], {1: label(damage="scratched")}, np.array([1]), vectors([1]))
    np.testing.assert_array_equal(odd.classes["damage"], [UNKNOWN])


def test_a_project_without_labels_gives_an_empty_set() -> None:
    empty = labelled_set([photo(1)], {}, np.array([], dtype=np.int64), np.zeros((0, 0), dtype=np.float32))
    assert list(empty.examples) == []
    embeddings, classes = empty.side(holdout=False)
    assert len(embeddings) == len(classes["damage"]) == 0


def test_an_example_tells_all_that_a_version_keeps_of_it(labelled: LabelledSet) -> None:
    assert labelled.examples[1].row() == {
        "task": 2,
        "side": HOLDOUT,
        "classes": {"damage": "damaged"},
        "agreement": {"damage": 1.0},
        "ties": [],
        "problem": None,
    }


# The fingerprint


def small_set(
    side: str = TRAIN, damage: str = "intact", value: float = 0.0, agreement: float = 1.0, ties: tuple[str, ...] = ()
) -> LabelledSet:
    merged = ConsensusLabel({"damage": damage}, {"damage": agreement}, ties)
    return labelled_set([photo(1, side)], {1: merged}, np.array([1]), np.full((1, 4), value, dtype=np.float32))


def test_the_fingerprint_of_the_same_set_is_the_same() -> None:
    assert small_set().fingerprint("tiny") == small_set().fingerprint("tiny")


@pytest.mark.parametrize(
    "other",
    [
        small_set(side=HOLDOUT),
        small_set(damage="damaged"),
        small_set(value=0.5),
        small_set(agreement=0.75),
        small_set(ties=("cleanliness",)),
    ],
    ids=["side", "class", "embedding", "agreement", "tie"],
)
def test_the_fingerprint_changes_with_whatever_heads_depend_on(other: LabelledSet) -> None:
    assert other.fingerprint("tiny") != small_set().fingerprint("tiny")


def test_the_fingerprint_changes_with_the_encoder() -> None:
    assert small_set().fingerprint("tiny") != small_set().fingerprint("other")


# Sources and groups


@pytest.mark.parametrize(
    ("source", "address", "name"),
    [
        ("kolesa", "https://photos.example/a/b.jpg", "kolesa"),
        (None, "https://photos.example/a/b/1.jpg", "photos.example/a/b"),
        (None, "https://photos.example/1.jpg", "photos.example"),
        (None, "https://user:secret@photos.example:8443/a/1.jpg?signature=secret", "photos.example/a"),
        (None, "s3://bucket/cars/1.jpg", "bucket/cars"),
        (None, "/data/upload/7/0123abcd-1.jpg", "data/upload/7"),
        (None, "/data/local-files/?d=cars/day%201/1.jpg", "cars/day 1"),
        ("", "", "unknown"),
        (None, "http://[broken/1.jpg", "malformed address"),
    ],
)
def test_a_photo_comes_from_where_its_task_says_else_from_its_folder_or_host(
    source: str | None, address: str, name: str
) -> None:
    assert source_of(source, address) == name


def test_photos_of_one_group_stay_together_and_photos_without_are_alone() -> None:
    photos = [photo(task_id) for task_id in range(1, 6)]
    for each, group in zip(photos, [7, None, 7, None, 8], strict=True):
        each.group = group
    ids = np.arange(1, 6)
    groups = labelled_set(photos, {i: label(damage="intact") for i in range(1, 6)}, ids, vectors(ids.tolist())).groups
    assert groups[0] == groups[2]
    assert len(set(groups.tolist())) == 4


def test_neither_a_source_nor_who_said_it_makes_other_labels() -> None:
    one, other = photo(1), photo(1)
    other.source = "kolesa"
    said = annotation(1, {"damage": "intact"}, annotator=4)
    prints = [
        labelled_set([p], merge_annotations([a]), np.array([1]), vectors([1])).fingerprint("tiny")
        for p, a in ((one, annotation(1, {"damage": "intact"})), (other, said))
    ]
    assert prints[0] == prints[1]
