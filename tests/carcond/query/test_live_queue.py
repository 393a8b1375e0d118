from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from carcond.arrays import FloatArray, IntArray
from carcond.query.live_queue import Pool, QueueSettings, is_cold_start, rank_pool, served_order
from carcond.query.slots import EXPLORATION_SLOT, representative_order
from carcond.store.embedding_matrix import EmbeddingMatrix
from tests.carcond.query.plain_ranking import plain_ranking

COUNT = 90
SETTINGS = QueueSettings()


def make_embeddings() -> FloatArray:
    return np.random.default_rng(0).normal(size=(COUNT, 8)).astype(np.float32)


def make_pool(labelled: int = 60, held: int = 2) -> Pool:
    embeddings, generator = make_embeddings(), np.random.default_rng(1)
    position = np.arange(COUNT)
    is_held = (position >= labelled) & (position < labelled + held)
    draws = generator.random(COUNT, dtype=np.float32)
    return Pool(embeddings, position >= labelled, is_held, draws, np.zeros(COUNT, dtype=np.int64))


def damage(sure: FloatArray) -> dict[str, FloatArray]:
    return {"damage": np.stack([sure, 1 - sure], axis=1).astype(np.float32)}


SURE = np.linspace(0.55, 0.99, COUNT, dtype=np.float32)


def test_after_the_cold_start_the_smallest_margins_are_selected() -> None:
    ranked = rank_pool(make_pool(), damage(SURE), SETTINGS)
    selected = ranked.positions[ranked.slots[ranked.positions] != EXPLORATION_SLOT]
    assert sorted(selected) == list(range(62, 80))
    assert {reason.cause for reason in ranked.reasons} == {"holdout", "uncertain"}


@pytest.mark.parametrize(("labelled", "cold"), [(9, True), (10, False)])
def test_the_cold_start_ends_with_so_many_labels(labelled: int, cold: bool) -> None:
    pool = make_pool(labelled)
    assert is_cold_start(pool, damage(SURE), SETTINGS) == cold
    causes = {reason.cause for reason in rank_pool(pool, damage(SURE), SETTINGS).reasons}
    assert ("representative" in causes) == cold


def test_without_a_model_everything_is_representative() -> None:
    ranked = rank_pool(make_pool(held=0), {}, SETTINGS)
    assert {reason.cause for reason in ranked.reasons} == {"representative"}
    assert (np.diff(ranked.scores[np.concatenate([ranked.positions, ranked.rest])]) >= -1e-4).all()


def labelled_one_by_one(pool: Pool, count: int, first_model: int) -> list[int]:
    """Photos as Label Studio serves them to one annotator: the slot with the fewest labels, in it the lowest score.

    The queue is ranked anew after each label, from the label number `first_model` on with a model.
    """
    solved: Counter[int] = Counter()
    served: list[int] = []
    for number in range(count):
        unlabelled = pool.unlabelled.copy()
        unlabelled[served] = False
        probabilities = damage(SURE) if number >= first_model else {}
        ranked = rank_pool(replace(pool, unlabelled=unlabelled), probabilities, SETTINGS)
        waiting = np.concatenate([ranked.positions, ranked.rest]).tolist()
        slots = ranked.slots.tolist()
        each = min(waiting, key=lambda i: (solved[slots[i]], ranked.scores[i]))
        solved[slots[each]] += 1
        served.append(each)
    return served


@pytest.mark.parametrize("first_model", [2, 5, 99])
def test_one_annotator_is_served_the_most_typical_photos_in_their_order(first_model: int) -> None:
    pool = make_pool(labelled=0, held=6)
    served = labelled_one_by_one(pool, 10, first_model)
    typical = [i for i in representative_order(pool.embeddings, 10).tolist() if not pool.holdout[i]]
    assert [i for i in served if not pool.holdout[i]] == typical[:9]
    assert sum(bool(pool.holdout[i]) for i in served) == 1


def test_in_the_cold_start_photos_that_may_be_open_stay_in_their_slots() -> None:
    pool = make_pool(labelled=3)
    kept = np.where(np.arange(COUNT) % 5 == 0, 7, 0)
    ranked = rank_pool(replace(pool, kept_slots=kept), damage(SURE), SETTINGS)
    assert {int(ranked.slots[i]) for i in range(5, COUNT, 5)} == {7}


def test_a_photo_behind_the_queue_is_never_served_before_the_queue_in_its_slot() -> None:
    ranked = rank_pool(make_pool(), damage(SURE[::-1].copy()), SETTINGS)
    for slot in set(ranked.slots[ranked.rest].tolist()):
        queued = ranked.scores[ranked.positions[ranked.slots[ranked.positions] == slot]]
        behind = ranked.scores[ranked.rest[ranked.slots[ranked.rest] == slot]]
        assert not len(queued) or behind.min() > queued.max()


