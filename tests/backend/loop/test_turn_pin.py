"""What the loop does while a version is pinned, and how it prunes."""

import logging
from typing import Any

import pytest

from backend.loop.refit import hold_pin
from carcond.errors import RegistryError
from carcond.evaluation.gate import Verdict
from carcond.registry.registry import Registry
from tests.backend.fake_label_studio import PROJECT
from tests.backend.garage import Garage
from tests.conftest import MakeEncoder

pytestmark = pytest.mark.slow

PIN = "carcond-0001 is pinned by anna: measured"


def registry_of(garage: Garage) -> Registry:
    return garage.services.registry(PROJECT)


def unlabelled(garage: Garage) -> list[int]:
    return [task.id for task in garage.studio.tasks(PROJECT) if not task.annotations]


def label_one(garage: Garage) -> None:
    garage.label(next(task_id for task_id in unlabelled(garage) if task_id not in garage.drawn()))


@pytest.fixture
def pinned(trained: tuple[Garage, list[int]]) -> Garage:
    """Version 1 serves and is pinned."""
    garage, _ = trained
    registry_of(garage).pin_serving(1, "anna", "measured")
    return garage


def refuse(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "backend.loop.refit.evaluate_candidate", lambda *_, **__: Verdict(False, "worse, for the test", "carcond-0001")
    )


def test_while_a_version_is_pinned_candidates_are_fitted_and_judged_and_none_serves(pinned: Garage) -> None:
    for number in (2, 3):
        label_one(pinned)
        report = pinned.settle()
        assert (report.version, report.refitted) == ("carcond-0001", False)
        assert report.pinned == f"carcond-000{number} is not served: {PIN}"
    assert registry_of(pinned).numbers() == [1, 2, 3]
    assert registry_of(pinned).card(3)["gate"]["against"] == "carcond-0001"
    assert pinned.studio.model_version == "carcond-0001"
    assert {pinned.studio.prediction(task_id).model_version for task_id in unlabelled(pinned)} == {"carcond-0001"}


def test_a_candidate_that_is_held_back_is_not_fitted_again_for_the_same_labels(pinned: Garage) -> None:
    label_one(pinned)
    for _ in range(3):
        assert pinned.turn().version == "carcond-0001"
    assert registry_of(pinned).numbers() == [1, 2]


def test_the_log_of_a_turn_says_which_version_is_pinned(pinned: Garage, caplog: pytest.LogCaptureFixture) -> None:
    label_one(pinned)
    with caplog.at_level(logging.INFO):
        pinned.turn()
    assert f"project {PROJECT}: carcond-0002 is not served: {PIN}" in caplog.text


def test_without_news_the_report_says_which_version_is_pinned(pinned: Garage) -> None:
    assert pinned.turn().pinned == PIN


def test_once_unpinned_the_newest_candidate_takes_over_without_another_label(pinned: Garage) -> None:
    for _ in range(2):
        label_one(pinned)
        pinned.turn()
    registry_of(pinned).unpin("anna", "done")
    report = pinned.settle()
    assert (report.version, report.refitted, report.pinned) == ("carcond-0003", True, "")
    assert pinned.studio.model_version == "carcond-0003"
    assert registry_of(pinned).numbers() == [1, 2, 3]


def test_once_unpinned_an_accepted_candidate_takes_over_though_a_newer_one_was_refused(
    pinned: Garage, monkeypatch: pytest.MonkeyPatch
) -> None:
    label_one(pinned)
    pinned.turn()
    with monkeypatch.context() as patch:
        refuse(patch)
        label_one(pinned)
        assert "carcond-0003: worse" in pinned.turn().refused
    registry_of(pinned).unpin("anna", "done")
    report = pinned.turn()
    assert (report.version, report.refitted) == ("carcond-0002", True)
    assert pinned.turn().version == "carcond-0002"


