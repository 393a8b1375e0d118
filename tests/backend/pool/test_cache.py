"""The pool's files beside the store: whatever happens, a reading is what the store has."""

import logging
import multiprocessing
import os
import sqlite3
from collections.abc import Iterator
from multiprocessing.synchronize import Barrier
from pathlib import Path

import numpy as np
import pytest

from backend.pool.cache import PoolCache
from backend.pool.facts import NONE, SIDES, PoolFacts
from backend.pool.files import locked
from carcond import files as carcond_files
from carcond.arrays import FloatArray
from carcond.data.split import photo_draw
from carcond.registry.version_names import is_ours
from carcond.store.store import Store, TaskMirror
from carcond.store.tables import Photo, PredictionRow
from tests.conftest import DATABASES
from tests.known_photos import known_photos

PROJECT, ENCODER, DIMENSION = 3, "tiny", 8


@pytest.fixture(params=DATABASES)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'store.sqlite3'}"
    return str(request.getfixturevalue("postgres").new_database())


@pytest.fixture
def store(url: str) -> Iterator[Store]:
    made = Store(url)
    yield made
    made.close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "pool"


def vector(number: int) -> FloatArray:
    return np.random.default_rng(number).normal(size=DIMENSION).astype(np.float16).astype(np.float32)


def prediction(task_id: int, number: int = 0, version: str = "carcond-0001", slot: int | None = 1) -> PredictionRow:
    return PredictionRow(
        project_id=PROJECT,
        prediction_id=100 * task_id + number,
        task_id=task_id,
        model_version=version,
        score=task_id / 100,
        slot=slot,
    )


def mirror(store: Store, *task_ids: int, address: str = "a") -> None:
    tasks = [TaskMirror(i, f"/{address}/{i}.jpg", [], [prediction(i)]) for i in task_ids]
    store.mirror_tasks(PROJECT, tasks)


def embed(store: Store, *task_ids: int, seed: int = 0, encoder_id: str = ENCODER) -> None:
    store.put_embeddings(PROJECT, encoder_id, {i: vector(i + seed) for i in task_ids})
    store.update_photos(PROJECT, [{"task_id": i, "phash": f"{i:016x}", "group": i, "side": "train"} for i in task_ids])


def read(store: Store, folder: Path, encoder_id: str = ENCODER) -> PoolFacts:
    """Read the pool, and compare all of it with the store."""
    facts, positions, embeddings = PoolCache(store, PROJECT, encoder_id, folder).read()
    photos = known_photos(store, PROJECT)
    assert facts.task_ids.tolist() == [p.task_id for p in photos]
    assert facts.changes.tolist() == [p.change for p in photos]
    assert facts.groups.tolist() == [NONE if p.group is None else p.group for p in photos]
    assert [SIDES[code] for code in facts.sides] == [p.side for p in photos]
    assert facts.drawn.tolist() == [p.drawn for p in photos]
    assert facts.gone.tolist() == [p.gone for p in photos]
    assert facts.has_problem.tolist() == [p.problem is not None for p in photos]
    assert facts.draws.tolist() == [np.float32(photo_draw(PROJECT, p.task_id)) for p in photos]
    held = facts.held
    assert sorted(
        zip(
            held.task_ids.tolist(),
            held.names[held.versions].tolist(),
            held.slots.tolist(),
            held.scores.tolist(),
            strict=True,
        )
    ) == sorted(
        (row.task_id, row.model_version, NONE if row.slot is None else row.slot, row.score)
        for row in store.predictions(PROJECT)
        if is_ours(row.model_version)
    )
    task_ids, rows = store.embeddings(PROJECT, encoder_id)
    assert facts.task_ids[positions].tolist() == task_ids.tolist()
    everything = np.arange(len(task_ids))
    if len(task_ids):
        np.testing.assert_array_equal(embeddings[everything], rows)
        np.testing.assert_array_equal(np.concatenate([block.copy() for block in embeddings.blocks()]), rows)
    return facts


def size(folder: Path) -> int:
    """Embeddings in the files."""
    (file,) = folder.glob("embeddings-*.f2")
    return file.stat().st_size // (2 * DIMENSION)


def test_an_empty_project_has_an_empty_pool(store: Store, folder: Path) -> None:
    assert len(read(store, folder).task_ids) == 0


def test_a_turn_reads_what_changed_and_appends_new_embeddings(store: Store, folder: Path) -> None:
    mirror(store, 5, 1, 3)
    embed(store, 1, 5)
    read(store, folder)
    assert size(folder) == 2
    mirror(store, 2, 9)
    embed(store, 3, 2)  # between those that are known
    read(store, folder)
    assert size(folder) == 4
    read(store, folder)
    assert size(folder) == 4


