from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from carcond.analysis import live_replay
from carcond.analysis.live_replay import LiveReplay, LiveSettings
from carcond.analysis.replay_heads import fit, fitted
from carcond.analysis.replay_set import ReplayDataset
from carcond.arrays import IntArray
from carcond.data.label_table import TaskLabels
from carcond.evaluation.gate import Verdict
from carcond.model.single_thread import one_core
from carcond.query.live_queue import LiveQueue, rank_pool
from carcond.taxonomy import DAMAGE


@pytest.fixture(autouse=True)
def on_one_core() -> Iterator[None]:
    """As `simulate` replays."""
    with one_core():
        yield


def draw_dataset(count: int = 100, members: int = 1) -> ReplayDataset:
    """Damage of photos in groups of equal size; every fifth group is measured on."""
    rng = np.random.default_rng(0)
    groups = np.arange(count) // members
    damage = rng.integers(0, 2, count)
    embeddings = rng.normal(size=(count, 8)).astype(np.float32)
    embeddings[:, 0] += 2 * damage
    return ReplayDataset(embeddings, {"damage": TaskLabels(DAMAGE, damage)}, groups, groups % 5 == 4)


def label_one_by_one(service: LiveReplay, count: int) -> list[int]:
    """Positions of the pool in the order in which they are labelled."""
    order: list[int] = []
    for done in range(1, count + 1):
        before = service.labelled.copy()
        service.label(done)
        order += np.flatnonzero(service.labelled & ~before).tolist()
    return order


@pytest.mark.parametrize("publish_every", [1, 5, 20])
def test_photos_are_labelled_in_the_order_in_which_label_studio_serves_the_queue(
    publish_every: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the slot with the fewest labels the lowest score; in slot 0, the hold-out, the order of the draw."""
    queues: list[LiveQueue] = []

    def spy(*arguments: Any) -> LiveQueue:
        queues.append(rank_pool(*arguments))
        return queues[-1]

    monkeypatch.setattr(live_replay, "rank_pool", spy)
    service = LiveReplay(draw_dataset(), LiveSettings(publish_every=publish_every), seed=1)
    slot_labels = np.zeros(10)
    for done in range(40):
        queue, before = queues[-1], service.labelled.copy()
        service.label(done + 1)
        (served,) = np.flatnonzero(service.labelled & ~before)
        in_slots = {
            slot: [i for i in np.flatnonzero(~before & ~service.held) if queue.slots[i] == slot]
            for slot in range(1, 10)
        }
        in_slots[0] = list(np.flatnonzero(~before & service.held))
        lowest = {slot: min(queue.scores[photos]) for slot, photos in in_slots.items() if photos}
        slot = min(lowest, key=lambda slot: (slot_labels[slot], lowest[slot]))
        if slot:
            assert queue.scores[served] == min(queue.scores[i] for i in in_slots[slot])
            assert queue.slots[served] == slot
        else:
            assert service.held[served]
        slot_labels[slot] += 1
    assert len(queues) == 1 + 40 // publish_every


def test_a_tenth_of_the_groups_is_held_out_whole_and_gets_one_label_in_ten_in_the_order_of_the_draw() -> None:
    dataset = draw_dataset(400, members=2)
    service = LiveReplay(dataset, LiveSettings(publish_every=20), seed=2)
    groups = dataset.groups[dataset.pool()]
    assert len(set(groups[service.held])) == 16 == service.held.sum() / 2
    order = label_one_by_one(service, 100)
    held = [position for position in order if service.held[position]]
    assert [sum(service.held[order[i : i + 10]]) for i in range(0, 100, 10)] == [1] * 10
    other = LiveReplay(replace(dataset, embeddings=-dataset.embeddings[::-1]), LiveSettings(), seed=2)
    assert [p for p in label_one_by_one(other, 100) if other.held[p]] == held


def test_weights_are_not_fitted_on_the_holdout_and_temperatures_are_chosen_on_it() -> None:
    dataset = draw_dataset()
    service = LiveReplay(dataset, LiveSettings(), seed=0)
    held = dataset.pool()[service.held]
    damage = dataset.labels["damage"].indices.copy()
    damage[held] = 1 - damage[held]
    turned = LiveReplay(replace(dataset, labels={"damage": TaskLabels(DAMAGE, damage)}), LiveSettings(), seed=0)
    first, second = (fitted(each.label(50))["damage"] for each in (service, turned))
    np.testing.assert_array_equal(first.weight, second.weight)
    assert first.temperature < second.temperature
    assert first.fold_temperatures is not None


def test_a_version_serves_until_so_many_labels_are_made() -> None:
    service = LiveReplay(draw_dataset(), LiveSettings(publish_every=20), seed=0)
    served = [service.label(count) for count in range(20, 61)]
    assert len({id(heads) for heads in served}) == 3
    assert served[0] is served[19]
    assert served[20] is not served[19]


def test_beyond_200_labels_there_is_a_version_for_each_further_tenth_and_for_each_measurement(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    service = LiveReplay(draw_dataset(500), LiveSettings(publish_every=20), seed=0)
    service.label(200)
    fits: list[int] = []

    def spy(dataset: ReplayDataset, train: IntArray, held: IntArray, seed: int) -> Any:
        fits.append(len(train) + len(held))
        return fit(dataset, train, held, seed)

    monkeypatch.setattr(live_replay, "fit", spy)
    service.label(250)
    service.label(251)
    service.label(300)
    assert fits == [217, 234, 250, 251, 276, 300]


def test_a_candidate_that_the_gate_refuses_does_not_serve(monkeypatch: pytest.MonkeyPatch) -> None:
    service = LiveReplay(draw_dataset(), LiveSettings(), seed=0)
    served = fitted(service.label(20))["damage"]
    monkeypatch.setattr(live_replay, "evaluate_candidate", lambda *_, **__: Verdict(False, "worse", "before"))
    assert fitted(service.label(40))["damage"] is served
    assert service.refused == 4


def test_the_gate_compares_with_the_serving_version_and_with_one_of_half_the_labels(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    against: list[float] = []

    def accept(_: Any, before: Any, *__: Any, **kept: Any) -> Verdict:
        against.append(before.heads.by_task["damage"].temperature)
        assert (kept["margin"], kept["min_photos"]) == (0.03, 12)
        return Verdict(True, "", "before")

    monkeypatch.setattr(live_replay, "evaluate_candidate", accept)
    service = LiveReplay(draw_dataset(), LiveSettings(publish_every=10, gate_margin=0.03, gate_min_photos=12), seed=0)
    served = [fitted(service.label(count))["damage"].temperature for count in (10, 20, 30, 40)]
    # 9, 18, 27 and 36 labels to train on
    assert against == [served[0], served[1], served[0], served[2], served[1]]


@pytest.mark.parametrize("publish_every", [1, 20])
def test_all_photos_are_labelled_in_the_end(publish_every: int) -> None:
    service = LiveReplay(draw_dataset(), LiveSettings(publish_every=publish_every), seed=0)
    order = label_one_by_one(service, 80)
    assert sorted(order) == list(range(80))
    assert len(service.holdout_rows()) == 8
