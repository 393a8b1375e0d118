"""What the loop does with candidates that are worse, with rollbacks, and when it is killed between its steps."""

import os
import shutil
from collections.abc import Callable
from typing import Any

import pytest

from carcond.data.split import HOLDOUT, TRAIN
from carcond.errors import RegistryError
from carcond.evaluation.gate import ModelOnHoldout, Verdict
from carcond.model.encoder import encoders_dir, use_encoder
from carcond.registry.registry import Registry
from tests.backend.drawings import draw_photo
from tests.backend.fake_label_studio import PROJECT
from tests.backend.garage import CLEANLINESS, DAMAGE, Garage
from tests.backend.http_server import Reply
from tests.conftest import MakeEncoder

pytestmark = pytest.mark.slow

LABELLED = 40


class Workshop:
    """A garage whose photos came with labels, a fifth of them held out, and what its annotations are."""

    def __init__(self, garage: Garage) -> None:
        self.garage = garage
        garage.services.settings = garage.services.settings.model_copy(update={"gate_min_photos": 6})
        self.ids = garage.add_photos(LABELLED + 12)
        self.annotations = {
            task_id: garage.studio.annotate(task_id, 1, False, **garage.truth[task_id])
            for task_id in self.ids[:LABELLED]
        }
        assert garage.settle().version == "carcond-0001"

    @property
    def registry(self) -> Registry:
        return self.garage.services.registry(PROJECT)

    @property
    def serving(self) -> int:
        version = Registry(self.garage.services.settings.models_dir, PROJECT).current()
        assert version
        return version.number

    def spoil(self) -> None:
        """Somebody changes all labels to wrong ones, but those of the hold-out."""
        for task_id, annotation in self.annotations.items():
            if self.garage.rows()[task_id]["side"] == TRAIN:
                truth = self.garage.truth[task_id]
                wrong = CLEANLINESS[(CLEANLINESS.index(truth["cleanliness"]) + 1) % 3]
                damage = DAMAGE[1 - DAMAGE.index(truth["damage"])]
                self.garage.studio.change_annotation(task_id, annotation, cleanliness=wrong, damage=damage)

    def label_one(self) -> None:
        self.garage.label(next(i for i in self.ids if i not in self.garage.drawn() | self.annotations.keys()))


@pytest.fixture
def workshop(garage: Garage) -> Workshop:
    return Workshop(garage)


def refuse(*_: Any, **__: Any) -> Verdict:
    return Verdict(False, "worse, for the test", "carcond-0001")


def test_the_first_version_tells_that_it_is_the_first(workshop: Workshop) -> None:
    assert workshop.registry.card(1)["gate"]["reason"] == "first version"
    (promotion,) = workshop.registry.promotions()
    assert (promotion.who, promotion.why, promotion.before) == ("loop", "first version", None)


def test_a_candidate_that_is_not_worse_is_compared_and_serves(workshop: Workshop) -> None:
    workshop.label_one()
    assert workshop.garage.turn().version == "carcond-0002"
    gate = workshop.registry.card(2)["gate"]
    held_out = sum(row["side"] == HOLDOUT for row in workshop.garage.rows().values())
    assert gate["accepted"]
    assert gate["against"] == "carcond-0001"
    assert {key: (task["photos"], task["tested"]) for key, task in gate["tasks"].items()} == {
        "cleanliness": (held_out, True),
        "damage": (held_out, True),
    }


def test_a_worse_candidate_is_kept_with_its_verdict_and_the_old_version_goes_on(workshop: Workshop) -> None:
    garage = workshop.garage
    before = {task_id: garage.studio.words(task_id) for task_id in workshop.ids[LABELLED:]}
    workshop.spoil()
    report = garage.settle()
    assert (report.version, report.refitted) == ("carcond-0001", False)
    assert "carcond-0002: worse, " in report.refused
    gate = workshop.registry.card(2)["gate"]
    assert not gate["accepted"]
    assert gate["tasks"]["damage"]["macro_f1"]["difference"] < -0.3
    assert garage.studio.model_version == "carcond-0001"
    assert {task_id: garage.studio.words(task_id) for task_id in before} == before
    assert (workshop.registry.root / "versions" / "0002" / "report.html").is_file()


def test_a_refused_candidate_is_not_fitted_again_for_the_same_labels(workshop: Workshop) -> None:
    workshop.spoil()
    workshop.garage.settle()
    workshop.garage.studio.writes.clear()
    for _ in range(2):
        assert workshop.garage.settle().version == "carcond-0001"
    assert workshop.registry.numbers() == [1, 2]
    assert workshop.garage.studio.writes == []


def test_the_pool_goes_on_being_served_after_a_refusal(workshop: Workshop) -> None:
    workshop.spoil()
    workshop.label_one()
    workshop.garage.settle()
    assert workshop.garage.studio.served()
    (added,) = workshop.garage.add_photos(1)
    workshop.garage.settle()
    assert workshop.garage.studio.prediction(added).model_version == "carcond-0001"


