import multiprocessing
import traceback
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Barrier

import numpy as np
import pytest
from sqlalchemy.exc import IntegrityError

from carcond.arrays import FloatArray
from carcond.data.split import HOLDOUT, TRAIN
from carcond.errors import StoreError
from carcond.store.store import Store, TaskMirror
from carcond.store.tables import AnnotationRow, Photo, PredictionRow, Project
from tests.known_photos import known_photos

PROJECT = 7
SIGNED_URL = "https://cars.example/1.jpg?X-Amz-Signature=" + "0a1b" * 16


def annotation(task_id: int, annotation_id: int, damage: str = "intact", cancelled: bool = False) -> AnnotationRow:
    return AnnotationRow(
        project_id=PROJECT,
        annotation_id=annotation_id,
        task_id=task_id,
        annotator=1,
        updated_at="2026-01-01T00:00:00Z",
        cancelled=cancelled,
        classes={"damage": damage},
    )


def prediction(task_id: int, prediction_id: int, version: str = "carcond-0001") -> PredictionRow:
    return PredictionRow(
        project_id=PROJECT, prediction_id=prediction_id, task_id=task_id, model_version=version, score=0.5, slot=3
    )


def task(
    task_id: int,
    url: str | None = None,
    annotations: Sequence[AnnotationRow] = (),
    predictions: Sequence[PredictionRow] = (),
) -> TaskMirror:
    return TaskMirror(task_id, url or f"http://host/{task_id}.jpg", annotations, predictions)


def vector(value: float = 0.5, dimension: int = 4) -> FloatArray:
    return np.full(dimension, value, dtype=np.float32)


def photo_of(store: Store, task_id: int) -> Photo:
    (photo,) = [photo for photo in store.photos(PROJECT) if photo.task_id == task_id]
    return photo


@pytest.fixture
def store(url: str) -> Iterator[Store]:
    store = Store(url)
    yield store
    store.close()


# Projects


def test_a_project_is_added_once(store: Store) -> None:
    assert store.add_project(PROJECT)
    assert not store.add_project(PROJECT)
    assert store.project_ids() == [PROJECT]


def test_asking_for_a_new_project_makes_its_row(store: Store) -> None:
    project = store.project(PROJECT)
    assert (project.id, project.watermark, project.label_config) == (PROJECT, None, "")


def test_projects_are_listed_in_order(store: Store) -> None:
    for number in (30, 4, 12):
        store.add_project(number)
    assert store.project_ids() == [4, 12, 30]


def test_a_retired_project_is_known_by_its_photos_and_not_served(store: Store) -> None:
    assert not store.is_known(PROJECT)
    assert not store.is_served(PROJECT)
    store.add_project(PROJECT)
    assert store.is_known(PROJECT)
    assert store.is_served(PROJECT)
    store.mirror_tasks(PROJECT, [TaskMirror(1, "/data/1.jpg", [], [])])
    store.retire_project(PROJECT)
    assert store.is_known(PROJECT)
    assert not store.is_served(PROJECT)
    assert not store.is_known(PROJECT + 1)


def test_how_far_a_project_was_read_is_remembered_for_it_alone(store: Store) -> None:
    store.add_project(PROJECT)
    store.add_project(8)
    store.mark_read(PROJECT, "2026-01-01T00:00:00Z", "<View/>")
    assert store.project(PROJECT).watermark == "2026-01-01T00:00:00Z"
    assert store.project(PROJECT).label_config == "<View/>"
    assert store.project(8).watermark is None


def add_together(url: str, together: Barrier, answers: "Queue[bool]") -> None:
    store = Store(url)
    together.wait()
    answers.put(store.add_project(PROJECT))
    store.close()


@pytest.mark.slow
def test_of_two_processes_adding_the_same_project_one_adds_it(url: str, store: Store) -> None:
    context = multiprocessing.get_context("spawn")
    together, answers = context.Barrier(2), context.Queue()
    processes = [context.Process(target=add_together, args=(url, together, answers)) for _ in range(2)]
    for process in processes:
        process.start()
    said = sorted(answers.get(timeout=60) for _ in processes)
    for process in processes:
        process.join(60)
    assert said == [False, True]
    assert store.project_ids() == [PROJECT]


def test_of_many_threads_adding_the_same_project_one_adds_it(store: Store) -> None:
    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(store.add_project, [PROJECT] * 16)) == 1


# The mirror