def test_a_changed_photo_is_read_anew(store: Store, folder: Path) -> None:
    mirror(store, 1, 2)
    embed(store, 1, 2)
    read(store, folder)
    mirror(store, 2, address="b")
    assert read(store, folder).places.tolist() == [0, NONE]
    embed(store, 2, seed=7)
    assert read(store, folder).places.tolist() == [0, 2]


def test_deleted_tasks_leave_and_come_back(store: Store, folder: Path) -> None:
    mirror(store, 1, 2, 3)
    embed(store, 1, 2, 3)
    read(store, folder)
    store.mark_gone(PROJECT, {1, 3})
    assert read(store, folder).gone.tolist() == [False, True, False]
    mirror(store, 2)
    assert not read(store, folder).gone.any()
    assert size(folder) == 3  # its embedding was there


def test_predictions_that_were_written_moved_and_deleted_are_followed(store: Store, folder: Path) -> None:
    mirror(store, 1, 2)
    read(store, folder)
    store.put_prediction(prediction(1, version="carcond-0002", slot=4))
    store.put_prediction(prediction(1, 1))
    store.put_prediction(prediction(2, 1, version="another-model"))
    store.put_prediction(prediction(2, 2, slot=None))
    read(store, folder)
    store.drop_prediction(PROJECT, 100)
    assert len(read(store, folder).held.task_ids) == 3


def test_each_encoder_has_files_of_its_own(store: Store, folder: Path, tmp_path: Path) -> None:
    mirror(store, 1, 2)
    embed(store, 1, 2)
    embed(store, 2, seed=5, encoder_id="other")
    read(store, folder)
    assert read(store, tmp_path / "other", "other").places.tolist() == [NONE, 0]


def test_another_project_is_none_of_its_business(store: Store, folder: Path) -> None:
    mirror(store, 1)
    read(store, folder)
    store.mirror_tasks(PROJECT + 1, [TaskMirror(9, "/9.jpg", [], [])])
    assert read(store, folder).task_ids.tolist() == [1]


def rebuilt(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if "read anew" in record.getMessage()]


def copied(store: Store, path: Path) -> Store:
    """A copy of a SQLite store, as a backup holds it."""
    with sqlite3.connect(path) as copy, store.session() as session:
        session.connection().connection.driver_connection.backup(copy)  # type: ignore[union-attr]
    copy.close()
    return Store(f"sqlite:///{path}")


@pytest.fixture
def sqlite_store(tmp_path: Path) -> Iterator[Store]:
    made = Store(f"sqlite:///{tmp_path / 'first.sqlite3'}")
    yield made
    made.close()


