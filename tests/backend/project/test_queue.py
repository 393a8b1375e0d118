import numpy as np
import pytest

from backend.loop.predictions import queue_settings
from backend.project.queue import queued_photos
from backend.snapshot import Snapshot
from carcond.query.live_queue import rank_pool, served_order
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
        scores = [garage.studio.prediction(photo.task_id).score or 0 for photo in photos if photo.slot == slot]
        assert scores == sorted(scores)


def test_only_unlabelled_photos_of_the_serving_version_are_in_it(trained: tuple[Garage, list[int]]) -> None:
    garage, ids = trained
    queued = {photo.task_id for photo in queued_photos(garage.services, PROJECT, 100)}
    assert queued == set(ids[12:])


def test_a_skipped_photo_is_not_in_it_though_the_serving_version_predicts_it(
    trained: tuple[Garage, list[int]],
) -> None:
    garage, ids = trained
    garage.studio.annotate(ids[20], cancelled=True)
    garage.turn()
    assert garage.studio.prediction(ids[20]).model_version == garage.studio.project(PROJECT).model_version
    queued = {photo.task_id for photo in queued_photos(garage.services, PROJECT, 100)}
    assert queued == set(ids[12:]) - {ids[20]}


def test_answers_are_those_that_label_studio_holds(trained: tuple[Garage, list[int]]) -> None:
    garage, _ = trained
    held = {task.id: task.predictions[0] for task in garage.studio.tasks(PROJECT) if not task.annotations}
    photos = queued_photos(garage.services, PROJECT, 40)
    for photo in photos:
        assert set(photo.answers) == (set() if garage.opens_blank(photo.task_id) else {"cleanliness", "damage"})
        assert all(0 < p <= 1 for _, p in photo.answers.values())
        # Behind the queue a score is raised, and in the exploration slot it is a random number.
        assert (photo.confidence is None) == (photo.slot == 0)
        assert (photo.confidence or 0) <= (held[photo.task_id].score or 0) + 1e-5


def test_reasons_tell_drawn_photos_from_unsure_ones(trained: tuple[Garage, list[int]]) -> None:
    garage, _ = trained
    photos = queued_photos(garage.services, PROJECT, 40)
    drawn = garage.drawn()
    for photo in photos:
        assert ("Sampled at random" in photo.reason) == (photo.task_id in drawn) == (photo.slot == 0)
    unsure = next(photo for photo in photos if photo.slot)
    assert "is unsure: " in unsure.reason


def test_before_the_first_version_photos_are_representative_and_nothing_is_answered(garage: Garage) -> None:
    garage.add_photos(15)
    garage.settle()
    photos = queued_photos(garage.services, PROJECT, 10)
    assert len(photos) == 10
    assert {photo.reason for photo in photos if photo.slot} == {"Representative of many photos of the pool."}
    assert {(photo.confidence, len(photo.answers)) for photo in photos} == {(None, 0)}


@pytest.mark.parametrize("labelled", [0, 15])
def test_an_empty_queue_is_empty(garage: Garage, labelled: int) -> None:
    garage.label(*garage.add_photos(labelled))
    garage.settle()
    assert queued_photos(garage.services, PROJECT, 10) == []


def test_loop_and_dashboard_go_by_the_rule_that_is_replayed(trained: tuple[Garage, list[int]]) -> None:
    garage, _ = trained
    version = garage.services.registry(PROJECT).current()
    assert version is not None
    snapshot = Snapshot.take(garage.services, PROJECT, version.heads.encoder_id)
    pool, probabilities = snapshot.pool(), version.heads.probabilities(snapshot.embeddings)
    ranked = rank_pool(pool, probabilities, queue_settings(garage.services.settings))
    order = served_order(np.concatenate([ranked.positions, ranked.rest]), ranked.slots, ranked.scores)

    held = {task.id: task.predictions[0] for task in garage.studio.tasks(PROJECT) if not task.annotations}
    published = [held[task_id] for task_id in snapshot.task_ids[order].tolist()]
    assert [each.slot for each in published] == ranked.slots[order].tolist()
    assert [each.score for each in published] == pytest.approx(ranked.scores[order].tolist(), abs=1e-6)

    shown = queued_photos(garage.services, PROJECT, len(order))
    assert [photo.task_id for photo in shown] == snapshot.task_ids[order].tolist()
    causes = dict(zip(ranked.positions.tolist(), ranked.reasons, strict=True))
    in_queue = [(causes[i], photo.reason) for i, photo in zip(order.tolist(), shown, strict=True) if i in causes]
    assert {reason.cause for reason, _ in in_queue} == {"holdout", "uncertain"}
    for reason, sentence in in_queue:
        assert sentence.startswith("Sampled at random") == (reason.cause == "holdout")
        assert reason.task_key in sentence.lower()


def test_skipped_photos_count_as_seen_for_the_cold_start_as_in_the_loop(garage: Garage) -> None:
    ids = garage.add_photos(40)
    garage.label(*ids[:8])
    for task_id in ids[8:12]:
        garage.studio.annotate(task_id, cancelled=True)
    garage.settle()
    assert any("is unsure" in photo.reason for photo in queued_photos(garage.services, PROJECT, 20))
