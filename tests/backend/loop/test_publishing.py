from collections.abc import Collection, Sequence

import pytest

from backend.label_studio.client import PredictionDraft
from backend.label_studio.label_config import bind_label_config
from backend.loop.publishing import Publisher, is_current
from backend.loop.sync import sync_project
from carcond.errors import LabelStudioError
from carcond.query.slots import EXPLORATION_SLOT
from carcond.registry.version_names import COLD_START_VERSION, SUPERSEDED_VERSION
from carcond.settings import Settings
from carcond.store.store import Store
from carcond.store.tables import PredictionRow
from tests.backend.fake_label_studio import PROJECT, FakeLabelStudio

OLD, NEW, NEWEST = "carcond-0001", "carcond-0002", "carcond-0003"


@pytest.fixture
def ids(studio: FakeLabelStudio) -> list[int]:
    return studio.import_photos(*(f"/data/{i}.jpg" for i in range(12)))


@pytest.fixture
def publisher(studio: FakeLabelStudio, store: Store) -> Publisher:
    return Publisher(studio, store, PROJECT, connections=2)


def drafts(ids: list[int], version: str = NEW, score: float = 0.5) -> list[PredictionDraft]:
    return [PredictionDraft(task_id, [], score, version, slot=i % 3) for i, task_id in enumerate(ids)]


def sync(studio: FakeLabelStudio, store: Store) -> None:
    project = studio.project(PROJECT)
    sync_project(studio, store, project, bind_label_config(project.label_config), Settings())


def mirrored(store: Store) -> set[tuple[int, int, str, int | None]]:
    return {(row.prediction_id, row.task_id, row.model_version, row.slot) for row in store.predictions(PROJECT)}


def publish(
    publisher: Publisher,
    queue: Sequence[PredictionDraft],
    served_version: str,
    version: str,
    beside: Collection[int] = (),
) -> None:
    publisher.publish(queue, served_version=served_version, version=version, beside=beside)


def held(studio: FakeLabelStudio, ids: list[int]) -> set[tuple[int, int, str, int | None]]:
    return {(p.id, p.task_id, p.model_version, p.slot) for i in ids for p in studio.predictions_of(i)}


def row_ids(studio: FakeLabelStudio, ids: list[int]) -> set[int]:
    return {p.id for i in ids for p in studio.predictions_of(i)}


def versions(studio: FakeLabelStudio, task_id: int) -> list[str]:
    """Versions of a task's predictions, the oldest row first."""
    return [p.model_version for p in sorted(studio.predictions_of(task_id), key=lambda p: p.id)]


def test_a_first_queue_is_written_and_served(
    publisher: Publisher, studio: FakeLabelStudio, store: Store, ids: list[int]
) -> None:
    publish(publisher, drafts(ids), "", NEW)
    assert studio.model_version == NEW
    assert all(studio.prediction(task_id).model_version == NEW for task_id in ids)
    assert mirrored(store) == held(studio, ids)


def test_the_project_moves_when_all_predictions_of_the_version_are_there(
    publisher: Publisher, studio: FakeLabelStudio, ids: list[int]
) -> None:
    publish(publisher, drafts(ids), "", NEW)
    assert studio.writes[-1] == ("project", NEW)
    assert len(studio.writes) == len(ids) + 1


def test_no_prediction_is_ever_deleted(publisher: Publisher, studio: FakeLabelStudio, ids: list[int]) -> None:
    """A page that was opened with one submits its id, and Label Studio refuses the submit when the row is gone."""
    publish(publisher, drafts(ids, OLD), "", OLD)
    opened_with = row_ids(studio, ids)
    for served, version in ((OLD, NEW), (NEW, NEWEST), (NEWEST, OLD)):
        publish(publisher, drafts(ids, version), served, version, beside=ids[:6])
        assert opened_with <= row_ids(studio, ids)
    assert not any(kind == "delete" for kind, _ in studio.writes)


def test_tasks_that_may_be_open_have_both_predictions_while_the_project_moves(
    publisher: Publisher, studio: FakeLabelStudio, ids: list[int]
) -> None:
    """Without a prediction of the version that is served at that moment they open blank."""
    publish(publisher, drafts(ids, OLD), "", OLD)
    seen: list[list[str]] = []
    move = studio.update_project

    def watched(project_id: int, **changes: str) -> None:
        seen.extend(versions(studio, task_id) for task_id in ids[:2])
        move(project_id, **changes)
        seen.extend(versions(studio, task_id) for task_id in ids[:2])

    studio.update_project = watched  # type: ignore[method-assign]
    publish(publisher, drafts(ids), OLD, NEW, beside=ids[:2])
    assert seen == [[OLD, NEW]] * 4