def test_a_mirrored_task_is_there_with_all_its_parts(store: Store) -> None:
    store.mirror_tasks(PROJECT, [task(1, "http://host/a.jpg", [annotation(1, 10)], [prediction(1, 20)])])
    assert photo_of(store, 1).url == "http://host/a.jpg"
    assert [(a.annotation_id, a.classes) for a in store.annotations(PROJECT)] == [(10, {"damage": "intact"})]
    assert [(p.prediction_id, p.slot) for p in store.predictions(PROJECT)] == [(20, 3)]


def test_mirroring_a_task_again_replaces_what_was_known_of_it(store: Store) -> None:
    store.mirror_tasks(PROJECT, [task(1, None, [annotation(1, 10), annotation(1, 11)], [prediction(1, 20)])])
    store.mirror_tasks(PROJECT, [task(1, None, [annotation(1, 11, "damaged"), annotation(1, 12)])])
    assert [(a.annotation_id, a.classes["damage"]) for a in store.annotations(PROJECT)] == [
        (11, "damaged"),
        (12, "intact"),
    ]
    assert store.predictions(PROJECT) == []


def test_mirroring_one_task_leaves_the_others_and_other_projects(store: Store) -> None:
    store.mirror_tasks(PROJECT, [task(1, None, [annotation(1, 10)]), task(2, None, [annotation(2, 11)])])
    store.mirror_tasks(8, [task(1)])
    store.mirror_tasks(PROJECT, [task(1)])
    assert [a.annotation_id for a in store.annotations(PROJECT)] == [11]
    assert store.photo_count(8) == 1


def test_a_task_read_twice_counts_as_it_was_read_last(store: Store) -> None:
    store.mirror_tasks(PROJECT, [task(1, "old", [annotation(1, 10)]), task(2), task(1, "new", [annotation(1, 10)])])
    assert photo_of(store, 1).url == "new"
    assert len(store.annotations(PROJECT)) == 1


def test_more_tasks_than_fit_into_one_statement_are_mirrored(store: Store) -> None:
    store.mirror_tasks(PROJECT, [task(i, None, [annotation(i, i)]) for i in range(1, 1202)])
    store.mirror_tasks(PROJECT, [task(i) for i in range(1, 1202)])
    assert store.photo_count(PROJECT) == 1201
    assert store.annotations(PROJECT) == []


def test_photos_and_annotations_come_in_order_of_their_ids(store: Store) -> None:
    store.mirror_tasks(PROJECT, [task(i, None, [annotation(i, 50 - i)], [prediction(i, 90 - i)]) for i in (9, 2, 5)])
    assert [p.task_id for p in store.photos(PROJECT)] == [2, 5, 9]
    assert [a.annotation_id for a in store.annotations(PROJECT)] == [41, 45, 48]
    assert [p.prediction_id for p in store.predictions(PROJECT)] == [81, 85, 88]


def test_mirroring_no_task_changes_nothing(store: Store) -> None:
    store.mirror_tasks(PROJECT, [])
    assert store.photos(PROJECT) == []


# Changed addresses


def test_a_photo_whose_address_changed_loses_its_embeddings_and_hash(store: Store) -> None:
    store.mirror_tasks(PROJECT, [task(1, "old"), task(2)])
    store.put_embeddings(PROJECT, "tiny", {1: vector(), 2: vector()})
    store.put_embeddings(PROJECT, "other", {1: vector()})
    store.update_photos(PROJECT, [{"task_id": 1, "phash": "00ff00ff00ff00ff", "problem": "no photo", "failures": 3}])
    store.mirror_tasks(PROJECT, [task(1, "new")])
    assert store.embeddings(PROJECT, "tiny")[0].tolist() == [2]
    assert store.embeddings(PROJECT, "other")[0].tolist() == []
    photo = photo_of(store, 1)
    assert (photo.phash, photo.problem, photo.failures, photo.retry_at) == (None, None, 0, 0.0)


def test_a_photo_whose_address_changed_keeps_its_side_and_group(store: Store) -> None:
    store.mirror_tasks(PROJECT, [task(1, "old")])
    store.update_photos(PROJECT, [{"task_id": 1, "side": HOLDOUT, "drawn": True, "group": 4}])
    store.mirror_tasks(PROJECT, [task(1, "new")])
    photo = photo_of(store, 1)
    assert (photo.side, photo.drawn, photo.group) == (HOLDOUT, True, 4)


def test_a_photo_whose_address_stayed_keeps_its_embedding(store: Store) -> None:
    store.mirror_tasks(PROJECT, [task(1)])
    store.put_embeddings(PROJECT, "tiny", {1: vector()})
    store.mirror_tasks(PROJECT, [task(1, None, [annotation(1, 10)])])
    assert store.embeddings(PROJECT, "tiny")[0].tolist() == [1]


# Deleted tasks


