"""What the backend's tests share: a real Redis-compatible server, a photo server, services over a tiny encoder."""

import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from redis import Redis
from sqlalchemy import text

from backend.jobs.queue import JobQueue, get_job_queue
from backend.services import Services, get_services
from carcond.settings import Settings, get_settings
from carcond.store.store import Store
from scripts.preflight import StackError
from scripts.redis_server import answers, find_server
from tests.backend.fake_label_studio import FakeLabelStudio
from tests.backend.garage import Garage
from tests.backend.http_server import HttpServer, free_port
from tests.conftest import DATABASES, MakeEncoder, new_database

API_KEY = "0123456789abcdef0123456789abcdef01234567"

MakeSettings = Callable[..., Settings]

# They lean on the store the most. Elsewhere the database plays no part, or a test of the store itself has it.
_ON_BOTH_DATABASES = {
    f"tests.backend.loop.{name}"
    for name in (
        "test_embedding",
        "test_imported_sets",
        "test_publishing",
        "test_sync",
        "test_turn",
        "test_turn_recovery",
        "test_upgrade",
    )
}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "database_url" in metafunc.fixturenames and metafunc.module.__name__ in _ON_BOTH_DATABASES:
        metafunc.parametrize("database_url", DATABASES, indirect=True)


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Redis of our own, ended with the tests."""
    try:
        server = find_server()
    except StackError as error:
        pytest.skip(str(error))
    directory, port = tmp_path_factory.mktemp("redis"), free_port()
    command = [str(server), "--bind", "127.0.0.1", "--port", str(port), "--save", "", "--dir", str(directory)]
    url = f"redis://127.0.0.1:{port}/0"
    with (directory / "log").open("w") as log, subprocess.Popen(command, stdout=log, stderr=log) as process:
        for _ in range(200):
            if answers(url) or process.poll() is not None:
                break
            time.sleep(0.05)
        yield url
        process.terminate()


@pytest.fixture
def redis(redis_server: str) -> Iterator[Redis]:
    """An empty Redis."""
    with Redis.from_url(redis_server) as client:
        client.flushall()
        yield client


@pytest.fixture
def redis_url(redis: Redis, redis_server: str) -> str:
    """The address of an empty Redis."""
    return redis_server


@pytest.fixture
def server() -> Iterator[HttpServer]:
    """A web server in a thread; it stands for Label Studio where only photos are fetched from it."""
    with HttpServer() as running:
        yield running


@pytest.fixture
def other_server() -> Iterator[HttpServer]:
    """A web server that is not Label Studio."""
    with HttpServer() as running:
        yield running


@pytest.fixture
def models_dir(tmp_path: Path, make_tiny_encoder: MakeEncoder) -> Path:
    """A models directory of the test's own, with a tiny encoder in use."""
    make_tiny_encoder(tmp_path / "models")
    return tmp_path / "models"


@pytest.fixture
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The address of an empty database: SQLite, and PostgreSQL too for the modules of `_ON_BOTH_DATABASES`."""
    return new_database(getattr(request, "param", "sqlite"), request, tmp_path)


@pytest.fixture
def make_settings(models_dir: Path, database_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[MakeSettings]:
    """Settings as the environment gives them: call with the names of variables. This process then uses them."""
    defaults = {
        "DATABASE_URL": database_url,
        "CARCOND_MODELS_DIR": str(models_dir),
        "CARCOND_ENCODER_THREADS": "1",
        "CARCOND_VIEWS": "224",
        "CARCOND_DEBOUNCE_S": "0",
        # A tiny encoder is hardly ever sure.
        "CARCOND_PRELABEL_MIN_CONFIDENCE": "0",
        "LABEL_STUDIO_API_KEY": API_KEY,
        "LABEL_STUDIO_URL": "http://127.0.0.1:1",
        "REDIS_URL": "redis://127.0.0.1:1/0",
    }

    def make(**variables: str) -> Settings:
        for name, value in (defaults | variables).items():
            monkeypatch.setenv(name, value)
        _forget_settings()
        return get_settings()

    yield make
    _forget_settings()


def _forget_settings() -> None:
    if get_services.cache_info().currsize:
        opened = vars(get_services())
        for part in ("store", "photos"):
            if part in opened:
                opened[part].close()
    for cached in (get_settings, get_services, get_job_queue):
        cached.cache_clear()


@pytest.fixture
def services(server: HttpServer, make_settings: MakeSettings) -> Iterator[Services]:
    """Services whose photos come from `server`. There is no Redis, and no Label Studio API."""
    make_settings(LABEL_STUDIO_URL=server.url)
    made = get_services()
    yield made
    made.store.close()
    made.photos.close()


@pytest.fixture
def job_queue(redis_url: str, make_settings: MakeSettings) -> JobQueue:
    """The job queue of this process, on an empty Redis."""
    make_settings(REDIS_URL=redis_url)
    return get_job_queue()


@pytest.fixture
def garage(services: Services, server: HttpServer) -> Garage:
    return Garage(services, server)


@pytest.fixture
def trained(garage: Garage) -> tuple[Garage, list[int]]:
    """Forty photos, twelve of them labelled, and a version that serves."""
    ids = garage.add_photos(40)
    garage.label(*ids[:12])
    assert garage.settle().version == "carcond-0001"
    return garage, ids


@pytest.fixture
def store(database_url: str) -> Iterator[Store]:
    """An empty store."""
    made = Store(database_url)
    yield made
    made.close()


@pytest.fixture
def newer_store(tmp_path: Path) -> str:
    """The address of a store that a newer program has used."""
    url = f"sqlite:///{tmp_path / 'newer.sqlite3'}"
    made = Store(url)
    with made.session() as session:
        session.execute(text("UPDATE alembic_version SET version_num = '0107'"))
    made.close()
    return url


@pytest.fixture
def studio() -> FakeLabelStudio:
    """A Label Studio in memory with one empty project."""
    return FakeLabelStudio()
