"""Disk, clock and packages of this machine."""

import importlib.metadata
import shutil
from collections.abc import Callable
from email.utils import formatdate
from pathlib import Path
from typing import NamedTuple

import pytest

from backend.doctor.examination import Answer, Examination
from backend.doctor.machine import check_clock, check_disk, check_packages
from tests.backend.conftest import MakeSettings
from tests.backend.doctor.conftest import Look

NOW = 1_790_000_000.0


class Usage(NamedTuple):
    free: int


@pytest.mark.parametrize(("free_mb", "name"), [(499, "disk-full"), (1999, "disk-nearly-full"), (2001, "")])
def test_a_disk_that_fills_is_told(
    look: Look, monkeypatch: pytest.MonkeyPatch, free_mb: int, name: str, models_dir: Path
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(free_mb * 1_000_000))
    found = look(check_disk)
    assert set(found) == {name}
    if name:
        assert f"{models_dir} has {free_mb} MB left" in found[name].what
        assert "CARCOND_MODELS_DIR" in found[name].fix


def test_folders_that_are_not_there_yet_are_looked_for_above(look: Look, tmp_path: Path) -> None:
    far = tmp_path / "a" / "b"
    assert look(check_disk, CARCOND_MODELS_DIR=str(far), DATABASE_URL=f"sqlite:///{far}/c/store.sqlite3")
    assert not far.exists()


@pytest.fixture
def examine_clock(make_settings: MakeSettings) -> Callable[..., dict[str, str]]:
    def examine(label_studio: float, **variables: str) -> dict[str, str]:
        with Examination(make_settings(**variables), "http://127.0.0.1:9090", lambda: NOW) as whole:
            whole.greeting = Answer(200, {}, formatdate(NOW + label_studio, usegmt=True), "")
            return {finding.name: finding.what for finding in check_clock(whole)}

    return examine


@pytest.mark.parametrize("seconds", [-3600, -31, 31, 90])
def test_a_clock_that_is_off_is_told(examine_clock: Callable[..., dict[str, str]], seconds: float) -> None:
    words = f"The clock of Label Studio and this machine's differ by {abs(seconds)} s."
    assert examine_clock(seconds) == {"clock-skew": words}


def test_clocks_that_agree_are_fine(examine_clock: Callable[..., dict[str, str]]) -> None:
    assert examine_clock(20) == {}


def test_redis_has_a_clock_too(examine_clock: Callable[..., dict[str, str]], redis_url: str) -> None:
    assert "Redis" in examine_clock(0, REDIS_URL=redis_url)["clock-skew"]


def test_the_installed_packages_are_those_that_are_asked_for(look: Look) -> None:
    assert set(look(check_packages)) == set()


def test_a_package_of_another_version_is_told_with_the_one_that_is_wanted(
    look: Look, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = importlib.metadata.version
    monkeypatch.setattr("backend.doctor.machine.version", lambda name: "99.0" if name == "numpy" else version(name))
    found = look(check_packages)["package-version"]
    assert "numpy 99.0" in found.what
    assert "'numpy<2.3,>=2.0'" in found.fix