def test_a_deleted_task_is_gone_with_its_labels_and_predictions(store: Store) -> None:
    store.mirror_tasks(PROJECT, [task(i, None, [annotation(i, i)], [prediction(i, i)]) for i in (1, 2)])
    store.put_embeddings(PROJECT, "tiny", {1: vector(), 2: vector()})
    assert store.mark_gone(PROJECT, present={2}) == 1
    assert [p.task_id for p in store.photos(PROJECT)] == [2]
    assert store.photo_count(PROJECT) == 1
    assert [a.task_id for a in store.annotations(PROJECT)] == [2]
    assert [p.task_id for p in store.predictions(PROJECT)] == [2]
    assert store.embeddings(PROJECT, "tiny")[0].tolist() == [2]


def test_a_deleted_task_that_returns_finds_its_side_and_embedding(store: Store) -> None:
    store.mirror_tasks(PROJECT, [task(1, None, [annotation(1, 10)])])
    store.put_embeddings(PROJECT, "tiny", {1: vector()})
    store.update_photos(PROJECT, [{"task_id": 1, "side": TRAIN, "group": 2, "phash": "0" * 16}])
    store.mark_gone(PROJECT, present=set())
    store.mirror_tasks(PROJECT, [task(1)])
    photo = photo_of(store, 1)
    assert (photo.side, photo.group) == (TRAIN, 2)
    assert store.embeddings(PROJECT, "tiny")[0].tolist() == [1]
    assert store.annotations(PROJECT) == []


def test_a_deleted_photo_still_counts_among_the_known_ones(store: Store) -> None:
    store.mirror_tasks(PROJECT, [task(1), task(2), task(3)])
    store.mark_gone(PROJECT, present={2, 3})
    assert [p.task_id for p in known_photos(store, PROJECT)] == [1, 2, 3]
    assert [p.task_id for p in store.photos(PROJECT)] == [2, 3]


def test_a_photo_is_ungrouped_from_its_hash_until_its_group(store: Store) -> None:
    store.mirror_tasks(PROJECT, [task(1), task(2), task(3)])
    store.update_photos(PROJECT, [{"task_id": i, "phash": f"{i:016x}"} for i in (1, 2)])
    store.update_photos(PROJECT, [{"task_id": 1, "group": 1}])
    assert [p.task_id for p in store.ungrouped_photos(PROJECT)] == [2]


def test_a_task_is_found_deleted_once(store: Store) -> None:
    store.mirror_tasks(PROJECT, [task(1)])
    assert [store.mark_gone(PROJECT, set()) for _ in range(2)] == [1, 0]


def test_more_tasks_than_fit_into_one_statement_can_be_deleted(store: Store) -> None:
    store.mirror_tasks(PROJECT, [task(i) for i in range(1, 1202)])
    assert store.mark_gone(PROJECT, present={5}) == 1200


def test_tasks_deleted_in_one_project_stay_in_another(store: Store) -> None:
    store.mirror_tasks(PROJECT, [task(1)])
    store.mirror_tasks(8, [task(1)])
    store.mark_gone(PROJECT, present=set())
    assert store.photo_count(8) == 1


# Predictions


def test_predictions_of_some_tasks_are_found(store: Store) -> None:
    store.mirror_tasks(PROJECT, [task(i, None, (), [prediction(i, 100 - i)]) for i in range(1, 6)])
    assert [p.prediction_id for p in store.predictions_of(PROJECT, [2, 4, 77])] == [96, 98]
    assert store.predictions_of(PROJECT, []) == []


def test_a_prediction_just_written_replaces_the_one_of_its_id(store: Store) -> None:
    store.mirror_tasks(PROJECT, [task(1, None, (), [prediction(1, 20)])])
    store.put_prediction(prediction(1, 20, "carcond-0002"))
    store.put_prediction(prediction(1, 21, "carcond-0002"))
    assert [(p.prediction_id, p.model_version) for p in store.predictions(PROJECT)] == [
        (20, "carcond-0002"),
        (21, "carcond-0002"),
    ]


def test_a_dropped_prediction_is_no_longer_there(store: Store) -> None:
    store.mirror_tasks(PROJECT, [task(1, None, (), [prediction(1, 20), prediction(1, 21)])])
    store.drop_prediction(PROJECT, 20)
    store.drop_prediction(PROJECT, 99)
    assert [p.prediction_id for p in store.predictions(PROJECT)] == [21]


def test_whether_a_version_has_predictions_is_known_per_project(store: Store) -> None:
    store.put_prediction(prediction(1, 20))
    assert store.has_prediction(PROJECT, "carcond-0001")
    assert not store.has_prediction(PROJECT, "carcond-0002")
    assert not store.has_prediction(8, "carcond-0001")


