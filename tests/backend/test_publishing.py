from collections.abc import Sequence

import pytest

from backend.label_config import bind_label_config
from backend.labelstudio import PredictionDraft
from backend.publishing import Publisher
from backend.sync import sync_project
from carcond.errors import LabelStudioError
from carcond.settings import Settings
from carcond.store import Store
from tests.backend.fake_label_studio import PROJECT, FakeLabelStudio

OLD, NEW = "carcond-0001", "carcond-0002"


@pytest.fixture
def ids(studio: FakeLabelStudio) -> list[int]:
    return studio.import_photos(*(f"/{i}.jpg" for i in range(12)))


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
    queue: list[PredictionDraft],
    served_version: str,
    version: str,
    head: int,
    rest: Sequence[PredictionDraft] = (),
) -> None:
    publisher.publish_queue(queue, rest, served_version=served_version, version=version, head=head)


def held(studio: FakeLabelStudio, ids: list[int]) -> set[tuple[int, int, str, int | None]]:
    return {(p.id, p.task_id, p.model_version, p.slot) for i in ids for p in studio.predictions_of(i)}


def test_a_first_queue_is_written_and_served(
    publisher: Publisher, studio: FakeLabelStudio, store: Store, ids: list[int]
) -> None:
    publish(publisher, drafts(ids), "", NEW, head=3)
    assert studio.model_version == NEW
    assert all(studio.prediction(task_id).model_version == NEW for task_id in ids)
    assert mirrored(store) == held(studio, ids)


def test_the_project_moves_after_the_head_and_before_the_rest(
    publisher: Publisher, studio: FakeLabelStudio, ids: list[int]
) -> None:
    publish(publisher, drafts(ids), "", NEW, head=3)
    assert studio.writes.index(("project", NEW)) == 3


def old_queue(publisher: Publisher, studio: FakeLabelStudio, ids: list[int], slots: int) -> None:
    publish(publisher, [PredictionDraft(t, [], 0.1 * i, OLD, i % slots) for i, t in enumerate(ids)], "", OLD, head=1)
    studio.writes.clear()


def test_the_head_is_filled_up_with_tasks_that_the_old_queue_would_serve_last(
    publisher: Publisher, studio: FakeLabelStudio, ids: list[int]
) -> None:
    in_old_queue, fresh = ids[:6], ids[6:8]
    old_queue(publisher, studio, in_old_queue, slots=1)
    publish(publisher, drafts(in_old_queue + fresh), OLD, NEW, head=4)
    before_the_move = {task_id for _, task_id in studio.writes[: studio.writes.index(("project", NEW))]}
    assert before_the_move == {in_old_queue[0], *fresh, in_old_queue[-1]}


def test_tasks_that_the_old_queue_would_serve_next_have_both_predictions_while_the_project_moves(
    publisher: Publisher, studio: FakeLabelStudio, ids: list[int]
) -> None:
    """They may be being opened, and without a prediction of the project's version they open blank."""
    old_queue(publisher, studio, ids[:6], slots=2)
    seen: list[set[str]] = []
    move = studio.update_project

    def watched(project_id: int, **changes: str) -> None:
        move(project_id, **changes)
        seen.extend({p.model_version for p in studio.predictions_of(task_id)} for task_id in ids[:2])

    studio.update_project = watched  # type: ignore[method-assign]
    publish(publisher, drafts(ids[2:]), OLD, NEW, head=2, rest=drafts(ids[:2]))
    assert seen == [{OLD, NEW}, {OLD, NEW}]
    assert [kind for kind, _ in studio.writes[-2:]] == ["delete", "delete"]


def test_the_old_predictions_of_tasks_next_in_line_are_gone_in_the_end(
    publisher: Publisher, studio: FakeLabelStudio, store: Store, ids: list[int]
) -> None:
    old_queue(publisher, studio, ids[:6], slots=2)
    publish(publisher, drafts(ids[2:]), OLD, NEW, head=2, rest=drafts(ids[:2]))
    assert [studio.prediction(task_id).model_version for task_id in ids] == [NEW] * len(ids)
    assert mirrored(store) == held(studio, ids)


def test_what_was_cut_short_between_two_versions_is_made_good_by_the_next_publish(
    publisher: Publisher, studio: FakeLabelStudio, store: Store, ids: list[int]
) -> None:
    old_queue(publisher, studio, ids[:6], slots=2)
    studio.writes_until_failure = 2
    with pytest.raises(LabelStudioError):
        publish(publisher, drafts(ids), OLD, NEW, head=2)
    studio.writes_until_failure = None
    publish(publisher, drafts(ids), OLD, NEW, head=2)
    assert [studio.prediction(task_id).model_version for task_id in ids] == [NEW] * len(ids)
    assert mirrored(store) == held(studio, ids)


