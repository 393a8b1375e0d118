"""What the loop does when photos, Label Studio, the disk, the store or the encoder fail or change."""

import contextlib
import shutil
import time
from collections.abc import Callable
from datetime import datetime, timedelta, tzinfo
from pathlib import Path
from typing import Any, Self

import pytest

from backend.loop.turn import Loop
from backend.services import Services
from carcond.errors import EncoderError, LabelStudioError, RegistryError
from carcond.model.encoder import encoders_dir
from carcond.registry.registry import COLD_START_VERSION, Registry
from tests.backend.drawings import draw_photo
from tests.backend.fake_label_studio import PROJECT
from tests.backend.garage import DAMAGE, Garage
from tests.backend.http_server import Reply
from tests.conftest import MakeEncoder

pytestmark = pytest.mark.slow


# Photos that cannot be had


def test_an_unreadable_photo_is_kept_out_of_the_queue(garage: Garage) -> None:
    bad = garage.add_bad_photo("/data/bad.jpg", Reply(b"no photo"))
    ids = garage.add_photos(20)
    garage.label(*ids[:8])
    garage.settle()
    assert garage.studio.words(bad) == {}
    assert garage.studio.prediction(bad).model_version == COLD_START_VERSION
    assert bad not in garage.studio.served()
    garage.studio.writes.clear()
    garage.settle()
    assert garage.studio.writes == []


def test_a_label_on_an_unreadable_photo_is_listed_and_not_used(garage: Garage) -> None:
    bad = garage.add_bad_photo("/data/bad.jpg", Reply(b"no photo"))
    ids = garage.add_photos(20)
    garage.studio.annotate(bad, cleanliness="clean", damage="intact")
    garage.label(*ids[:8])
    garage.settle()
    assert "expected a JPEG" in garage.rows()[bad]["problem"]
    version = garage.services.registry(PROJECT).current()
    assert version
    assert version.card.labels.unusable == 1


