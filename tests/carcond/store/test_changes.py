"""Change numbers: every change gives its photos a greater one, and they become visible in their order."""

import threading
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from carcond.store.changes import checksum_of
from carcond.store.store import Store, TaskMirror
from carcond.store.tables import PredictionRow

PROJECT = 7


@pytest.fixture
def store(url: str) -> Iterator[Store]:
    made = Store(url)
    made.mirror_tasks(PROJECT, [TaskMirror(i, f"/{i}.jpg", [], [prediction(i)]) for i in (1, 2, 3)])
    yield made
    made.close()


def prediction(task_id: int, score: float = 0.5) -> PredictionRow:
    return PredictionRow(
        project_id=PROJECT,
        prediction_id=task_id,
        task_id=task_id,
        model_version="carcond-0001",
        score=score,
        slot=3,
    )


def of_another_project() -> PredictionRow:
    row = prediction(2)
    row.project_id = PROJECT + 1
    return row


def number(store: Store) -> int:
    with store.changes(PROJECT) as reader:
        return reader.number()


def changed(store: Store, since: int) -> list[int]:
    with store.changes(PROJECT) as reader:
        return [task_id for part in reader.photos(since) for task_id in part.task_ids.tolist()]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda store: store.mirror_tasks(PROJECT, [TaskMirror(2, "/other.jpg", [], [])]), [2]),
        (lambda store: store.mirror_tasks(PROJECT, [TaskMirror(9, "/9.jpg", [], [])]), [9]),
        (lambda store: store.mark_gone(PROJECT, {1, 3}), [2]),
        (lambda store: store.put_prediction(prediction(3, 0.7)), [3]),
        (lambda store: store.drop_prediction(PROJECT, 1), [1]),
        (lambda store: store.put_embeddings(PROJECT, "tiny", {i: np.zeros(4, np.float32) for i in (1, 3)}), [1, 3]),
        (lambda store: store.update_photos(PROJECT, [{"task_id": 2, "side": "train"}]), [2]),
        (lambda store: store.drop_prediction(PROJECT, 99), []),
        (lambda store: store.put_prediction(of_another_project()), []),
    ],
    ids=["address", "new", "gone", "moved", "dropped", "embedded", "settled", "nothing", "another project"],
)
def test_a_change_is_seen_on_its_photos_alone(
    store: Store, change: Callable[[Store], object], expected: list[int]
) -> None:
    before = number(store)
    change(store)
    assert changed(store, before) == expected
    assert changed(store, number(store)) == []


def test_a_change_that_fails_takes_no_number(store: Store) -> None:
    before = number(store)
    with pytest.raises(ZeroDivisionError):
        store.put_embeddings(PROJECT, "tiny", _failing())  # type: ignore[arg-type]
    assert number(store) == before


class _failing(dict[int, object]):  # noqa: N801 - reads as what it does
    def items(self) -> object:  # type: ignore[override]
        raise ZeroDivisionError


def test_the_sum_of_all_numbers_is_that_of_the_photos(store: Store) -> None:
    store.put_prediction(prediction(2))
    with store.changes(PROJECT) as reader:
        changes = np.concatenate([part.changes for part in reader.photos(-1)])
        assert reader.checksum() == checksum_of(changes)
        assert reader.checksum()[0] == 3


def test_a_project_that_nobody_knows_has_no_change(store: Store) -> None:
    with store.changes(PROJECT + 5) as reader:
        assert (reader.number(), reader.checksum(), list(reader.photos(-1))) == (0, (0, 0), [])


def test_a_reading_is_of_one_moment(store: Store) -> None:
    with store.changes(PROJECT) as reader:
        before = reader.number()
        store.put_prediction(prediction(1, 0.9))
        store.update_photos(PROJECT, [{"task_id": 1, "side": "train"}])
        assert reader.number() == before
        assert not list(reader.photos(before))
        rows = reader.predictions(np.array([1, 2]))
        assert sorted(zip(rows.task_ids.tolist(), rows.scores.tolist(), strict=True)) == [(1, 0.5), (2, 0.5)]
    assert changed(store, before) == [1]


def test_who_follows_the_numbers_misses_nothing_however_many_write(store: Store) -> None:
    seen: dict[int, float] = {}
    done = threading.Event()

    def follow() -> None:
        since = -1
        while True:
            last = done.is_set()
            with store.changes(PROJECT) as reader:
                for part in reader.photos(since):
                    rows = reader.predictions(part.task_ids)
                    seen.update(zip(rows.task_ids.tolist(), rows.scores.tolist(), strict=True))
                since = reader.number()
            if last:
                return

    def write(task_id: int) -> None:
        for step in range(25):
            store.put_prediction(prediction(task_id, step / 100))

    follower = threading.Thread(target=follow)
    writers = [threading.Thread(target=write, args=(task_id,)) for task_id in (1, 2, 3)]
    for thread in (follower, *writers):
        thread.start()
    for thread in writers:
        thread.join()
    done.set()
    follower.join()
    assert seen == {1: 0.24, 2: 0.24, 3: 0.24}


def test_embeddings_of_some_photos_are_read_part_by_part(store: Store) -> None:
    kept = {i: np.full(4, i, dtype=np.float32) for i in (1, 3)}
    store.put_embeddings(PROJECT, "tiny", kept)
    store.put_embeddings(PROJECT, "other", {2: np.zeros(6, dtype=np.float32)})
    with store.changes(PROJECT) as reader:
        parts = list(reader.embeddings("tiny", np.array([1, 2, 3])))
    found = {int(i): row for ids, rows in parts for i, row in zip(ids, rows, strict=True)}
    assert found.keys() == kept.keys()
    assert all((found[i] == kept[i]).all() for i in kept)