def test_once_unpinned_what_was_refused_or_rolled_back_does_not_serve(
    pinned: Garage, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = registry_of(pinned)
    registry.unpin("anna", "done")
    label_one(pinned)
    assert pinned.turn().version == "carcond-0002"
    registry.promote(1, "anna", "2 is worse", "rollback", pinned=True)
    refuse(monkeypatch)
    label_one(pinned)
    pinned.turn()
    registry.unpin("anna", "done")
    for _ in range(2):
        report = pinned.turn()
        assert report.version == "carcond-0001"
        assert "carcond-0003: worse" in report.refused


def test_a_candidate_that_was_compared_with_another_version_than_the_unpinned_one_is_judged_anew(
    pinned: Garage,
) -> None:
    registry = registry_of(pinned)
    for _ in range(2):
        label_one(pinned)
        pinned.turn()
    registry.promote(2, "anna", "it is better", pinned=True)
    pinned.turn()
    registry.unpin("anna", "done")
    assert pinned.turn().version == "carcond-0004"
    assert registry.card(4)["gate"]["against"] == "carcond-0002"
    assert pinned.turn().version == "carcond-0004"


def test_a_version_pinned_while_a_candidate_is_fitted_goes_on_serving(
    trained: tuple[Garage, list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    garage, _ = trained
    label_one(garage)
    write = Registry.write

    def write_slowly(registry: Registry, *facts: Any) -> int:
        number = write(registry, *facts)
        garage.fresh_services().registry(PROJECT).pin_serving(1, "anna", "measured")
        return number

    with monkeypatch.context() as patch:
        patch.setattr(Registry, "write", write_slowly)
        report = garage.turn()
    assert (report.version, report.pinned) == ("carcond-0001", f"carcond-0002 is not served: {PIN}")


def test_of_a_candidate_promoted_in_the_moment_of_the_pin_the_next_turn_makes_up_for(
    trained: tuple[Garage, list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loop looks for a pin, finds none, and then moves the pointer after the person has."""
    garage, _ = trained
    label_one(garage)
    assert garage.turn().version == "carcond-0002"
    label_one(garage)

    def pin_then_replace(path: Any, text: str) -> None:
        monkeypatch.undo()
        garage.fresh_services().registry(PROJECT).promote(1, "anna", "measured", pinned=True)
        path.write_text(text)

    monkeypatch.setattr("carcond.registry.registry.replace_text", pin_then_replace)
    assert garage.turn().version == "carcond-0003"
    report = garage.turn()
    assert (report.version, report.pinned) == ("carcond-0001", PIN)
    assert garage.studio.model_version == "carcond-0001"
    last = registry_of(garage).promotions()[-1]
    assert (last.version, last.who, last.why) == (1, "loop", PIN)


def test_a_pinned_version_that_is_gone_stops_no_turn_and_lets_nothing_take_over(
    pinned: Garage, caplog: pytest.LogCaptureFixture
) -> None:
    registry = registry_of(pinned)
    registry.unpin("anna", "done")
    label_one(pinned)
    assert pinned.turn().version == "carcond-0002"
    registry.promote(1, "anna", "measured", pinned=True)
    (registry.path(1) / "heads.safetensors").unlink()
    pinned.services = pinned.fresh_services()
    pinned.services.api = pinned.studio
    label_one(pinned)
    report = pinned.turn()
    assert report.version == "carcond-0002"
    assert PIN in report.pinned
    assert "the promoted version" in caplog.text


def test_a_record_that_cannot_be_read_is_told_and_holds_nothing(
    trained: tuple[Garage, list[int]], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    garage, _ = trained

    def unreadable(_: Registry) -> None:
        raise RegistryError("promotions.jsonl cannot be read: input/output error")

    monkeypatch.setattr(Registry, "history", unreadable)
    assert hold_pin(registry_of(garage)) is None
    assert "input/output error" in caplog.text
    label_one(garage)
    assert garage.turn().version == "carcond-0001"


def test_another_encoder_is_shown_the_pool_and_waits_for_its_trial_until_the_version_is_unpinned(
    pinned: Garage, make_tiny_encoder: MakeEncoder
) -> None:
    make_tiny_encoder(pinned.services.settings.models_dir, 1)
    label_one(pinned)
    assert pinned.take_over().version == "carcond-0001"
    assert registry_of(pinned).numbers() == [1, 2]
    registry_of(pinned).unpin("anna", "done")
    assert pinned.turn().version == "carcond-0003"
    version = registry_of(pinned).current()
    assert version
    assert version.heads.encoder_id == "tiny-00000001"


# Pruning


def test_a_turn_prunes_and_its_serving_version_is_among_those_that_are_left(
    trained: tuple[Garage, list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    garage, _ = trained
    monkeypatch.setattr("carcond.registry.pruning.NEWEST", 1)
    monkeypatch.setattr("carcond.registry.pruning.GRACE_S", 0.0)
    for _ in range(3):
        label_one(garage)
        garage.turn()
    report = garage.turn()
    assert "prune" in report.seconds
    assert sorted(registry_of(garage).directories()) == [1, 4]
    assert report.version == "carcond-0004"


def test_a_disk_that_refuses_to_prune_does_not_stop_the_turn(
    trained: tuple[Garage, list[int]], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    garage, _ = trained

    def refuse_to_prune(_: Registry) -> None:
        raise RegistryError("versions cannot be pruned: No space left on device")

    monkeypatch.setattr("backend.services.prune", refuse_to_prune)
    label_one(garage)
    assert garage.turn().version == "carcond-0002"
    assert "No space left" in caplog.text
