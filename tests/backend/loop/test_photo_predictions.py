"""What the arrays say of predictions, beside plain Python over their rows."""

from dataclasses import dataclass

import numpy as np
import pytest

from backend.label_studio.client import PredictionDraft
from backend.loop.photo_predictions import PhotoPredictions
from backend.loop.publishing import is_current
from backend.pool.facts import NONE, HeldPredictions
from carcond.query.slots import EXPLORATION_SLOT
from carcond.registry.version_names import COLD_START_VERSION, SUPERSEDED_VERSION
from carcond.store.changes import PredictionRows
from carcond.store.tables import PredictionRow

VERSIONS = ("carcond-0001", "carcond-0002", COLD_START_VERSION, SUPERSEDED_VERSION, "another-model")
OURS = VERSIONS[:4]


@dataclass(frozen=True)
class Case:
    """Predictions of photos 1..P, of which some are not asked about."""

    rows: list[PredictionRow]
    task_ids: list[int]
    photos: PhotoPredictions

    def of(self, task_id: int) -> list[PredictionRow]:
        return [row for row in self.rows if row.task_id == task_id and row.model_version in OURS]


@pytest.fixture(params=range(4))
def case(request: pytest.FixtureRequest) -> Case:
    generator = np.random.default_rng(request.param)
    rows = []
    for number in range(150):
        slot = int(generator.integers(-1, 4))
        rows.append(
            PredictionRow(
                project_id=1,
                prediction_id=number,
                task_id=int(generator.integers(1, 80)),
                model_version=VERSIONS[int(generator.integers(len(VERSIONS)))],
                score=round(float(generator.choice([0.1, 0.5, 0.7])), 6),
                slot=None if slot < 0 else slot,
            )
        )
    task_ids = sorted(generator.choice(np.arange(1, 90), 60, replace=False).tolist())
    columns = PredictionRows(
        np.array([row.task_id for row in rows]),
        [row.model_version for row in rows],
        [row.slot for row in rows],
        np.array([row.score for row in rows]),
    )
    return Case(rows, task_ids, PhotoPredictions(np.array(task_ids), HeldPredictions.of(columns)))


@pytest.mark.parametrize("version", ["carcond-0002", COLD_START_VERSION, "carcond-0009"])
def test_all_are_current_as_each_draft_is(case: Case, version: str) -> None:
    generator = np.random.default_rng(9)
    explored = generator.random(len(case.task_ids)) < 0.3
    scores = generator.choice([0.1, 0.5, 0.7], len(case.task_ids)).astype(np.float32)
    expected = [
        is_current(
            PredictionDraft(task_id, [], round(score, 6), version, EXPLORATION_SLOT if held else 2),
            case.of(task_id),
            EXPLORATION_SLOT,
        )
        for task_id, score, held in zip(case.task_ids, scores.tolist(), explored.tolist(), strict=True)
    ]
    assert case.photos.are_current(version, explored, scores).tolist() == expected


def test_slots_are_kept_where_a_task_has_two_predictions_or_may_be_open(case: Case) -> None:
    opened = set(case.task_ids[::3])
    expected = {}
    for task_id in case.task_ids:
        slots = [row.slot or 0 for row in case.of(task_id)]
        if slots and (len(slots) > 1 or task_id in opened) and 0 < max(slots) <= 2:
            expected[task_id] = max(slots)
    assert case.photos.kept_slots(opened, 2) == expected


def test_the_greatest_slot_and_the_count_are_those_of_the_rows(case: Case) -> None:
    slots = [[row.slot for row in case.of(task_id) if row.slot is not None] for task_id in case.task_ids]
    assert case.photos.greatest_slots.tolist() == [max(each, default=NONE) for each in slots]
    assert case.photos.counts.tolist() == [len(case.of(task_id)) for task_id in case.task_ids]


@pytest.mark.parametrize("depth", [1, 3, 100])
def test_the_first_of_each_slot_have_the_lowest_scores(case: Case, depth: int) -> None:
    wanted = np.array([task_id % 4 != 0 for task_id in case.task_ids])
    expected: list[tuple[int | None, float, int]] = []
    for slot in (None, 0, 1, 2, 3):
        rows = [
            (row.score or 0.0, task_id)
            for task_id, is_wanted in zip(case.task_ids, wanted, strict=True)
            for row in case.of(task_id)
            if is_wanted and row.model_version == "carcond-0001" and row.slot == slot
        ]
        expected += [(slot, *each) for each in sorted(rows)[:depth]]
    found = case.photos.first_of_slots("carcond-0001", wanted, depth)
    assert [(row.slot, row.score, row.task_id) for row in found] == expected


def test_a_refresh_moves_held_out_photos_that_were_served_elsewhere_first_and_then_those_with_two_rows(
    case: Case,
) -> None:
    explored = np.arange(len(case.task_ids)) % 2 == 0
    expected = []
    for task_id, held in zip(case.task_ids, explored.tolist(), strict=True):
        rows = case.of(task_id)
        elsewhere = held and any(row.slot != EXPLORATION_SLOT for row in rows)
        expected.append(0 if elsewhere else 1 if len(rows) > 1 else 2)
    assert case.photos.lateness(explored).tolist() == expected


def test_published_photos_have_a_slot_and_a_score(case: Case) -> None:
    positions, slots, scores = case.photos.published("carcond-0001")
    of_version = {
        position: [row for row in case.of(task_id) if row.model_version == "carcond-0001" and row.slot is not None]
        for position, task_id in enumerate(case.task_ids)
    }
    assert positions.tolist() == [position for position, rows in of_version.items() if rows]
    for position in positions.tolist():
        assert (slots[position], scores[position]) in {
            (row.slot, np.float32(row.score)) for row in of_version[position]
        }


def test_no_photo_has_no_prediction() -> None:
    none = PredictionRows(np.empty(0, dtype=np.int64), [], [], np.empty(0))
    photos = PhotoPredictions(np.array([1, 2]), HeldPredictions.of(none))
    assert photos.counts.tolist() == [0, 0]
    assert photos.kept_slots({1}, 9) == {}
    assert not photos.are_current("carcond-0001", np.array([True, False]), np.zeros(2, dtype=np.float32)).any()