def test_after_an_older_backup_is_restored_all_is_read_anew(
    sqlite_store: Store, folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    mirror(sqlite_store, 1, 2)
    embed(sqlite_store, 1, 2)
    backup = copied(sqlite_store, tmp_path / "backup.sqlite3")
    embed(sqlite_store, 2, seed=5)
    read(sqlite_store, folder)
    read(backup, folder)
    assert "the store has come to" in rebuilt(caplog)[0]
    backup.close()


def test_a_restored_backup_that_has_come_to_greater_numbers_is_noticed(
    sqlite_store: Store, folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    mirror(sqlite_store, 1, 2)
    embed(sqlite_store, 1, 2)
    backup = copied(sqlite_store, tmp_path / "backup.sqlite3")
    embed(sqlite_store, 2, seed=5)
    passed = int(read(sqlite_store, folder).changes.max())
    while backup.photos(PROJECT)[0].change <= passed:
        backup.put_prediction(prediction(1, version="carcond-0002"))
    read(backup, folder)
    assert "not those of the store" in rebuilt(caplog)[0]
    backup.close()


def test_photos_that_were_written_past_the_numbers_are_found(
    store: Store, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    mirror(store, 1)
    read(store, folder)
    with store.session() as session:
        session.add(Photo(project_id=PROJECT, task_id=2, url="/2.jpg"))
    assert read(store, folder).task_ids.tolist() == [1, 2]
    assert "not those of the store" in rebuilt(caplog)[0]


def test_a_process_killed_before_the_facts_loses_nothing(
    store: Store, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mirror(store, 1, 2, 3)
    embed(store, 1)
    read(store, folder)

    def power_off(*_: object) -> None:
        raise KeyboardInterrupt

    embed(store, 2)
    monkeypatch.setattr("backend.pool.files.replaced_file", power_off)
    with pytest.raises(KeyboardInterrupt):
        read(store, folder)
    monkeypatch.setattr("backend.pool.files.replaced_file", carcond_files.replaced_file)
    assert size(folder) == 2  # a tail that nothing names
    embed(store, 3)
    store.put_embeddings(PROJECT, ENCODER, {2: vector(99)})
    read(store, folder)
    assert size(folder) == 3


@pytest.mark.parametrize(
    "damage",
    ["truncated facts", "other bytes", "another version of the archive", "shorter embeddings", "no embeddings"],
)
def test_damaged_files_are_read_anew(store: Store, folder: Path, damage: str) -> None:
    mirror(store, *range(1, 30))
    embed(store, *range(1, 30))
    read(store, folder)
    facts, (embeddings,) = folder / "facts.npz", folder.glob("embeddings-*.f2")
    data = bytearray(facts.read_bytes())
    if damage == "truncated facts":
        facts.write_bytes(data[: len(data) // 2])
    elif damage == "other bytes":
        middle = data.index(b"task_ids.npy") + 180
        data[middle] ^= 0xFF
        facts.write_bytes(data)
    elif damage == "another version of the archive":
        data[data.index(b"PK\x01\x02") + 6] ^= 0xFF
        facts.write_bytes(data)
    elif damage == "shorter embeddings":
        os.truncate(embeddings, 2 * DIMENSION * 28)
    else:
        embeddings.unlink()
    read(store, folder)
    assert len(list(folder.glob("embeddings-*.f2"))) == 1


def test_a_disk_that_refuses_costs_time_only(store: Store, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    mirror(store, 1, 2)
    embed(store, 1, 2)
    (tmp_path / "file").write_text("no folder can be made below it")
    read(store, tmp_path / "file" / "pool")
    assert [record.levelno for record in caplog.records] == [logging.WARNING]


def test_a_process_that_holds_the_files_holds_up_nobody_for_ever(
    store: Store, folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("backend.pool.files.LOCK_PATIENCE_S", 0.1)
    mirror(store, 1, 2)
    embed(store, 1, 2)
    with locked(folder):
        read(store, folder)
    assert "another process holds its lock" in caplog.text


def test_files_of_killed_processes_are_removed(store: Store, folder: Path) -> None:
    mirror(store, 1)
    read(store, folder)
    (folder / ".a1b2c3.npz").write_bytes(b"half")
    embed(store, 1)
    read(store, folder)
    assert sorted(path.suffix for path in folder.iterdir()) == ["", ".f2", ".npz"]


def test_names_of_former_versions_are_forgotten(store: Store, folder: Path) -> None:
    mirror(store, 1)
    for number in range(1, 5):
        store.put_prediction(prediction(1, version=f"carcond-{number:04d}"))
        facts = read(store, folder)
    assert facts.held.names.tolist() == ["carcond-0004"]


def test_leftovers_of_exchanged_photos_are_removed(store: Store, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("backend.pool.cache._LEFTOVERS", 2)
    mirror(store, 1, 2)
    embed(store, 1, 2)
    read(store, folder)
    for seed in range(1, 3):
        embed(store, 1, 2, seed=seed)
        read(store, folder)
    assert size(folder) == 6
    embed(store, 1, seed=9)
    read(store, folder)
    assert size(folder) == 2


def test_a_reading_stays_as_it_is_while_another_goes_on(store: Store, folder: Path) -> None:
    mirror(store, 1, 2)
    embed(store, 1)
    facts, _, embeddings = PoolCache(store, PROJECT, ENCODER, folder).read()
    embed(store, 1, 2, seed=3)
    read(store, folder)
    assert facts.places.tolist() == [0, NONE]
    np.testing.assert_array_equal(embeddings[np.array([0])], [vector(1)])


def _write_and_read(url: str, folder: Path, together: Barrier, first: int) -> None:
    store = Store(url)
    together.wait()
    for task_id in range(first, first + 40, 2):
        mirror(store, task_id)
        embed(store, task_id)
        facts, positions, embeddings = PoolCache(store, PROJECT, ENCODER, folder).read()
        own = np.searchsorted(facts.task_ids[positions], task_id)
        np.testing.assert_array_equal(embeddings[np.array([own])], [vector(task_id)])
    store.close()


@pytest.mark.slow
def test_two_workers_keep_the_files_right(url: str, store: Store, folder: Path) -> None:
    context = multiprocessing.get_context("spawn")
    together = context.Barrier(2)
    workers = [context.Process(target=_write_and_read, args=(url, folder, together, first)) for first in (1, 2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(120)
    assert [worker.exitcode for worker in workers] == [0, 0]
    assert len(read(store, folder).task_ids) == 40
    assert size(folder) == 40
