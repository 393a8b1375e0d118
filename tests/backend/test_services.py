"""What a process keeps at hand."""

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from backend.services import get_services
from carcond.encoder import Encoder
from tests.backend.conftest import MakeSettings


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
