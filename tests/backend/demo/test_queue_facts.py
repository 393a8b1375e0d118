import pytest

from backend.demo.queue_facts import queued_photos
from tests.backend.fake_label_studio import PROJECT
from tests.backend.garage import Garage


def test_the_slots_take_turns_and_the_least_sure_comes_first(trained: tuple[Garage, list[int]]) -> None:
    garage, _ = trained
    photos = queued_photos(garage.services, PROJECT, 20)
    assert len(photos) == 20
    slots = [photo.slot for photo in photos]
    first_round = slots[: len(set(slots))]
    assert sorted(first_round) == sorted(set(slots))
    for slot in set(slots):
        scores = [photo.confidence or 0 for photo in photos if photo.slot == slot]
        assert scores == sorted(scores)


def test_only_unlabelled_photos_of_the_serving_version_are_in_it(trained: tuple[Garage, list[int]]) -> None:
    garage, ids = trained
    queued = {photo.task_id for photo in queued_photos(garage.services, PROJECT, 100)}
    assert queued == set(ids[12:])


def test_answers_are_those_that_label_studio_holds(trained: tuple[Garage, list[int]]) -> None:
    garage, _ = trained
    held = {task.id: task.predictions[0] for task in garage.studio.tasks(PROJECT) if not task.annotations}
    for photo in queued_photos(garage.services, PROJECT, 40):
        assert photo.confidence == held[photo.task_id].score
        assert set(photo.answers) == {"cleanliness", "damage"}
        assert all(0 < p <= 1 for _, p in photo.answers.values())


def test_reasons_tell_drawn_photos_from_unsure_ones(trained: tuple[Garage, list[int]]) -> None:
    garage, _ = trained
    photos = queued_photos(garage.services, PROJECT, 40)
    drawn = garage.drawn()
    for photo in photos:
        assert ("Drawn at random" in photo.reason) == (photo.task_id in drawn) == (photo.slot == 0)
    unsure = next(photo for photo in photos if photo.slot)
    assert "is unsure: " in unsure.reason


def test_before_the_first_version_photos_are_typical_and_nothing_is_answered(garage: Garage) -> None:
    garage.add_photos(15)
    garage.settle()
    photos = queued_photos(garage.services, PROJECT, 10)
    assert len(photos) == 10
    assert {photo.reason for photo in photos if photo.slot} == {"Typical of many photos of the pool."}
    assert {(photo.confidence, len(photo.answers)) for photo in photos} == {(None, 0)}


@pytest.mark.parametrize("labelled", [0, 15])
def test_an_empty_queue_is_empty(garage: Garage, labelled: int) -> None:
    garage.label(*garage.add_photos(labelled))
    garage.settle()
    assert queued_photos(garage.services, PROJECT, 10) == []
