import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from backend.jobs.queue import get_job_queue
from backend.model_follower import ModelFollower
from backend.project.promotion import pin_version, serve_version, unpin_version
from backend.services import Services, get_services
from backend.web.app import create_app
from carcond.errors import ModelMirrorError
from carcond.registry.promotions import Action
from carcond.registry.registry import Registry
from carcond.store.store import Store
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


@pytest.fixture
def taught(garage: Garage) -> tuple[Garage, list[int]]:
    """Version 2 serves, version 1 did before; the numbers are of photos without a label."""
    hand_over_encoder(garage)
    ids = garage.add_photos(24)
    for labelled in (ids[:8], ids[8:12]):
        garage.label(*labelled)
        garage.turn()
    assert serving(garage.services) == "carcond-0002"
    return garage, ids[12:]


@contextmanager
def away(object_store: Path) -> Iterator[None]:
    """Nobody can read or write the object store."""
    kept = object_store.rename(object_store.with_name("away"))
    object_store.write_text("no bucket")
    yield
    object_store.unlink()
    kept.rename(object_store)


def serve(services: Services, number: int, action: Action) -> None:
    """A person's `promote` or `rollback`."""
    version = services.registry(PROJECT).load(number)
    serve_version(services, get_job_queue(), PROJECT, version, action=action, who="anna", why="wet cars")


def history(services: Services) -> list[tuple[int, str]]:
    return [(each.version, each.who) for each in services.registry(PROJECT).promotions()]


class _Killed(BaseException):
    """Stands for a SIGKILL: no handler of the loop catches it."""


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
    garage.label(*ids[8:12])
    with away(object_store), pytest.raises(ModelMirrorError):
        garage.turn()
    assert serving(garage.services) == "carcond-0001"
    assert garage.turn().version == "carcond-0002"