@pytest.mark.parametrize("labelled", [5, 30, 60])
def test_the_holdout_waits_in_its_slot_and_is_served_in_the_order_of_the_draw(labelled: int) -> None:
    pool = make_pool(labelled, held=12)
    held = np.flatnonzero(pool.holdout)
    ranked = rank_pool(pool, damage(SURE[::-1].copy()), SETTINGS)
    assert sorted(np.flatnonzero(pool.unlabelled & (ranked.slots == EXPLORATION_SLOT))) == sorted(held)
    order = held[np.argsort(pool.draws[held])].tolist()
    assert held[np.argsort(ranked.scores[held])].tolist() == order
    queued = ranked.positions[ranked.slots[ranked.positions] == EXPLORATION_SLOT]
    assert queued.tolist() == order[:2]  # as many as of each other slot
    assert ranked.rest[-10:].tolist() == order[2:]


def test_scores_of_the_holdout_are_the_same_whatever_the_model_says() -> None:
    pool = make_pool(held=12)
    one, other = (rank_pool(pool, damage(sure), SETTINGS) for sure in (SURE, SURE[::-1].copy()))
    assert (one.scores[pool.holdout] == other.scores[pool.holdout]).all()
    assert (one.scores[pool.holdout] >= 0.5).all()
    assert (one.scores[pool.holdout] <= 1).all()


def test_once_nothing_else_is_left_the_queue_is_full_of_the_holdout() -> None:
    ranked = rank_pool(make_pool(labelled=60, held=30), damage(SURE), SETTINGS)
    assert len(ranked.positions) == SETTINGS.size
    assert set(ranked.slots[ranked.positions]) == {EXPLORATION_SLOT}


@pytest.mark.parametrize("held", [0, 1, 30])
def test_one_annotator_labels_the_whole_pool_whether_the_holdout_ends_first_or_last(held: int) -> None:
    served = labelled_one_by_one(make_pool(labelled=60, held=held), 30, first_model=0)
    assert sorted(served) == list(range(60, 90))


def test_every_unlabelled_photo_is_ranked_once() -> None:
    ranked = rank_pool(make_pool(), damage(SURE), SETTINGS)
    assert sorted(np.concatenate([ranked.positions, ranked.rest])) == list(range(60, COUNT))


def test_an_empty_pool_has_an_empty_queue() -> None:
    ranked = rank_pool(make_pool(labelled=COUNT), damage(SURE), SETTINGS)
    assert (len(ranked.positions), len(ranked.rest), len(ranked.reasons)) == (0, 0, 0)


def test_slots_take_turns_and_in_each_the_lowest_score_comes_first() -> None:
    slots = np.array([2, 1, 1, 0, 2, 1])
    scores = np.array([0.5, 0.9, 0.1, 0.7, 0.2, 0.4], dtype=np.float32)
    assert served_order(np.arange(6), slots, scores).tolist() == [3, 2, 4, 5, 0, 1]
    assert served_order(np.array([1, 5]), slots, scores).tolist() == [5, 1]


@pytest.mark.parametrize("labelled", [0, 5, 30, 60, COUNT - 3])
@pytest.mark.parametrize("held", [0, 2, 30])
@pytest.mark.parametrize("first_kept", [0, 7])
def test_a_pool_in_files_is_ranked_as_plain_arrays_are(labelled: int, held: int, first_kept: int) -> None:
    kept = np.where(np.arange(COUNT) % 5 == 1, first_kept, 0)
    halves = make_embeddings().astype(np.float16)
    pool = replace(make_pool(labelled, held), embeddings=halves.astype(np.float32), kept_slots=kept)
    probabilities = damage(SURE[::-1].copy()) if labelled else {}
    positions, rest, slots, scores = plain_ranking(pool, probabilities, SETTINGS)
    in_files = replace(pool, embeddings=EmbeddingMatrix(halves, np.arange(COUNT)))
    ranked = rank_pool(in_files, probabilities, SETTINGS)
    assert ranked.positions.tolist() == positions.tolist()
    assert ranked.rest.tolist() == rest.tolist()
    waiting = np.concatenate([positions, rest])
    assert ranked.slots[waiting].tolist() == slots[waiting].tolist()
    np.testing.assert_array_equal(ranked.scores[waiting], scores[waiting])
    some = rest[::3]
    for placed, expected in zip(ranked.place_rest(some), (slots[some], scores[some]), strict=True):
        np.testing.assert_array_equal(placed, expected)


def test_photos_behind_the_queue_are_placed_when_they_are_asked_for() -> None:
    """A turn writes a few of them: the embeddings of the others are not read."""
    read = []

    class Watched(EmbeddingMatrix):
        def __getitem__(self, positions: IntArray) -> FloatArray:
            read.extend(positions.tolist())
            return super().__getitem__(positions)

    pool = replace(make_pool(), embeddings=Watched(make_embeddings().astype(np.float16), np.arange(COUNT)))
    ranked = rank_pool(pool, damage(SURE), SETTINGS)
    assert not set(ranked.rest.tolist()) - {*range(62, 62 + 40)} & set(read)
    asked, others = ranked.rest[:2], ranked.rest[2:]
    read.clear()
    ranked.place_rest(asked)
    assert set(asked.tolist()) <= set(read)
    assert not set(others.tolist()) & set(read)
