import itertools
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest

from backend.loop.next_in_line import open_tasks, served_next
from backend.pool.cache import PoolCache
from backend.snapshot import Snapshot
from carcond.store.store import Store, TaskMirror
from carcond.store.tables import AnnotationRow, PredictionRow
from tests.backend.fake_label_studio import PROJECT

SERVED, ENCODER = "carcond-0007", "tiny"
NOW = datetime(2026, 1, 2, 12, tzinfo=UTC)


def task(
    task_id: int, slot: int | None, score: float, *annotators: int, age: timedelta = timedelta(0), version: str = SERVED
) -> TaskMirror:
    """A task with one prediction, and one annotation of each annotator."""
    annotations = [
        AnnotationRow(
            project_id=PROJECT,
            annotation_id=1000 * annotator + task_id,
            task_id=task_id,
            annotator=annotator,
            updated_at=(NOW - age).isoformat(),
            cancelled=False,
            classes={},
        )
        for annotator in annotators
    ]
    prediction = PredictionRow(
        project_id=PROJECT, prediction_id=task_id, task_id=task_id, model_version=version, score=score, slot=slot
    )
    return TaskMirror(task_id, f"/data/{task_id}.jpg", annotations, [prediction])


def put(store: Store, *tasks: TaskMirror) -> set[int]:
    """Mirror tasks, and return those that are unlabelled."""
    store.mirror_tasks(PROJECT, tasks)
    store.put_embeddings(PROJECT, ENCODER, {each.task_id: np.zeros(4, dtype=np.float32) for each in tasks})
    return {each.task_id for each in tasks if not each.annotations}


def opened(store: Store, unlabelled: set[int], now: datetime = NOW) -> set[int]:
    with TemporaryDirectory() as folder:
        facts, positions, embeddings = PoolCache(store, PROJECT, ENCODER, Path(folder)).read()
    others = set(facts.task_ids.tolist()) - unlabelled
    snapshot = Snapshot(ENCODER, store.annotations(PROJECT), {}, others, facts, positions, embeddings)
    return open_tasks(store, PROJECT, SERVED, snapshot, now)


