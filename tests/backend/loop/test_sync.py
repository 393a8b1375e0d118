import pytest

from backend.label_studio.client import PredictionDraft
from backend.label_studio.label_config import bind_label_config
from backend.loop.sync import SyncReport, sync_project
from carcond.errors import LabelStudioError
from carcond.settings import Settings
from carcond.store.store import Store
from tests.backend import label_configs
from tests.backend.fake_label_studio import PROJECT, FakeLabelStudio


def sync(studio: FakeLabelStudio, store: Store) -> SyncReport:
    project = studio.project(PROJECT)
    return sync_project(studio, store, project, bind_label_config(project.label_config), Settings())


def labels(store: Store) -> dict[int, dict[str, str]]:
    return {row.task_id: row.classes for row in store.annotations(PROJECT) if not row.cancelled}


def test_an_empty_project_is_read(studio: FakeLabelStudio, store: Store) -> None:
    assert sync(studio, store) == SyncReport(changed=0, deleted=0)
    assert store.photos(PROJECT) == []


def test_photos_annotations_and_predictions_are_mirrored(studio: FakeLabelStudio, store: Store) -> None:
    first, second = studio.import_photos("/data/a.jpg", "/data/b.jpg")
    studio.annotate(first, annotator=7, cleanliness="clean", damage="damaged")
    studio.annotate(second, annotator=8, cancelled=True)
    assert sync(studio, store) == SyncReport(changed=2, deleted=0)
    assert {photo.task_id: photo.url for photo in store.photos(PROJECT)} == {
        first: "/data/a.jpg",
        second: "/data/b.jpg",
    }
    assert [(row.task_id, row.annotator, row.cancelled, row.classes) for row in store.annotations(PROJECT)] == [
        (first, 7, False, {"cleanliness": "clean", "damage": "damaged"}),
        (second, 8, True, {}),
    ]


def test_the_source_and_the_car_are_read_from_the_tasks_data(studio: FakeLabelStudio, store: Store) -> None:
    studio.import_photos("/data/a.jpg", source="depot", car=17)
    studio.import_photos("/data/b.jpg", source=["no", "name"], car="")
    sync(studio, store)
    assert [(photo.source, photo.car) for photo in store.photos(PROJECT)] == [("depot", "17"), (None, None)]


def test_only_news_is_read_again(studio: FakeLabelStudio, store: Store) -> None:
    ids = studio.import_photos(*(f"/data/{i}.jpg" for i in range(50)))
    sync(studio, store)
    studio.annotate(ids[0], damage="intact")
    assert sync(studio, store).changed < 10
    assert labels(store) == {ids[0]: {"damage": "intact"}}


def test_a_changed_and_a_deleted_annotation_are_noticed(studio: FakeLabelStudio, store: Store) -> None:
    first, second, *_ = studio.import_photos(*(f"/data/{i}.jpg" for i in range(20)))
    kept, removed = studio.annotate(first, damage="intact"), studio.annotate(second, damage="intact")
    sync(studio, store)
    studio.change_annotation(first, kept, damage="damaged")
    studio.delete_annotation(second, removed)
    sync(studio, store)
    assert labels(store) == {first: {"damage": "damaged"}}


def test_a_deleted_task_takes_its_labels_along(studio: FakeLabelStudio, store: Store) -> None:
    first, second = studio.import_photos("/data/a.jpg", "/data/b.jpg")
    studio.annotate(first, damage="intact")
    sync(studio, store)
    studio.delete_task(first)
    assert sync(studio, store).deleted == 1
    assert [photo.task_id for photo in store.photos(PROJECT)] == [second]
    assert labels(store) == {}


def test_a_task_deleted_while_another_came_is_noticed_by_the_same_count(studio: FakeLabelStudio, store: Store) -> None:
    first, second = studio.import_photos("/data/a.jpg", "/data/b.jpg")
    sync(studio, store)
    studio.delete_task(first)
    (third,) = studio.import_photos("/data/c.jpg")
    sync(studio, store)
    assert [photo.task_id for photo in store.photos(PROJECT)] == [second, third]


def test_labels_of_an_import_that_was_seen_late_are_read(studio: FakeLabelStudio, store: Store) -> None:
    """Label Studio stamps tasks when an import begins, and shows them when it ends."""
    (seen,) = studio.import_photos("/data/a.jpg")
    late = studio.import_photos("/data/b.jpg", "/data/c.jpg")
    studio.annotate(late[0], damage="damaged")
    hidden = {task_id: studio._tasks.pop(task_id) for task_id in late}
    studio.wait(600)
    studio.annotate(seen, damage="intact")
    sync(studio, store)
    studio._tasks |= hidden
    sync(studio, store)
    assert labels(store) == {seen: {"damage": "intact"}, late[0]: {"damage": "damaged"}}
    assert [photo.task_id for photo in store.photos(PROJECT)] == [seen, *late]


