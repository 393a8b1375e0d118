"""The loop goes on from what an earlier release left."""

import shutil
from pathlib import Path

import pytest
from sqlalchemy import create_engine

from backend.label_studio.client import PredictionDraft
from backend.services import Services, get_services
from carcond.data.split import HOLDOUT, photo_draw
from tests.backend.conftest import MakeSettings
from tests.backend.fake_label_studio import PROJECT
from tests.backend.garage import Garage
from tests.backend.http_server import HttpServer
from tests.carcond.registry.test_old_models import OLD_MODELS
from tests.carcond.store.test_schema import fill_as_before
from tests.known_photos import known_photos


@pytest.fixture
def old_services(server: HttpServer, make_settings: MakeSettings, models_dir: Path, database_url: str) -> Services:
    """Services on a store and a version of an earlier release."""
    shutil.copytree(OLD_MODELS / "projects", models_dir / "projects")
    engine = create_engine(database_url)
    fill_as_before(engine)
    engine.dispose()
    make_settings(LABEL_STUDIO_URL=server.url)
    return get_services()


def test_an_old_version_serves_until_new_labels_make_the_next(old_services: Services, server: HttpServer) -> None:
    garage = Garage(old_services, server)
    ids = garage.add_photos(40)
    # The very labels that it was fitted on: there is nothing to be learned.
    garage.label(*ids[:12])
    assert garage.settle().version == "carcond-0001"
    garage.label(*ids[12:16])
    assert garage.settle().version == "carcond-0002"
    assert old_services.registry(1).load(2).card.parent == "carcond-0001"
    # What the store knew of another project is still there.
    assert [photo.side for photo in known_photos(old_services.store, 7)] == ["train", "holdout", None, None]
    old_services.store.close()
    old_services.photos.close()


def test_a_project_whose_holdout_was_sampled_label_by_label_goes_over(trained: tuple[Garage, list[int]]) -> None:
    """Its unlabelled photos had no split, but for a few in slot 0, which were published with answers."""
    garage, ids = trained
    held = ids[12:14]
    before = {photo.task_id: photo.side for photo in garage.services.store.photos(PROJECT)}
    for task_id in ids[12:]:
        slot, score = (0, 0.4) if task_id in held else (task_id % 9 + 1, 0.4)
        _publish_as_before(garage, task_id, slot, score)
    garage.services.store.update_photos(
        PROJECT,
        [
            {"task_id": task_id, "side": HOLDOUT if task_id in held else None, "drawn": task_id in held}
            for task_id in ids[12:]
        ],
    )
    garage.settle()
    sides = {photo.task_id: photo.side for photo in garage.services.store.photos(PROJECT)}
    assert {task_id: sides[task_id] for task_id in ids[:12]} == {task_id: before[task_id] for task_id in ids[:12]}
    assert set(held) < garage.drawn()
    assert len(garage.drawn()) in (4, 5)
    assert all(sides.values())
    assert garage.explored() == garage.drawn() == {task_id for task_id, side in sides.items() if side == HOLDOUT}
    for task_id in garage.drawn():
        (row,) = garage.studio.predictions_of(task_id)
        assert garage.studio.result_of(row) == []
        assert row.score == pytest.approx((1 + photo_draw(PROJECT, task_id)) / 2, abs=1e-6)


def _publish_as_before(garage: Garage, task_id: int, slot: int, score: float) -> None:
    row = garage.studio.prediction(task_id)
    result = garage.studio.result_of(row)
    garage.studio.update_prediction(row.id, PredictionDraft(task_id, result, score, row.model_version, slot))