def test_a_task_gets_a_second_row_once_and_from_then_on_the_one_that_does_not_serve_is_moved(
    publisher: Publisher, studio: FakeLabelStudio, ids: list[int]
) -> None:
    publish(publisher, drafts(ids, OLD), "", OLD)
    publish(publisher, drafts(ids, NEW), OLD, NEW, beside=ids[:2])
    rows = row_ids(studio, ids)
    publish(publisher, drafts(ids, NEWEST), NEW, NEWEST, beside=ids[:2])
    assert [versions(studio, task_id) for task_id in ids[:3]] == [[NEWEST, NEW], [NEWEST, NEW], [NEWEST]]
    assert row_ids(studio, ids) == rows


def test_both_rows_of_a_task_carry_the_slot_of_its_newest_prediction(
    publisher: Publisher, studio: FakeLabelStudio, store: Store, ids: list[int]
) -> None:
    """Label Studio counts a solved task for the greatest slot of its rows: exploration must not be hidden."""
    publish(publisher, [PredictionDraft(ids[0], [], 0.5, OLD, 5)], "", OLD)
    publish(publisher, [PredictionDraft(ids[0], [], 0.5, NEW, EXPLORATION_SLOT)], OLD, NEW, beside=ids[:1])
    assert [p.slot for p in studio.predictions_of(ids[0])] == [EXPLORATION_SLOT, EXPLORATION_SLOT]
    assert mirrored(store) == held(studio, ids)


def test_after_a_rollback_the_row_that_served_stays_beside(
    publisher: Publisher, studio: FakeLabelStudio, ids: list[int]
) -> None:
    publish(publisher, drafts(ids[:1], NEW), "", NEW)
    publish(publisher, drafts(ids[:1], NEWEST), NEW, NEWEST, beside=ids)
    publish(publisher, drafts(ids[:1], OLD), NEWEST, OLD, beside=ids)
    assert versions(studio, ids[0]) == [OLD, NEWEST]


def test_what_was_cut_short_between_two_versions_is_made_good_by_the_next_publish(
    publisher: Publisher, studio: FakeLabelStudio, store: Store, ids: list[int]
) -> None:
    publish(publisher, drafts(ids, OLD), "", OLD)
    studio.writes_until_failure = 2
    with pytest.raises(LabelStudioError):
        publish(publisher, drafts(ids), OLD, NEW, beside=ids[:3])
    assert studio.model_version == OLD
    studio.writes_until_failure = None
    publish(publisher, drafts(ids), OLD, NEW, beside=ids[:3])
    assert [versions(studio, i) for i in ids] == [[OLD, NEW]] * 3 + [[NEW]] * (len(ids) - 3)
    assert mirrored(store) == held(studio, ids)


def test_predictions_are_moved_in_place(publisher: Publisher, studio: FakeLabelStudio, ids: list[int]) -> None:
    publish(publisher, drafts(ids, OLD), "", OLD)
    before = row_ids(studio, ids)
    publish(publisher, drafts(ids, NEW), OLD, NEW)
    assert row_ids(studio, ids) == before
    assert {studio.prediction(task_id).model_version for task_id in ids} == {NEW}


def test_a_served_version_is_not_set_again(publisher: Publisher, studio: FakeLabelStudio, ids: list[int]) -> None:
    publish(publisher, drafts(ids), NEW, NEW)
    assert ("project", NEW) not in studio.writes


def test_a_version_without_predictions_is_not_asked_for(publisher: Publisher, studio: FakeLabelStudio) -> None:
    """Label Studio would refuse it, and the turn would fail for ever."""
    publish(publisher, [], OLD, NEW)
    assert studio.writes == []


def test_a_queue_that_was_written_before_the_project_could_be_moved_is_served_now(
    publisher: Publisher, studio: FakeLabelStudio, ids: list[int]
) -> None:
    studio.writes_until_failure = 3
    with pytest.raises(LabelStudioError):
        publish(publisher, drafts(ids[:3]), "", NEW)
    studio.writes_until_failure = None
    publish(publisher, [], "", NEW)
    assert studio.model_version == NEW


def test_a_second_prediction_of_one_version_is_put_aside_and_not_deleted(
    publisher: Publisher, studio: FakeLabelStudio, store: Store, ids: list[int]
) -> None:
    """Two people who open a photo at once make it, and Label Studio would serve the photo twice."""
    for _ in range(2):
        studio.create_prediction(PredictionDraft(ids[0], [], 0.5, NEW, None))
    sync(studio, store)
    publish(publisher, drafts(ids[:1]), NEW, NEW)
    assert versions(studio, ids[0]) == [NEW, SUPERSEDED_VERSION]
    assert mirrored(store) == held(studio, ids)