def test_a_candidate_on_mended_labels_serves_again(workshop: Workshop) -> None:
    workshop.spoil()
    workshop.garage.settle()
    for task_id, annotation in workshop.annotations.items():
        workshop.garage.studio.change_annotation(task_id, annotation, **workshop.garage.truth[task_id])
    workshop.label_one()
    assert workshop.garage.settle().version == "carcond-0003"
    assert workshop.registry.card(3)["parent"] == "carcond-0001"


def test_with_too_few_holdout_labels_a_candidate_serves_untested(workshop: Workshop) -> None:
    settings = workshop.garage.services.settings
    workshop.garage.services.settings = settings.model_copy(update={"gate_min_photos": 20})
    workshop.spoil()
    assert workshop.garage.turn().version == "carcond-0002"
    assert "too few hold-out labels" in workshop.registry.card(2)["gate"]["reason"]


def test_a_task_that_the_label_config_dropped_does_not_stop_a_candidate(workshop: Workshop) -> None:
    workshop.garage.studio.label_config = (
        '<View><Image name="image" value="$image"/><Choices name="damage" toName="image">'
        '<Choice value="intact"/><Choice value="damaged"/></Choices></View>'
    )
    workshop.label_one()
    assert workshop.garage.turn().version == "carcond-0002"
    assert set(workshop.registry.card(2)["gate"]["tasks"]) == {"damage"}


def test_a_candidate_without_a_task_that_is_asked_for_is_refused(workshop: Workshop) -> None:
    for task_id, annotation in workshop.annotations.items():
        damage = workshop.garage.truth[task_id]["damage"]
        workshop.garage.studio.change_annotation(task_id, annotation, damage=damage)
    report = workshop.garage.turn()
    assert report.version == "carcond-0001"
    assert "it cannot tell cleanliness, which carcond-0001 can" in report.refused


