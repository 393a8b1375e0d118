"""The loop goes on from what an earlier release left."""

import shutil
from pathlib import Path

import pytest
from sqlalchemy import create_engine

from backend.services import Services, get_services
from tests.backend.conftest import MakeSettings
from tests.backend.garage import Garage
from tests.backend.http_server import HttpServer
from tests.carcond.registry.test_old_models import OLD_MODELS
from tests.carcond.store.test_schema import fill_as_before


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
    assert [photo.side for photo in old_services.store.known_photos(7)] == ["train", "holdout", None, None]
    old_services.store.close()
    old_services.photos.close()