def queue(first: int, slots: int, depth: int) -> list[TaskMirror]:
    """Tasks of slots 1..`slots`, `depth` in each: task ids and scores grow by slot within a round."""
    return [task(first + i, 1 + i % slots, 0.1 + 0.01 * (i // slots)) for i in range(slots * depth)]


def rows(*tasks: TaskMirror) -> list[PredictionRow]:
    return [row for each in tasks for row in each.predictions]


def test_the_least_solved_slot_comes_first_and_in_it_the_lowest_score() -> None:
    waiting = rows(*queue(1, slots=3, depth=3))
    assert served_next(waiting, {1: 2, 2: 1, 3: 2}, width=1, labels=1) == {2}
    assert served_next(waiting, {1: 2, 2: 2, 3: 2}, width=1, labels=1) == {1}


def test_a_person_who_labels_meanwhile_goes_round_the_slots() -> None:
    assert served_next(rows(*queue(1, slots=3, depth=3)), {}, width=1, labels=4) == {1, 2, 3, 4}


def test_locks_of_others_bring_the_next_in_order() -> None:
    assert served_next(rows(*queue(1, slots=3, depth=3)), {1: 1, 3: 1}, width=2, labels=1) == {2, 5}


def test_a_short_queue_is_served_whole() -> None:
    assert served_next(rows(task(1, 1, 0.1)), {}, width=5, labels=3) == {1}


@pytest.mark.parametrize("seed", range(5))
def test_what_a_plain_simulation_of_label_studio_serves_is_among_the_found(seed: int) -> None:
    generator = np.random.default_rng(seed)
    slots, scores = generator.integers(0, 10, 40).tolist(), generator.random(40).tolist()
    tasks = [task(i, slot, score) for i, (slot, score) in enumerate(zip(slots, scores, strict=True), start=1)]
    solved: dict[int | None, int] = dict(enumerate(generator.integers(0, 4, 10).tolist()))
    found = served_next(rows(*tasks), solved, width=3, labels=3)
    for locked in itertools.combinations(range(1, 41), 2):
        order = sorted(rows(*tasks), key=lambda row: (solved[row.slot], row.score))
        assert next(row.task_id for row in order if row.task_id not in locked) in found
    left = rows(*tasks)
    for _ in range(3):
        served = min(left, key=lambda row: (solved[row.slot], row.score))
        assert served.task_id in found
        solved[served.slot] += 1
        left.remove(served)


def test_somebody_new_is_served_the_lowest_scores(store: Store) -> None:
    unlabelled = put(store, *queue(1, slots=3, depth=4))
    assert opened(store, unlabelled) == {1, 2, 3}


def test_each_further_person_who_labels_makes_one_more_task_likely(store: Store) -> None:
    unlabelled = put(store, *queue(1, slots=1, depth=9), task(90, 2, 0.5, 11), task(91, 2, 0.5, 12))
    assert opened(store, unlabelled) == {1, 2, 3, 4, 5}


def test_a_person_who_has_not_labelled_for_a_day_counts_no_longer(store: Store) -> None:
    old = timedelta(days=2)
    unlabelled = put(store, *queue(1, slots=1, depth=9), task(90, 2, 0.5, 11), task(91, 2, 0.5, 12, age=old))
    assert opened(store, unlabelled) == {1, 2, 3, 4}


def test_tasks_of_other_versions_and_labelled_ones_are_not_next_in_line(store: Store) -> None:
    unlabelled = put(store, task(1, 1, 0.1, 11), task(2, 1, 0.1, version="carcond-0001"), task(3, 1, 0.2))
    assert opened(store, unlabelled) == {3}


def test_what_an_annotator_was_served_stays_open_until_that_person_submits_again(store: Store) -> None:
    """A locked task is served again after a reload, whatever has been published since."""
    unlabelled = put(store, *queue(1, slots=2, depth=2), task(90, 1, 0.5, 11))
    opened(store, unlabelled)  # slot 2 is behind for annotator 11: task 2 or 4
    # All have left the front of the queue since.
    fresh = [task(i, slot, 0.1 + i / 1000) for slot, first in ((1, 20), (2, 30)) for i in range(first, first + 9)]
    unlabelled = put(store, *fresh, *(task(i, 2 - i % 2, 0.9) for i in (1, 2, 3, 4)))
    held = opened(store, unlabelled)
    assert {2, 4} <= held
    assert not {1, 3} & held
    put(store, task(95, 2, 0.1, 11))
    assert not {2, 4} & opened(store, unlabelled)


def test_a_lock_runs_out_after_a_day(store: Store) -> None:
    unlabelled = put(store, *queue(1, slots=2, depth=2), task(90, 1, 0.5, 11))
    opened(store, unlabelled)
    unlabelled = put(store, task(2, 2, 0.9), task(4, 2, 0.9), *(task(i, 2, 0.1) for i in range(30, 39)))
    assert {2, 4} <= opened(store, unlabelled, NOW + timedelta(hours=23))
    assert not {2, 4} & opened(store, unlabelled, NOW + timedelta(hours=25))


def test_a_task_that_was_labelled_or_deleted_meanwhile_is_not_open(store: Store) -> None:
    unlabelled = put(store, *queue(1, slots=2, depth=2), task(90, 1, 0.5, 11))
    assert opened(store, unlabelled) == {1, 2, 3, 4}
    assert opened(store, {1, 3}) == {1, 3}


@pytest.mark.parametrize("skipped", [1, 2])
def test_a_task_that_was_annotated_twice_by_one_person_counts_once_for_its_slot(store: Store, skipped: int) -> None:
    """Label Studio counts tasks, not annotations."""
    twice = task(90, 1, 0.5, 11)
    again = task(90, 1, 0.5, 11).annotations[0]
    again.annotation_id += 100
    twice = replace(twice, annotations=[*twice.annotations, again])
    unlabelled = put(store, *queue(1, slots=2, depth=3), twice, task(91, skipped, 0.5, 11))
    opened(store, unlabelled)
    noted = {row.task_id for row in store.open_tasks(PROJECT)}
    assert noted == ({2, 4} if skipped == 1 else {1, 2})


def test_an_empty_project_has_no_open_task(store: Store) -> None:
    assert opened(store, set()) == set()