def test_photos_that_the_serving_version_was_fitted_on_do_not_count(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store was lost, and its split with it."""
    labels = workshop.registry.labels(1)
    held = [row["task"] for row in labels if row["side"] == HOLDOUT]
    known = [row | {"side": TRAIN if row["task"] == held[0] else row["side"]} for row in labels]
    monkeypatch.setattr(Registry, "labels", lambda *_: known)
    workshop.label_one()
    workshop.garage.turn()
    assert workshop.registry.card(2)["gate"]["tasks"]["damage"]["photos"] == len(held) - 1


def test_broken_labels_of_the_serving_version_do_not_stop_the_turn(workshop: Workshop) -> None:
    (workshop.registry.root / "versions" / "0001" / "labels.jsonl.gz").write_bytes(b"broken")
    workshop.label_one()
    assert workshop.garage.turn().version == "carcond-0002"


def test_a_candidate_worse_than_the_version_of_half_its_labels_is_refused_though_not_worse_than_the_serving_one(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    workshop.label_one()
    workshop.garage.settle()

    def worse_than_the_first(_: Any, serving: ModelOnHoldout, *__: Any, **___: Any) -> Verdict:
        worse = serving.name == "carcond-0001"
        return Verdict(not worse, "worse, for the test" if worse else "not found worse", serving.name)

    monkeypatch.setattr("backend.loop.refit.evaluate_candidate", worse_than_the_first)
    monkeypatch.setattr("backend.loop.refit.find_baseline", lambda registry, _: registry.load(1))
    workshop.garage.label(workshop.ids[-1])
    assert workshop.garage.turn().version == "carcond-0002"
    gate = workshop.registry.card(3)["gate"]
    assert (gate["accepted"], gate["against"]) == (False, "carcond-0001")


# Rolling back


def test_a_rollback_is_published_and_survives_turns_with_the_same_labels(workshop: Workshop) -> None:
    workshop.label_one()
    workshop.garage.settle()
    workshop.registry.promote(1, "anna", "calls wet cars dirty", "rollback")
    for _ in range(2):
        assert workshop.garage.settle().version == "carcond-0001"
    assert workshop.garage.studio.model_version == "carcond-0001"
    assert workshop.registry.numbers() == [1, 2]
    waiting = [task.id for task in workshop.garage.studio.tasks(PROJECT) if not task.annotations]
    assert {workshop.garage.studio.prediction(task_id).model_version for task_id in waiting} == {"carcond-0001"}


def test_after_a_rollback_new_labels_make_a_candidate_that_is_compared_with_what_serves(workshop: Workshop) -> None:
    workshop.label_one()
    workshop.garage.settle()
    workshop.registry.promote(1, "anna", "calls wet cars dirty", "rollback")
    workshop.garage.turn()
    workshop.garage.label(workshop.ids[-1])
    assert workshop.garage.turn().version == "carcond-0003"
    assert workshop.registry.card(3)["gate"]["against"] == "carcond-0001"


def test_a_rollback_while_a_candidate_is_fitted_is_not_undone(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    workshop.label_one()
    workshop.garage.settle()
    workshop.garage.label(workshop.ids[-1])
    write = Registry.write

    def write_slowly(registry: Registry, *facts: Any) -> int:
        number = write(registry, *facts)
        registry.promote(1, "anna", "calls wet cars dirty", "rollback")
        return number

    with monkeypatch.context() as patch:
        patch.setattr(Registry, "write", write_slowly)
        assert workshop.garage.turn().version == "carcond-0001"
    assert workshop.garage.turn().version == "carcond-0001"
    assert workshop.registry.numbers() == [1, 2, 3]


def test_a_refused_version_that_a_person_promotes_serves(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("backend.loop.refit.evaluate_candidate", refuse)
    workshop.label_one()
    workshop.garage.settle()
    workshop.registry.promote(2, "anna", "I looked at its answers")
    assert workshop.garage.settle().version == "carcond-0002"
    assert workshop.garage.studio.model_version == "carcond-0002"


# Killed, or out of disk


class _Killed(BaseException):
    """Stands for a SIGKILL: no handler of the loop catches it."""


def kill(*_: Any, **__: Any) -> None:
    raise _Killed


@pytest.mark.parametrize("moment", ["before the pointer", "before the record"])
def test_killed_between_writing_and_recording_the_candidate_serves_in_the_next_turn(
    moment: str, workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    workshop.label_one()
    step = "replace_text" if moment == "before the pointer" else "append_promotion"
    with monkeypatch.context() as patch:
        patch.setattr(f"carcond.registry.registry.{step}", kill)
        with pytest.raises(_Killed):
            workshop.garage.turn()
    assert workshop.garage.turn().version == "carcond-0002"
    assert workshop.serving == 2
    assert workshop.registry.numbers() == [1, 2]
    assert workshop.registry.previous().number == 1


def test_killed_before_a_refused_candidate_is_told_it_stays_refused(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("backend.loop.refit.evaluate_candidate", refuse)
        patch.setattr("backend.loop.refit.Refitter._promote", kill)
        workshop.label_one()
        with pytest.raises(_Killed):
            workshop.garage.turn()
    assert workshop.garage.turn().version == "carcond-0001"
    assert workshop.registry.numbers() == [1, 2]


def test_a_promotion_that_the_disk_refused_is_made_up_for(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise RegistryError("carcond-0002 cannot be promoted: No space left on device")

    workshop.label_one()
    with monkeypatch.context() as patch:
        patch.setattr(Registry, "promote", full)
        assert workshop.garage.turn().version == "carcond-0001"
    assert workshop.garage.turn().version == "carcond-0002"
    assert workshop.registry.numbers() == [1, 2]


def test_a_candidate_that_broke_before_it_served_is_fitted_again(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    workshop.label_one()
    with monkeypatch.context() as patch:
        patch.setattr("backend.loop.refit.Refitter._promote", kill)
        with pytest.raises(_Killed):
            workshop.garage.turn()
    os.truncate(workshop.registry.root / "versions" / "0002" / "heads.safetensors", 10)
    assert workshop.garage.turn().version == "carcond-0003"


# Another encoder


def test_versions_of_two_encoders_are_compared_on_the_same_photos(
    workshop: Workshop, make_tiny_encoder: MakeEncoder
) -> None:
    make_tiny_encoder(workshop.garage.services.settings.models_dir, 1)
    assert workshop.garage.take_over().version == "carcond-0002"
    held_out = sum(row["side"] == HOLDOUT for row in workshop.garage.rows().values())
    assert workshop.registry.card(2)["gate"]["tasks"]["damage"]["photos"] == held_out


@pytest.fixture
def refused_encoder(
    workshop: Workshop, make_tiny_encoder: MakeEncoder, monkeypatch: pytest.MonkeyPatch
) -> Callable[[], Workshop]:
    """The version on a new encoder was refused: the old encoder serves on."""
    models_dir = workshop.garage.services.settings.models_dir
    make_tiny_encoder(models_dir, 1)
    monkeypatch.setattr("backend.loop.refit.evaluate_candidate", refuse)
    assert workshop.garage.take_over().version == "carcond-0001"
    use_encoder(models_dir, "tiny-00000001")
    return lambda: workshop


def test_new_photos_are_seen_by_the_serving_encoder_when_the_new_ones_version_was_refused(
    refused_encoder: Callable[[], Workshop],
) -> None:
    garage = refused_encoder().garage
    (added,) = garage.add_photos(1)
    garage.settle()
    assert garage.studio.prediction(added).model_version == "carcond-0001"
    assert all(set(words) == {"cleanliness", "damage"} for words in garage.words(added))


def test_a_serving_encoder_that_is_gone_does_not_stop_the_turn(
    refused_encoder: Callable[[], Workshop], caplog: pytest.LogCaptureFixture
) -> None:
    garage = refused_encoder().garage
    shutil.rmtree(encoders_dir(garage.services.settings.models_dir) / "tiny-00000000")
    garage.services = garage.fresh_services()
    garage.services.api = garage.studio
    garage.server.answers["/data/late.jpg"] = Reply(draw_photo(999))
    garage.studio.import_photos("/data/late.jpg")
    assert garage.turn().version == "carcond-0001"
    assert "new photos cannot be seen by carcond-0001" in caplog.text
    garage.services.store.close()
    garage.services.photos.close()