def test_a_candidate_that_could_not_be_handed_over_serves_in_the_next_turn(
    taught: tuple[Garage, list[int]], object_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    garage, unlabelled = taught
    garage.label(unlabelled[0])
    write, taken_away = Registry.write, ExitStack()

    def write_and_lose_the_store(registry: Registry, *facts: Any) -> int:
        taken_away.enter_context(away(object_store))
        return write(registry, *facts)

    with taken_away, monkeypatch.context() as patch:
        patch.setattr(Registry, "write", write_and_lose_the_store)
        with pytest.raises(ModelMirrorError):
            garage.turn()
    assert garage.turn().version == "carcond-0003"
    assert garage.services.registry(PROJECT).numbers() == [1, 2, 3]
    assert history(garage.services) == [(1, "loop"), (2, "loop"), (3, "loop")]


def test_a_worker_killed_before_it_has_handed_all_over_leaves_a_version_that_serves_in_the_next_turn(
    taught: tuple[Garage, list[int]], elsewhere: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    garage, unlabelled = taught
    garage.label(unlabelled[0])

    def kill(*_: Any) -> None:
        raise _Killed

    with monkeypatch.context() as patch:
        patch.setattr(Services, "push_versions", kill)
        with pytest.raises(_Killed):
            garage.turn()
    with monkeypatch.context() as patch:
        patch.delitem(vars(garage.services), "mirror")  # as in a new process
        assert garage.turn().version == "carcond-0003"
    elsewhere.pull_models(PROJECT)
    assert serving(elsewhere) == "carcond-0003"
    assert history(elsewhere) == [(1, "loop"), (2, "loop"), (3, "loop")]


def test_a_rollback_on_another_host_while_a_candidate_is_fitted_is_not_undone(
    taught: tuple[Garage, list[int]], elsewhere: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    garage, unlabelled = taught
    garage.label(unlabelled[0])
    elsewhere.pull_models(PROJECT)
    write = Registry.write

    def write_slowly(registry: Registry, *facts: Any) -> int:
        number = write(registry, *facts)
        serve(elsewhere, 1, "rollback")
        return number

    with monkeypatch.context() as patch:
        patch.setattr(Registry, "write", write_slowly)
        assert garage.turn().version == "carcond-0001"
    assert garage.turn().version == "carcond-0001"
    elsewhere.pull_models(PROJECT)
    assert serving(elsewhere) == "carcond-0001"
    assert elsewhere.registry(PROJECT).numbers() == [1, 2, 3]
    assert history(elsewhere) == [(1, "loop"), (2, "loop"), (1, "anna")]


def test_a_rollback_that_could_not_be_handed_over_has_not_happened(
    taught: tuple[Garage, list[int]], object_store: Path
) -> None:
    garage, _ = taught
    with away(object_store), pytest.raises(ModelMirrorError):
        serve(garage.services, 1, "rollback")
    assert serving(garage.services) == "carcond-0002"
    assert history(garage.services) == [(1, "loop"), (2, "loop")]
    serve(garage.services, 1, "rollback")
    assert garage.turn().version == "carcond-0001"


def test_a_choice_made_while_another_version_began_to_serve_holds_on_all_hosts(
    taught: tuple[Garage, list[int]], elsewhere: Services
) -> None:
    garage, unlabelled = taught
    elsewhere.pull_models(PROJECT)
    garage.label(unlabelled[0])
    assert garage.turn().version == "carcond-0003"
    serve(elsewhere, 1, "rollback")
    garage.label(unlabelled[1])
    report = garage.turn()
    assert report.version == serving(elsewhere) == "carcond-0001"
    assert report.pinned == "carcond-0004 is not served: carcond-0001 is pinned by anna: wet cars"
    assert history(garage.services) == [(1, "loop"), (2, "loop"), (3, "loop"), (1, "anna")]


def test_a_promotion_without_a_pin_is_refused_where_another_version_serves_by_now(
    taught: tuple[Garage, list[int]], elsewhere: Services
) -> None:
    garage, unlabelled = taught
    elsewhere.pull_models(PROJECT)
    garage.label(unlabelled[0])
    assert garage.turn().version == "carcond-0003"
    with pytest.raises(ModelMirrorError, match="carcond-0003 serves on other hosts"):
        elsewhere.registry(PROJECT).promote(1, "anna", "wet cars", "rollback")
    elsewhere.pull_models(PROJECT)
    assert serving(elsewhere) == garage.turn().version == "carcond-0003"
    assert history(elsewhere) == [(1, "loop"), (2, "loop"), (3, "loop")]


def test_the_serving_version_pinned_on_another_host_while_a_candidate_is_fitted_goes_on_serving(
    taught: tuple[Garage, list[int]], elsewhere: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    garage, unlabelled = taught
    garage.label(unlabelled[0])
    elsewhere.pull_models(PROJECT)
    write = Registry.write

    def write_slowly(registry: Registry, *facts: Any) -> int:
        number = write(registry, *facts)
        pin_version(elsewhere, get_job_queue(), PROJECT, 2, who="anna", why="measured in the field")
        return number

    with monkeypatch.context() as patch:
        patch.setattr(Registry, "write", write_slowly)
        assert garage.turn().version == "carcond-0002"
    unpin_version(elsewhere, get_job_queue(), PROJECT, who="anna", why="done")
    assert garage.turn().version == "carcond-0003"


def test_a_follower_hears_of_a_pin_of_what_it_serves_already(
    taught: tuple[Garage, list[int]], elsewhere: Services, follow: Follow
) -> None:
    garage, _ = taught
    follow()
    assert wait_for(lambda: serving(elsewhere) == "carcond-0002")
    pin_version(garage.services, get_job_queue(), PROJECT, 2, who="anna", why="measured in the field")
    assert wait_for(lambda: elsewhere.registry(PROJECT).pin() is not None)


def test_versions_pruned_by_a_worker_are_gone_on_all_hosts_and_from_the_object_store(
    taught: tuple[Garage, list[int]],
    elsewhere: Services,
    object_store: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    garage, unlabelled = taught
    elsewhere.pull_models(PROJECT)
    monkeypatch.setattr("carcond.registry.pruning.GRACE_S", 0.0)
    monkeypatch.setattr("carcond.registry.pruning.NEWEST", 1)
    garage.label(unlabelled[0])
    garage.turn()
    garage.label(unlabelled[1])
    garage.turn()
    garage.turn()
    elsewhere.pull_models(PROJECT)
    kept = garage.services.registry(PROJECT).numbers()
    assert kept[0] == 1
    assert len(kept) < 4
    for services in (garage.services, elsewhere):
        assert sorted(services.registry(PROJECT).directories()) == kept
    stored = {path.name[:4] for path in (object_store / "projects" / str(PROJECT) / "versions").iterdir()}
    assert stored == {f"{number:04d}" for number in kept}


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