def test_a_photo_that_answers_401_is_served_once_it_can_be_had(
    trained: tuple[Garage, list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    garage, _ = trained
    monkeypatch.setattr("backend.loop.embedding._FIRST_WAIT_S", 0.0)
    closed = garage.add_bad_photo("/data/closed.jpg", Reply(status=401))
    assert garage.settle().photos_left == 0
    assert closed not in garage.studio.served()
    garage.server.answers["/data/closed.jpg"] = Reply(draw_photo(999))
    garage.settle()
    assert garage.studio.prediction(closed).model_version == "carcond-0001"
    assert all(set(words) == {"cleanliness", "damage"} for words in garage.words(closed))


# What breaks


@pytest.mark.parametrize("writes", [0, 1, 3, 7, 10, 11, 15, 25])
def test_when_label_studio_fails_at_any_moment_the_next_turn_completes(
    trained: tuple[Garage, list[int]], writes: int
) -> None:
    garage, ids = trained
    garage.label(ids[12])
    garage.studio.writes_until_failure = writes
    with pytest.raises(LabelStudioError):
        garage.settle()
    garage.studio.writes_until_failure = None
    garage.settle()
    assert garage.studio.model_version == "carcond-0002"
    assert {garage.studio.prediction(task_id).model_version for task_id in ids[13:]} == {"carcond-0002"}


def test_when_label_studio_fails_in_the_cold_start_the_next_turn_completes(garage: Garage) -> None:
    ids = garage.add_photos(20)
    garage.studio.writes_until_failure = 4
    with pytest.raises(LabelStudioError):
        garage.turn()
    garage.studio.writes_until_failure = None
    garage.settle()
    assert sorted(garage.studio.served()) == ids


def test_during_a_takeover_there_is_always_something_to_serve(trained: tuple[Garage, list[int]]) -> None:
    garage, ids = trained
    garage.label(ids[12])
    for _ in range(8):
        garage.studio.writes_until_failure = 4
        with contextlib.suppress(LabelStudioError):
            garage.turn()
        assert garage.studio.served()
    assert garage.studio.model_version == "carcond-0002"


def test_a_full_disk_leaves_the_old_version_serving(
    trained: tuple[Garage, list[int]], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    garage, ids = trained
    garage.label(ids[12])

    def full(*_: Any) -> int:
        raise RegistryError("version carcond-0002 cannot be written: No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Registry, "write", full)
        report = garage.settle()
    assert (report.version, report.refitted) == ("carcond-0001", False)
    assert "No space left" in caplog.text
    assert garage.studio.model_version == "carcond-0001"
    assert garage.settle().version == "carcond-0002"


def test_a_registry_that_cannot_be_written_leaves_the_old_version_serving(trained: tuple[Garage, list[int]]) -> None:
    garage, ids = trained
    garage.label(ids[12])
    versions = garage.services.registry(PROJECT).root / "versions"
    hidden = versions.rename(versions.with_name("elsewhere"))
    versions.touch()  # a file where a folder is expected
    assert garage.turn().version == "carcond-0001"
    versions.unlink()
    hidden.rename(versions)
    assert garage.turn().version == "carcond-0002"


def test_a_lost_store_is_made_anew_from_label_studio(
    trained: tuple[Garage, list[int]], make_settings: Callable[..., Any], tmp_path: Path
) -> None:
    garage, _ = trained
    settings = make_settings(
        LABEL_STUDIO_URL=garage.services.settings.label_studio_url,
        DATABASE_URL=f"sqlite:///{tmp_path / 'another.sqlite3'}",
    )
    again = Services(settings)
    again.api = garage.studio
    report = Loop(again, PROJECT, lambda *_: None).turn()
    assert report.labelled == 12
    assert {row["classes"]["damage"] for row in garage.rows().values()} == set(DAMAGE)
    again.store.close()
    again.photos.close()


# Another encoder


def test_a_new_encoder_takes_over_once_it_has_seen_all_photos(
    trained: tuple[Garage, list[int]], make_tiny_encoder: MakeEncoder
) -> None:
    garage, ids = trained
    make_tiny_encoder(garage.services.settings.models_dir, 1)
    report = garage.turn()
    assert (report.candidate, report.candidate_unseen) == ("tiny-00000001", len(ids))
    assert (report.version, report.refitted) == ("carcond-0001", False)
    garage.show_pool("tiny-00000001")
    assert garage.turn().version == "carcond-0002"
    version = garage.services.registry(PROJECT).current()
    assert version
    assert version.heads.encoder_id == "tiny-00000001"


def test_labels_count_while_a_new_encoder_is_still_looking(
    trained: tuple[Garage, list[int]], make_tiny_encoder: MakeEncoder
) -> None:
    garage, ids = trained
    make_tiny_encoder(garage.services.settings.models_dir, 1)
    garage.label(ids[12])
    report = garage.turn()
    assert (report.version, report.labelled) == ("carcond-0002", 13)
    version = garage.services.registry(PROJECT).current()
    assert version
    assert version.heads.encoder_id == "tiny-00000000"
    assert set(garage.studio.served()) <= set(ids[13:])


def test_a_new_encoder_without_room_for_its_version_leaves_the_old_pair_serving(
    trained: tuple[Garage, list[int]], make_tiny_encoder: MakeEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    garage, ids = trained
    before = {task_id: garage.studio.words(task_id) for task_id in ids[12:]}
    make_tiny_encoder(garage.services.settings.models_dir, 1)

    def full(*_: Any) -> int:
        raise RegistryError("No space left on device")

    monkeypatch.setattr(Registry, "write", full)
    assert garage.take_over().version == "carcond-0001"
    assert {task_id: garage.studio.words(task_id) for task_id in ids[12:]} == before


def test_without_an_encoder_nothing_is_written(garage: Garage) -> None:
    garage.add_photos(3)
    shutil.rmtree(encoders_dir(garage.services.settings.models_dir))
    with pytest.raises(EncoderError, match="no encoder is in use"):
        garage.turn()
    assert garage.studio.writes == []


def test_a_deleted_project_is_asked_for_once_and_no_more(services: Services) -> None:
    store = services.store
    store.add_project(PROJECT + 1)
    services.pool(PROJECT + 1, services.encoder_id()).read()
    kept = services.settings.models_dir / "cache" / "pools" / str(PROJECT + 1)
    assert kept.is_dir()
    with pytest.raises(LabelStudioError):
        Loop(services, PROJECT + 1, lambda *_: None).turn()
    assert PROJECT + 1 not in store.project_ids()
    assert list(kept.iterdir()) == []


# The clock


class _Clock(datetime):
    """The time of this machine, which somebody sets forward and back."""

    shift = timedelta()

    @classmethod
    def now(cls, tz: tzinfo | None = None) -> Self:
        return super().now(tz) + cls.shift


@pytest.mark.parametrize("days", [[-1, 0], [1, 0], [400, -400]])
def test_a_clock_that_jumps_loses_no_label_no_photo_and_no_version(
    garage: Garage, monkeypatch: pytest.MonkeyPatch, days: list[int]
) -> None:
    ids = garage.add_photos(24)
    garage.turn()
    garage.label(*ids[:12])
    first = garage.turn()
    real = time.time
    for module in (
        "backend.loop.turn",
        "backend.loop.refit",
        "carcond.registry.promotions",
        "carcond.registry.pruning",
    ):
        monkeypatch.setattr(f"{module}.datetime", _Clock)
    for number, day in enumerate(days):
        monkeypatch.setattr(_Clock, "shift", timedelta(days=day))
        monkeypatch.setattr(time, "time", lambda day=day: real() + 86_400 * day)
        new = garage.add_photos(2)
        garage.label(*ids[12 + 2 * number : 14 + 2 * number])
        report = garage.turn()
        assert report.labelled == first.labelled + 2 * (number + 1)
        assert report.photos_left == 0
        assert report.version > first.version
        embedded, _ = garage.services.store.embeddings(PROJECT, garage.services.encoder_id())
        assert set(new) <= set(embedded.tolist())