def test_of_several_predictions_the_one_of_the_version_to_be_written_is_moved(
    publisher: Publisher, studio: FakeLabelStudio, store: Store, ids: list[int]
) -> None:
    for version in (OLD, NEW):
        studio.create_prediction(PredictionDraft(ids[0], [], 0.9, version, None))
    sync(studio, store)
    publish(publisher, drafts(ids[:1]), NEW, NEW)
    assert [(p.model_version, p.score) for p in studio.predictions_of(ids[0])] == [(OLD, 0.9), (NEW, 0.5)]


def test_a_task_that_was_deleted_meanwhile_is_passed_over(
    publisher: Publisher, studio: FakeLabelStudio, store: Store, ids: list[int]
) -> None:
    publish(publisher, drafts(ids, OLD), "", OLD)
    studio.delete_task(ids[0])
    publish(publisher, drafts(ids, NEW), OLD, NEW, beside=ids[:3])
    assert mirrored(store) >= held(studio, ids[1:])
    assert studio.model_version == NEW


def test_a_prediction_that_somebody_removed_is_written_anew(
    publisher: Publisher, studio: FakeLabelStudio, store: Store, ids: list[int]
) -> None:
    publish(publisher, drafts(ids, OLD), "", OLD)
    studio.delete_predictions_in_bulk()
    publish(publisher, drafts(ids, NEW), OLD, NEW)
    assert {studio.prediction(task_id).model_version for task_id in ids} == {NEW}
    assert mirrored(store) == held(studio, ids)


def test_an_error_of_label_studio_is_raised_and_what_was_written_is_known(
    publisher: Publisher, studio: FakeLabelStudio, store: Store, ids: list[int]
) -> None:
    studio.writes_until_failure = 5
    with pytest.raises(LabelStudioError):
        publish(publisher, drafts(ids), "", NEW)
    assert mirrored(store) == held(studio, ids)
    assert studio.model_version == ""


def test_a_refresh_writes_all_and_leaves_nothing(
    publisher: Publisher, studio: FakeLabelStudio, store: Store, ids: list[int]
) -> None:
    told: list[int] = []
    assert publisher.refresh(drafts(ids), lambda: False, told.append) == 0
    assert {studio.prediction(task_id).model_version for task_id in ids} == {NEW}
    assert mirrored(store) == held(studio, ids)
    assert told == list(range(1, len(ids) + 1))


def test_an_interrupted_refresh_tells_how_much_is_left(
    publisher: Publisher, studio: FakeLabelStudio, ids: list[int]
) -> None:
    left = publisher.refresh(drafts(ids), lambda: len(studio.writes) >= 5, lambda _: None)
    assert left == len(ids) - 5
    assert len(studio.writes) == 5


def stored(*rows: tuple[str, int | None]) -> list[PredictionRow]:
    return [
        PredictionRow(project_id=1, prediction_id=i, task_id=1, model_version=version, score=0.5, slot=slot)
        for i, (version, slot) in enumerate(rows)
    ]


@pytest.mark.parametrize(
    ("rows", "slot", "expected"),
    [
        ([(NEW, 3)], 3, True),
        ([(NEW, 4)], 3, True),  # another of the slots 1 to 9 is not worth a write
        ([(NEW, 4)], 0, False),
        ([(NEW, 0)], 3, False),
        ([(NEW, None)], 3, False),
        ([(OLD, 3)], 3, False),
        ([], 3, False),
        ([(OLD, 3), (NEW, 3)], 3, True),
        ([(OLD, None), (NEW, 3)], 3, True),
        ([(OLD, 4), (NEW, 3)], 3, False),
        ([(NEW, 3), (NEW, 3)], 3, False),
    ],
)
def test_a_draft_is_current_when_one_row_of_its_version_is_there_and_no_other_slot(
    rows: list[tuple[str, int | None]], slot: int, expected: bool
) -> None:
    draft = PredictionDraft(1, [], 0.5 + 1e-7, NEW, slot)
    assert is_current(draft, stored(*rows), EXPLORATION_SLOT) is expected


@pytest.mark.parametrize(("version", "expected"), [(COLD_START_VERSION, False), (NEW, True)])
def test_before_the_first_version_a_photo_with_another_place_in_the_order_is_written_anew(
    version: str, expected: bool
) -> None:
    draft = PredictionDraft(1, [], 0.5 + 1e-6, version, 3)
    assert is_current(draft, stored((version, 3)), EXPLORATION_SLOT) is expected


def test_a_photo_of_the_holdout_that_was_published_with_a_confidence_is_written_anew() -> None:
    draft = PredictionDraft(1, [], 0.7, NEW, EXPLORATION_SLOT)
    assert not is_current(draft, stored((NEW, EXPLORATION_SLOT)), EXPLORATION_SLOT)