def test_all_tasks_are_read_anew_under_a_changed_config(studio: FakeLabelStudio, store: Store) -> None:
    aliased = label_configs.DAMAGE_ONLY.replace('"intact"', '"intact" alias="{}"')
    aliased = aliased.replace('"damaged"', '"damaged" alias="{}"')
    studio.label_config = aliased.format("A", "B")
    ids = studio.import_photos(*(f"/data/{i}.jpg" for i in range(20)))
    studio.annotate(ids[0], damage="damaged")
    sync(studio, store)
    studio.label_config = aliased.format("B", "A")
    assert sync(studio, store).changed == 20
    assert labels(store) == {ids[0]: {"damage": "intact"}}
    assert sync(studio, store).changed < 20


def test_a_task_that_the_new_config_does_not_ask_for_keeps_what_was_said(studio: FakeLabelStudio, store: Store) -> None:
    (task_id,) = studio.import_photos("/data/a.jpg")
    studio.annotate(task_id, cleanliness="clean", damage="damaged")
    studio.label_config = label_configs.DAMAGE_ONLY
    sync(studio, store)
    assert labels(store) == {task_id: {"cleanliness": "clean", "damage": "damaged"}}


def test_a_field_that_the_config_no_longer_names_gives_photos_without_an_address(
    studio: FakeLabelStudio, store: Store
) -> None:
    studio.import_photos("/data/a.jpg")
    studio.label_config = label_configs.RENAMED
    sync(studio, store)
    assert [photo.url for photo in store.photos(PROJECT)] == [""]


def test_predictions_deleted_in_bulk_are_noticed_by_their_count(studio: FakeLabelStudio, store: Store) -> None:
    (task_id,) = studio.import_photos("/data/a.jpg")
    studio.create_prediction(PredictionDraft(task_id, [], 0.5, "carcond-0001", 1))
    sync(studio, store)
    assert store.prediction_count(PROJECT) == 1
    studio.delete_predictions_in_bulk()
    sync(studio, store)
    assert store.predictions(PROJECT) == []


def test_two_projects_keep_to_themselves(store: Store) -> None:
    studio = FakeLabelStudio()
    studio.import_photos("/data/a.jpg")
    sync(studio, store)
    assert store.photos(PROJECT + 1) == []
    assert store.project(PROJECT + 1).watermark is None


def test_more_tasks_than_fit_a_batch_are_all_mirrored(studio: FakeLabelStudio, store: Store) -> None:
    studio.import_photos(*(f"/data/{i}.jpg" for i in range(1001)))
    assert sync(studio, store) == SyncReport(changed=1001, deleted=0)
    assert store.photo_count(PROJECT) == 1001


def test_reading_again_changes_nothing(studio: FakeLabelStudio, store: Store) -> None:
    (task_id,) = studio.import_photos("/data/a.jpg")
    studio.annotate(task_id, damage="intact")
    for _ in range(3):
        sync(studio, store)
    assert len(store.annotations(PROJECT)) == 1
    assert store.photo_count(PROJECT) == 1


def test_predictions_of_an_exchanged_photo_leave_their_version_in_label_studio_before_the_store_knows(
    studio: FakeLabelStudio, store: Store
) -> None:
    task, other = studio.import_photos("/a.jpg", "/b.jpg")
    for task_id in (task, other):
        studio.create_prediction(PredictionDraft(task_id, [], 0.5, "carcond-0001", 2))
    studio.predict_by_another(task)
    sync(studio, store)
    studio.change_photo(task, "/c.jpg")
    studio.writes_until_failure = 0
    with pytest.raises(LabelStudioError):
        sync(studio, store)
    studio.writes_until_failure = None
    sync(studio, store)
    assert [(p.model_version, p.slot) for p in studio.predictions_of(task)] == [
        ("carcond-superseded", 2),
        ("other-v3", None),
    ]
    assert [p.model_version for p in studio.predictions_of(other)] == ["carcond-0001"]
    assert [row.model_version for row in store.predictions_of(PROJECT, [task])] == ["carcond-superseded", "other-v3"]


def test_the_pre_label_of_a_label_outlives_the_predictions_move_to_a_newer_version(
    studio: FakeLabelStudio, store: Store
) -> None:
    (task_id,) = studio.import_photos("/data/a.jpg")
    result = bind_label_config(studio.label_config).result({"damage": ("intact", 0.8)})
    hidden = {"cleanliness": ("clean", 0.4)}
    shown = studio.create_prediction(PredictionDraft(task_id, result, 0.3, "carcond-0001", 2, hidden))
    studio.annotate_page(task_id, annotator=7, damage="intact", cleanliness="very_dirty")
    expected = {"damage": ["intact", 0.8, True], "cleanliness": ["clean", 0.4, False]}
    for _ in range(2):
        sync(studio, store)
        (row,) = store.annotations(PROJECT)
        assert row.prelabels == expected
        studio.set_version(shown.id, "carcond-0002")


def test_a_label_without_a_pre_label_has_none(studio: FakeLabelStudio, store: Store) -> None:
    (task_id,) = studio.import_photos("/data/a.jpg")
    studio.annotate(task_id, damage="intact")
    sync(studio, store)
    (row,) = store.annotations(PROJECT)
    assert row.prelabels == {}
