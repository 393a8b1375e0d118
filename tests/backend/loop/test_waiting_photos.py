import time

import numpy as np
import pytest

from backend.loop import waiting_photos as module
from backend.loop.waiting_photos import LONGEST_WAIT_S, Shard, unseen_photos, waiting_photos
from carcond.store.store import Store, TaskMirror

PROJECT, ENCODER = 1, "tiny"


def put(store: Store, count: int) -> None:
    store.mirror_tasks(PROJECT, [TaskMirror(i, f"/data/{i}.jpg", [], []) for i in range(1, count + 1)])


def waiting(store: Store, shard: Shard = module.ALL) -> list[int]:
    return [photo.task_id for photo in waiting_photos(store, PROJECT, ENCODER, shard)]


def embed(store: Store, *task_ids: int, encoder_id: str = ENCODER) -> None:
    store.update_photos(PROJECT, [{"task_id": i, "phash": f"{i:016x}"} for i in task_ids])
    store.put_embeddings(PROJECT, encoder_id, {i: np.zeros(4, dtype=np.float32) for i in task_ids})


def test_photos_without_an_embedding_of_the_encoder_wait(store: Store) -> None:
    put(store, 4)
    embed(store, 1, 3)
    embed(store, 2, encoder_id="other")
    store.mark_gone(PROJECT, {1, 2, 3})
    assert waiting(store) == [2]


def test_a_photo_with_an_embedding_and_no_hash_waits(store: Store) -> None:
    put(store, 2)
    store.put_embeddings(PROJECT, ENCODER, {1: np.zeros(4, dtype=np.float32)})
    embed(store, 2)
    assert waiting(store) == [1]


def test_new_photos_come_first_and_those_whose_try_never_ended_last(store: Store) -> None:
    put(store, 4)
    store.update_photos(
        PROJECT,
        [{"task_id": 1, "failures": 1}, {"task_id": 2, "problem": "not reached", "failures": 1}],
    )
    assert waiting(store) == [3, 4, 2, 1]
    assert unseen_photos(store, PROJECT, ENCODER) == 3


def test_each_photo_is_in_one_shard(store: Store) -> None:
    put(store, 7)
    shards = [waiting(store, Shard(number, 3)) for number in range(3)]
    assert shards == [[3, 6], [1, 4, 7], [2, 5]]
    assert [unseen_photos(store, PROJECT, ENCODER, Shard(number, 3)) for number in range(3)] == [2, 3, 2]


def test_of_a_large_import_the_first_photos_are_read_and_all_are_counted(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_AT_ONCE", 3)
    put(store, 5)
    assert waiting(store) == [1, 2, 3]
    assert unseen_photos(store, PROJECT, ENCODER) == 5


def test_a_photo_waits_for_its_next_try_though_the_clock_was_set_back(store: Store) -> None:
    now = time.time()
    put(store, 4)
    retries = {1: now - 1, 2: now + 60, 3: None, 4: now + LONGEST_WAIT_S + 60}
    store.update_photos(PROJECT, [{"task_id": i, "retry_at": at} for i, at in retries.items()])
    assert waiting(store) == [1, 4]