def test_predictions_are_moved_in_place(publisher: Publisher, studio: FakeLabelStudio, ids: list[int]) -> None:
    publish(publisher, drafts(ids, OLD), "", OLD, head=3)
    moved = ids[3:]  # the first of each of three slots are next in line
    before = [studio.prediction(task_id).id for task_id in moved]
    publish(publisher, drafts(ids, NEW), OLD, NEW, head=3)
    assert [studio.prediction(task_id).id for task_id in moved] == before
    assert {studio.prediction(task_id).model_version for task_id in ids} == {NEW}


def test_a_served_version_is_not_set_again(publisher: Publisher, studio: FakeLabelStudio, ids: list[int]) -> None:
    publish(publisher, drafts(ids), NEW, NEW, head=3)
    assert ("project", NEW) not in studio.writes


def test_a_version_without_predictions_is_not_asked_for(publisher: Publisher, studio: FakeLabelStudio) -> None:
    """Label Studio would refuse it, and the turn would fail for ever."""
    publish(publisher, [], OLD, NEW, head=3)
    assert studio.writes == []


def test_a_queue_that_was_written_before_the_project_could_be_moved_is_served_now(
    publisher: Publisher, studio: FakeLabelStudio, ids: list[int]
) -> None:
    studio.writes_until_failure = 3
    with pytest.raises(LabelStudioError):
        publish(publisher, drafts(ids[:3]), "", NEW, head=3)
    studio.writes_until_failure = None
    publish(publisher, [], "", NEW, head=3)
    assert studio.model_version == NEW


def test_duplicates_are_removed(publisher: Publisher, studio: FakeLabelStudio, store: Store, ids: list[int]) -> None:
    for version in (OLD, OLD, NEW):
        studio.create_prediction(PredictionDraft(ids[0], [], 0.5, version, None))
    sync(studio, store)
    publish(publisher, drafts(ids[:1]), NEW, NEW, head=1)
    assert studio.prediction(ids[0]).model_version == NEW
    assert mirrored(store) == held(studio, ids)


def test_of_several_predictions_the_one_of_the_version_to_be_written_stays(
    publisher: Publisher, studio: FakeLabelStudio, store: Store, ids: list[int]
) -> None:
    for version in (OLD, NEW):
        studio.create_prediction(PredictionDraft(ids[0], [], 0.5, version, None))
    sync(studio, store)
    _, new = studio.predictions_of(ids[0])
    publish(publisher, drafts(ids[:1]), NEW, NEW, head=1)
    assert studio.prediction(ids[0]).id == new.id


def test_a_task_that_was_deleted_meanwhile_is_passed_over(
    publisher: Publisher, studio: FakeLabelStudio, store: Store, ids: list[int]
) -> None:
    publish(publisher, drafts(ids, OLD), "", OLD, head=3)
    studio.delete_task(ids[0])
    publish(publisher, drafts(ids, NEW), OLD, NEW, head=3)
    assert mirrored(store) == held(studio, ids[1:])
    assert studio.model_version == NEW


def test_a_prediction_that_somebody_removed_is_written_anew(
    publisher: Publisher, studio: FakeLabelStudio, store: Store, ids: list[int]
) -> None:
    publish(publisher, drafts(ids, OLD), "", OLD, head=3)
    studio.delete_predictions_in_bulk()
    publish(publisher, drafts(ids, NEW), OLD, NEW, head=3)
    assert {studio.prediction(task_id).model_version for task_id in ids} == {NEW}
    assert mirrored(store) == held(studio, ids)


def test_an_error_of_label_studio_is_raised_and_what_was_written_is_known(
    publisher: Publisher, studio: FakeLabelStudio, store: Store, ids: list[int]
) -> None:
    studio.writes_until_failure = 5
    with pytest.raises(LabelStudioError):
        publish(publisher, drafts(ids), "", NEW, head=3)
    assert mirrored(store) == held(studio, ids)
    assert studio.model_version == NEW


def test_a_refresh_writes_all_and_leaves_nothing(
    publisher: Publisher, studio: FakeLabelStudio, store: Store, ids: list[int]
) -> None:
    assert publisher.refresh(drafts(ids), lambda: False) == 0
    assert {studio.prediction(task_id).model_version for task_id in ids} == {NEW}
    assert mirrored(store) == held(studio, ids)


def test_an_interrupted_refresh_tells_how_much_is_left(
    publisher: Publisher, studio: FakeLabelStudio, ids: list[int]
) -> None:
    assert publisher.refresh(drafts(ids), lambda: len(studio.writes) >= 5) == len(ids) - 5
    assert len(studio.writes) == 5
