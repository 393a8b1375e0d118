"""Settling what has arrived, beside settling with all photos of the project in sight."""

from pathlib import Path

import numpy as np
import pytest

from backend.loop.settling import settle
from backend.pool.cache import PoolCache
from backend.snapshot import Snapshot
from carcond.data.annotations import ConsensusLabel
from carcond.data.split import assign_splits, draw_holdout, split_imported
from carcond.store.store import Store, TaskMirror
from carcond.store.tables import PredictionRow
from tests.known_photos import known_photos

PROJECT = 1
Labels = dict[int, ConsensusLabel]


def snapshot(store: Store, folder: Path, labels: Labels) -> Snapshot:
    return Snapshot("tiny", [], labels, set(), *PoolCache(store, PROJECT, "tiny", folder).read())


def settle_all(store: Store, labels: Labels) -> None:
    """The three rules over all photos."""
    photos = known_photos(store, PROJECT)
    asked = {row.task_id for row in store.predictions(PROJECT)}
    classes = {task_id: label.classes for task_id, label in labels.items()}
    generator = np.random.default_rng((PROJECT, sum(photo.side is not None for photo in photos)))
    changed = split_imported(photos, classes, asked, generator)
    changed += assign_splits(photos, labels)
    changed += draw_holdout(photos)
    store.update_photos(PROJECT, [{"task_id": p.task_id, "side": p.side, "drawn": p.drawn} for p in changed])


def splits(store: Store) -> list[tuple[int, str | None, bool]]:
    return [(photo.task_id, photo.side, photo.drawn) for photo in known_photos(store, PROJECT)]


def add(stores: list[Store], task_id: int, group: int | None, *, predicted: bool) -> None:
    row = {"prediction_id": task_id, "task_id": task_id, "model_version": "carcond-0001", "score": 0.5, "slot": 1}
    for store in stores:
        predictions = [PredictionRow(project_id=PROJECT, **row)] if predicted else []
        store.mirror_tasks(PROJECT, [TaskMirror(task_id, f"/{task_id}.jpg", [], predictions)])
        store.update_photos(PROJECT, [{"task_id": task_id, "group": group}])


@pytest.mark.parametrize("seed", range(6))
def test_photos_that_arrive_get_the_split_they_would_get_with_all_photos_in_sight(tmp_path: Path, seed: int) -> None:
    generator = np.random.default_rng(seed)
    stores = [Store(f"sqlite:///{tmp_path / name}") for name in ("one", "other")]
    labels: Labels = {}
    arrived = 0
    for _ in range(4):
        for _ in range(int(generator.integers(1, 40))):
            arrived += 1
            group = int(generator.integers(1, 60)) if generator.random() < 0.9 else None
            predicted = bool(generator.random() < 0.3)
            add(stores, arrived, group, predicted=predicted)
            if generator.random() < 0.6:
                labels[arrived] = ConsensusLabel(
                    {"damage": str(generator.choice(["intact", "damaged"], p=[0.9, 0.1]))}, {}, ()
                )
        present = {i for i in range(1, arrived + 1) if generator.random() < 0.95}
        for store in stores:
            store.mark_gone(PROJECT, present)
        labels = {task_id: label for task_id, label in labels.items() if task_id in present}
        settle(stores[0], PROJECT, snapshot(stores[0], tmp_path / "pool", labels))
        settle_all(stores[1], labels)
        assert splits(stores[0]) == splits(stores[1])
    for store in stores:
        store.close()


def test_a_group_of_deleted_photos_waits_unread_for_one_to_come_back(store: Store, tmp_path: Path) -> None:
    add([store], 1, 7, predicted=False)
    store.mark_gone(PROJECT, set())
    assert not settle(store, PROJECT, snapshot(store, tmp_path, {}))
    add([store], 1, 7, predicted=False)
    assert settle(store, PROJECT, snapshot(store, tmp_path, {}))


def test_photos_that_are_settled_are_not_read_again(store: Store, tmp_path: Path) -> None:
    for task_id in range(1, 20):
        add([store], task_id, task_id, predicted=False)
    assert settle(store, PROJECT, snapshot(store, tmp_path, {}))
    assert sum(drawn for _, _, drawn in splits(store)) >= 1
    assert not settle(store, PROJECT, snapshot(store, tmp_path, {}))