# Embeddings


def test_embeddings_come_back_in_order_of_task_id_and_half_precision(store: Store) -> None:
    rng = np.random.default_rng(0)
    kept = {task_id: rng.normal(size=1792).astype(np.float32) for task_id in (9, 2, 40)}
    store.mirror_tasks(PROJECT, [task(i) for i in kept])
    store.put_embeddings(PROJECT, "tiny", kept)
    task_ids, embeddings = store.embeddings(PROJECT, "tiny")
    assert task_ids.tolist() == [2, 9, 40]
    assert embeddings.dtype == np.float32
    np.testing.assert_array_equal(embeddings, np.stack([kept[i] for i in (2, 9, 40)]).astype(np.float16))


def test_embeddings_of_another_encoder_or_project_are_kept_apart(store: Store) -> None:
    store.mirror_tasks(PROJECT, [task(1)])
    store.mirror_tasks(8, [task(1)])
    store.put_embeddings(PROJECT, "tiny", {1: vector(1)})
    store.put_embeddings(PROJECT, "other", {1: vector(2, dimension=6)})
    store.put_embeddings(8, "tiny", {1: vector(3)})
    np.testing.assert_array_equal(store.embeddings(PROJECT, "tiny")[1], [vector(1)])
    np.testing.assert_array_equal(store.embeddings(PROJECT, "other")[1], [vector(2, dimension=6)])
    np.testing.assert_array_equal(store.embeddings(8, "tiny")[1], [vector(3)])


def test_an_embedding_made_again_replaces_the_old_one(store: Store) -> None:
    store.mirror_tasks(PROJECT, [task(1)])
    for value in (1, 2):
        store.put_embeddings(PROJECT, "tiny", {1: vector(value)})
    np.testing.assert_array_equal(store.embeddings(PROJECT, "tiny")[1], [vector(2)])


def test_a_project_without_embeddings_gives_empty_arrays(store: Store) -> None:
    task_ids, embeddings = store.embeddings(PROJECT, "tiny")
    assert task_ids.shape == (0,)
    assert embeddings.shape == (0, 0)


def test_what_is_kept_of_photos_is_found_by_task(store: Store) -> None:
    store.mirror_tasks(PROJECT, [task(1, "a"), task(2, "b"), task(3, "c")])
    store.put_embeddings(PROJECT, "tiny", {1: vector(1), 2: vector(2)})
    store.put_embeddings(PROJECT, "other", {3: vector(3)})
    store.update_photos(PROJECT, [{"task_id": 1, "side": TRAIN}, {"task_id": 2, "side": HOLDOUT}])
    found = store.kept_photos(PROJECT, "tiny", [3, 2, 1, 99])
    assert {i: (photo.url, photo.split) for i, photo in found.items()} == {
        1: ("a", TRAIN),
        2: ("b", HOLDOUT),
        3: ("c", None),
    }
    np.testing.assert_array_equal(found[1].embedding, vector(1))
    np.testing.assert_array_equal(found[2].embedding, vector(2))
    assert found[3].embedding is None
    assert store.kept_photos(PROJECT + 1, "tiny", [1]) == {}
    assert store.kept_photos(PROJECT, "tiny", []) == {}


def test_more_photos_than_fit_into_one_statement_are_found_by_task(store: Store) -> None:
    store.mirror_tasks(PROJECT, [task(i, "a") for i in range(1, 702)])
    store.put_embeddings(PROJECT, "tiny", {i: vector(i) for i in range(1, 702)})
    found = store.kept_photos(PROJECT, "tiny", range(1, 702))
    assert sum(photo.embedding is not None for photo in found.values()) == 701


def test_photos_cannot_be_looked_up_in_a_store_without_tables(store: Store) -> None:
    with store.session() as session:
        session.connection().exec_driver_sql("DROP TABLE photo")
    with pytest.raises(StoreError, match="cannot be read or written"):
        store.kept_photos(PROJECT, "tiny", [1])


# Changes of photos


def test_only_the_named_columns_of_the_named_photos_change(store: Store) -> None:
    store.mirror_tasks(PROJECT, [task(1), task(2)])
    store.update_photos(PROJECT, [{"task_id": 1, "group": 3}])
    store.update_photos(PROJECT, [{"task_id": 1, "side": TRAIN}, {"task_id": 2, "problem": "no photo"}])
    first, second = store.photos(PROJECT)
    assert (first.group, first.side, first.problem) == (3, TRAIN, None)
    assert (second.group, second.side, second.problem) == (None, None, "no photo")


