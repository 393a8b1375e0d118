import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from backend.app import create_app
from backend.mirroring import ModelFollower
from backend.services import Services, get_services
from carcond.errors import ModelMirrorError
from carcond.store import Store
from tests.backend.conftest import MakeSettings
from tests.backend.fake_label_studio import PROJECT
from tests.backend.garage import Garage
from tests.backend.http_server import HttpServer

Follow = Callable[[], ModelFollower]


@pytest.fixture
def object_store(tmp_path: Path) -> Path:
    return tmp_path / "bucket"


@pytest.fixture
def garage(object_store: Path, server: HttpServer, make_settings: MakeSettings) -> Iterator[Garage]:
    """A worker's host, whose models are in an object store too."""
    make_settings(LABEL_STUDIO_URL=server.url, CARCOND_MODELS_URL=f"file://{object_store}")
    services = get_services()
    yield Garage(services, server)
    services.store.close()
    services.photos.close()


@pytest.fixture
def elsewhere(garage: Garage, tmp_path: Path) -> Services:
    """Another host: the same database, a disk of its own, nothing on it."""
    return Services(garage.services.settings.model_copy(update={"models_dir": tmp_path / "elsewhere"}))


@pytest.fixture
def follow(elsewhere: Services) -> Iterator[Follow]:
    """Call to begin to follow the object store on the other host."""
    started: list[ModelFollower] = []

    def start() -> ModelFollower:
        started.append(ModelFollower(elsewhere))
        started[0].start()
        return started[0]

    yield start
    for follower in started:
        follower.stop()
    elsewhere.store.close()


def serving(services: Services) -> str:
    version = services.registry(PROJECT).current()
    return version.name if version else ""


def wait_for(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 30
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.05)
    return condition()


def hand_over_encoder(garage: Garage) -> None:
    mirror = garage.services.mirror
    assert mirror
    mirror.push_encoders()


def test_a_version_made_by_a_worker_serves_on_a_host_that_shares_no_disk(
    garage: Garage, elsewhere: Services, follow: Follow
) -> None:
    hand_over_encoder(garage)
    follow()
    ids = garage.add_photos(20)
    for count in (8, 12):
        garage.label(*ids[count - 8 : count])
        version = garage.turn().version
        assert wait_for(lambda name=version: serving(elsewhere) == name)  # type: ignore[misc]
    assert elsewhere.encoder_id() == garage.services.encoder_id()


def test_a_turn_on_another_host_goes_on_from_the_versions_of_the_first(garage: Garage, elsewhere: Services) -> None:
    hand_over_encoder(garage)
    ids = garage.add_photos(20)
    garage.label(*ids[:8])
    assert garage.turn().version == "carcond-0001"
    elsewhere.api = garage.studio
    first, garage.services = garage.services, elsewhere
    garage.label(*ids[8:12])
    assert garage.turn().version == "carcond-0002"
    garage.services = first
    assert garage.turn().version == "carcond-0002"
    elsewhere.store.close()
    elsewhere.photos.close()


def test_while_the_object_store_is_away_a_turn_fails_and_nothing_is_lost(garage: Garage, object_store: Path) -> None:
    hand_over_encoder(garage)
    ids = garage.add_photos(20)
    garage.label(*ids[:8])
    garage.turn()
    away = object_store.rename(object_store.with_name("away"))
    object_store.write_text("no bucket")
    garage.label(*ids[8:12])
    with pytest.raises(ModelMirrorError):
        garage.turn()
    assert serving(garage.services) == "carcond-0001"
    object_store.unlink()
    away.rename(object_store)
    assert garage.turn().version == "carcond-0002"


def test_while_the_object_store_is_away_a_follower_says_so_once_and_serves_on(
    garage: Garage, elsewhere: Services, follow: Follow, object_store: Path, caplog: pytest.LogCaptureFixture
) -> None:
    hand_over_encoder(garage)
    ids = garage.add_photos(20)
    garage.label(*ids[:8])
    garage.turn()
    follow()
    assert wait_for(lambda: serving(elsewhere) == "carcond-0001")
    shutil.rmtree(object_store)
    object_store.write_text("no bucket")
    assert wait_for(lambda: "new versions do not arrive" in caplog.text)
    time.sleep(2)
    assert caplog.text.count("new versions do not arrive") == 1
    assert serving(elsewhere) == "carcond-0001"


def test_without_an_object_store_the_application_follows_none(
    server: HttpServer, make_settings: MakeSettings, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ModelFollower, "start", lambda _: pytest.fail("it follows"))
    make_settings(LABEL_STUDIO_URL=server.url)
    create_app(get_services())


def test_with_an_object_store_the_application_follows_it(garage: Garage, monkeypatch: pytest.MonkeyPatch) -> None:
    started = []
    monkeypatch.setattr(ModelFollower, "start", lambda follower: started.append(follower.name))
    create_app(garage.services)
    assert started == ["models"]
