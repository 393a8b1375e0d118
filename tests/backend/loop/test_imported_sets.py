"""Sets that come labelled into Label Studio, as the loop splits them."""

from unittest.mock import patch

import pytest

from carcond.data.split import HOLDOUT, LEAST_IMPORTED, TRAIN
from carcond.errors import LabelStudioError, StoreError
from carcond.store.store import Store
from tests.backend.fake_label_studio import PROJECT
from tests.backend.garage import Garage


def sides(garage: Garage) -> dict[int, str | None]:
    return {photo.task_id: photo.side for photo in garage.services.store.photos(PROJECT)}


def held_out(garage: Garage, ids: list[int]) -> set[int]:
    found = sides(garage)
    return {task_id for task_id in ids if found[task_id] == HOLDOUT}


@pytest.fixture
def imported(garage: Garage) -> tuple[Garage, list[int]]:
    """Sixty photos, of which forty came labelled; the first turn is over."""
    ids = garage.add_photos(60)
    garage.label(*ids[:40])
    garage.settle()
    return garage, ids


def test_a_fifth_of_an_imported_set_is_measured_on(imported: tuple[Garage, list[int]]) -> None:
    garage, ids = imported
    assert len(held_out(garage, ids[:40])) == pytest.approx(8, abs=2)
    version = garage.services.registry(PROJECT).current()
    assert version
    assert version.card.labels.holdout == len(held_out(garage, ids[:40]))
    assert version.card.labels.train == 40 - len(held_out(garage, ids[:40]))
    assert set(version.card.holdout) == {"cleanliness", "damage"}


def test_a_small_import_trains(garage: Garage) -> None:
    ids = garage.add_photos(40)
    garage.label(*ids[: LEAST_IMPORTED - 1])
    garage.settle()
    assert held_out(garage, ids[: LEAST_IMPORTED - 1]) == set()


def test_what_annotators_label_in_the_queue_is_no_import(imported: tuple[Garage, list[int]]) -> None:
    garage, ids = imported
    before = held_out(garage, ids)
    chosen = [task_id for task_id in garage.studio.served() if task_id not in garage.drawn()]
    garage.label(*chosen)
    garage.settle()
    assert len(chosen) >= 15
    assert held_out(garage, chosen) == set()
    assert held_out(garage, ids) >= before


def test_photos_are_still_drawn_from_the_pool(imported: tuple[Garage, list[int]]) -> None:
    garage, ids = imported
    assert len(garage.drawn()) == 2  # a tenth of the 20 that wait
    assert garage.drawn() <= set(ids[40:])
    assert garage.explored() == garage.drawn()


def test_a_later_import_is_split_too_and_no_side_changes(imported: tuple[Garage, list[int]]) -> None:
    garage, ids = imported
    before = sides(garage)
    later = garage.add_photos(30)
    garage.label(*later)
    garage.settle()
    assert len(held_out(garage, later)) == pytest.approx(6, abs=2)
    assert {task_id: side for task_id, side in sides(garage).items() if before.get(task_id)}.items() >= {
        (task_id, side) for task_id, side in before.items() if side
    }
    assert len(ids) + len(later) == len(sides(garage))


def test_an_import_is_split_alike_after_a_turn_that_was_killed_before_it_was_kept(garage: Garage) -> None:
    ids = garage.add_photos(40)
    garage.label(*ids)
    keep = Store.update_photos

    def fail_at_sides(store: Store, project_id: int, changes: object) -> None:
        rows = list(changes)  # type: ignore[call-overload]
        if any("drawn" in row for row in rows):
            raise StoreError("killed")
        keep(store, project_id, rows)

    with patch.object(Store, "update_photos", fail_at_sides), pytest.raises(StoreError):
        garage.turn()
    assert set(sides(garage).values()) == {None}
    garage.turn()
    assert set(sides(garage).values()) == {HOLDOUT, TRAIN}
    assert len(held_out(garage, ids)) == pytest.approx(8, abs=2)


def test_an_import_keeps_its_split_when_publishing_fails(garage: Garage) -> None:
    ids = garage.add_photos(60)
    garage.label(*ids[:40])
    garage.studio.writes_until_failure = 3
    with pytest.raises(LabelStudioError):
        garage.turn()
    before = held_out(garage, ids[:40])
    garage.studio.writes_until_failure = None
    garage.settle()
    assert held_out(garage, ids[:40]) == before != set()