def test_no_change_and_a_change_of_an_unknown_photo_do_nothing(store: Store) -> None:
    store.update_photos(PROJECT, [])
    store.update_photos(PROJECT, [{"task_id": 99, "group": 3}])
    assert store.photos(PROJECT) == []


# The database


def test_a_store_opened_again_finds_everything(url: str) -> None:
    first = Store(url)
    first.add_project(PROJECT)
    first.mark_read(PROJECT, "2026-01-01T00:00:00Z", "<View/>")
    first.mirror_tasks(PROJECT, [task(1, None, [annotation(1, 10)], [prediction(1, 20)])])
    first.put_embeddings(PROJECT, "tiny", {1: vector()})
    first.update_photos(PROJECT, [{"task_id": 1, "side": HOLDOUT, "drawn": True}])
    first.close()
    again = Store(url)
    assert again.project(PROJECT).watermark == "2026-01-01T00:00:00Z"
    assert (photo_of(again, 1).side, photo_of(again, 1).drawn) == (HOLDOUT, True)
    assert [a.annotation_id for a in again.annotations(PROJECT)] == [10]
    assert [p.prediction_id for p in again.predictions(PROJECT)] == [20]
    assert again.embeddings(PROJECT, "tiny")[0].tolist() == [1]
    again.close()


def test_an_error_inside_a_transaction_undoes_all_of_it(store: Store) -> None:
    def fail() -> None:
        with store.session() as session:
            session.add(Project(id=1, watermark=None))
            session.flush()
            raise KeyError("stop")

    with pytest.raises(KeyError):
        fail()
    assert store.project_ids() == []


def test_a_chunk_of_tasks_is_mirrored_whole_or_not_at_all(store: Store) -> None:
    store.mirror_tasks(PROJECT, [task(1, None, [annotation(1, 10)])])
    with pytest.raises(IntegrityError):
        store.mirror_tasks(PROJECT, [task(1), task(2, None, [annotation(2, 11)]), task(3, None, [annotation(3, 11)])])
    assert [a.annotation_id for a in store.annotations(PROJECT)] == [10]
    assert store.photo_count(PROJECT) == 1


def test_one_process_reads_while_another_writes(url: str, store: Store) -> None:
    store.add_project(PROJECT)
    reader = Store(url)
    with store.session() as writer:
        writer.add(Project(id=8))
        writer.flush()
        assert reader.project_ids() == [PROJECT]
    assert reader.project_ids() == [PROJECT, 8]
    reader.close()


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
def test_a_full_disk_is_told_and_what_was_kept_stays_readable(store: Store) -> None:
    store.mirror_tasks(PROJECT, [task(1)])
    with store.session() as session:
        pages = session.connection().exec_driver_sql("PRAGMA page_count").scalar_one()
        session.connection().exec_driver_sql(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(StoreError, match="full"):
        store.put_embeddings(PROJECT, "tiny", {1: vector(dimension=100_000)})
    assert store.photo_count(PROJECT) == 1
    assert store.embeddings(PROJECT, "tiny")[0].tolist() == []


def test_tables_that_vanished_are_told_as_a_fault_of_the_store(store: Store) -> None:
    with store.session() as session:
        session.connection().exec_driver_sql("DROP TABLE photo")
    with pytest.raises(StoreError, match=r"no such table: photo|relation \"photo\" does not exist"):
        store.photos(PROJECT)


def test_a_traceback_does_not_hold_what_was_to_be_written(store: Store) -> None:
    with store.session() as session:
        session.connection().exec_driver_sql("DROP TABLE photo")
    with pytest.raises(StoreError) as caught, store.session() as session:
        session.add(Photo(project_id=PROJECT, task_id=1, url=SIGNED_URL))
    told = "".join(traceback.format_exception(caught.value))
    assert "INSERT INTO photo" in told
    assert "0a1b" not in told


def test_some_photos_and_their_embeddings_are_read_in_order(store: Store) -> None:
    store.mirror_tasks(PROJECT, [task(i) for i in (3, 1, 2)])
    store.put_embeddings(PROJECT, "tiny", {1: vector(0.25), 3: vector(0.75)})
    store.mark_gone(PROJECT, {1, 3})
    assert [photo.task_id for photo in store.photos_of(PROJECT, [3, 2, 99])] == [2, 3]
    task_ids, rows = store.embeddings_of(PROJECT, "tiny", [3, 2, 1])
    assert task_ids.tolist() == [1, 3]
    np.testing.assert_array_equal(rows, [vector(0.25), vector(0.75)])
    assert len(store.embeddings_of(PROJECT, "tiny", [])[0]) == 0
    assert store.task_ids(PROJECT) == {1, 3}
