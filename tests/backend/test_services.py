"""What a process keeps at hand."""

import gc
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from backend.services import get_services
from carcond.model.encoder import Encoder
from tests.backend.conftest import MakeSettings
from tests.backend.versions import write_version


def test_threads_that_ask_at_once_share_one_encoder(
    make_settings: MakeSettings, models_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_settings()
    services, load = get_services(), Encoder.load
    loaded: list[Path] = []

    def load_slowly(directory: Path, threads: int) -> Encoder:
        loaded.append(directory)
        time.sleep(0.05)
        return load(directory, threads)

    monkeypatch.setattr(Encoder, "load", load_slowly)
    with ThreadPoolExecutor(8) as pool:
        encoders = list(pool.map(services.encoder, [services.encoder_id()] * 8))
    assert len(loaded) == 1
    assert len(set(map(id, encoders))) == 1


def test_the_registry_of_a_project_is_kept_once_there_is_one_and_no_number_that_somebody_names_is(
    make_settings: MakeSettings, models_dir: Path
) -> None:
    make_settings()
    services = get_services()
    nobodys = weakref.ref(services.registry(7))
    gc.collect()
    assert nobodys() is None
    assert not services.registry(7).root.exists()
    write_version(models_dir, 7)
    assert services.registry(7) is services.registry(7)
