import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from backend.loop.encoder_trial import candidate_encoder, labels_learnt, trial, tuning_of
from carcond.evaluation.gate import Verdict
from carcond.model.encoder import encoder_directory, encoders_dir, use_encoder
from carcond.model.encoder_card import Tuning, read_card
from carcond.model.head_fitting import fit_heads
from tests.backend.fake_label_studio import PROJECT
from tests.backend.garage import Garage
from tests.conftest import MakeEncoder

BASE, TUNED, OTHER = "tiny-00000000", "tiny-00000001", "tiny-00000002"

Trained = tuple[Garage, list[int]]


def accept(*_: Any, **__: Any) -> Verdict:
    return Verdict(True, "accepted, for the test", "carcond-0001")


def refuse(*_: Any, **__: Any) -> Verdict:
    return Verdict(False, "worse, for the test", "carcond-0001")


@pytest.fixture
def tuned(trained: Trained, models_dir: Path, make_tiny_encoder: MakeEncoder) -> Garage:
    """A garage for whose project an encoder was fine-tuned; the old one stays in use for all projects."""
    garage, ids = trained
    make_tiny_encoder(models_dir, 1)
    belong(models_dir, TUNED, tuple(ids[:6]))
    use_encoder(models_dir, BASE)
    return garage


def belong(models_dir: Path, encoder_id: str, trained_on: tuple[int, ...] = (), project: int = PROJECT) -> None:
    path = encoder_directory(models_dir, encoder_id) / "encoder.json"
    tuning = Tuning(project=project, base=BASE, trained_on=trained_on, labels=12)
    path.write_text(read_card(path.parent).model_copy(update={"tuning": tuning}).model_dump_json())


def candidate(garage: Garage) -> str:
    return candidate_encoder(garage.services, PROJECT, garage.services.registry(PROJECT).current())


def serving_encoder(garage: Garage) -> str:
    version = garage.services.registry(PROJECT).current()
    assert version
    return version.heads.encoder_id


def test_an_encoder_fine_tuned_on_a_project_is_its_candidate_and_no_others(tuned: Garage, models_dir: Path) -> None:
    assert candidate(tuned) == TUNED
    belong(models_dir, TUNED, project=PROJECT + 1)
    assert candidate(tuned) == ""


def test_before_the_first_version_nothing_is_tried(tuned: Garage) -> None:
    assert candidate_encoder(tuned.services, PROJECT, None) == ""


def test_an_accepted_encoder_is_built_on_and_its_base_is_no_candidate(
    tuned: Garage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("backend.loop.refit.evaluate_candidate", accept)
    assert tuned.take_over().version == "carcond-0002"
    assert serving_encoder(tuned) == TUNED
    assert candidate(tuned) == ""
    assert trial(tuned.services, PROJECT, TUNED)["verdict"] == "accepted"


def test_a_refused_encoder_is_recorded_and_the_old_one_goes_on_learning(
    tuned: Garage, monkeypatch: pytest.MonkeyPatch
) -> None:
    tuned.show_pool(tuned.turn().candidate)
    tuned.label(next(i for i in tuned.truth if i not in tuned.rows() and i not in tuned.drawn()))
    verdicts = iter([refuse(), accept()])
    monkeypatch.setattr("backend.loop.refit.evaluate_candidate", lambda *_, **__: next(verdicts))
    report = tuned.settle()
    # The label that came meanwhile is learnt on the old encoder, in the same turn.
    assert (report.version, report.refused) == ("carcond-0003", "carcond-0002: worse, for the test")
    assert serving_encoder(tuned) == BASE
    assert trial(tuned.services, PROJECT, TUNED) == {
        "encoder_id": TUNED,
        "verdict": "refused",
        "version": "carcond-0002",
        "reason": "worse, for the test",
        "photos_left": 0,
    }
    assert tuned.turn().candidate == ""  # one trial is all it gets


def test_a_version_that_was_written_and_never_served_is_tried_again(
    tuned: Garage, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        """Nothing catches it."""

    def kill(*_: Any) -> None:
        raise Killed

    monkeypatch.setattr("backend.loop.refit.evaluate_candidate", accept)
    tuned.show_pool(tuned.turn().candidate)
    with monkeypatch.context() as patch:
        patch.setattr("backend.loop.refit.Refitter._promote", kill)
        with pytest.raises(Killed):
            tuned.turn()
    assert candidate(tuned) == TUNED
    assert tuned.turn().version == "carcond-0002"  # the one that was written, not another


def test_after_a_rollback_the_old_encoder_sees_what_comes_and_the_new_one_is_not_tried_again(
    tuned: Garage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("backend.loop.refit.evaluate_candidate", accept)
    tuned.take_over()
    (missed,) = tuned.add_photos(1)
    tuned.settle()
    tuned.services.registry(PROJECT).promote(1, "anna", "wet cars", "rollback")
    (added,) = tuned.add_photos(1)
    report = tuned.settle()
    assert (report.version, report.candidate, serving_encoder(tuned)) == ("carcond-0001", "", BASE)
    for task_id in (missed, added):
        assert tuned.studio.prediction(task_id).model_version == "carcond-0001"
        assert all(set(words) == {"cleanliness", "damage"} for words in tuned.words(task_id))


def test_another_encoder_for_all_projects_is_tried_once(
    tuned: Garage, models_dir: Path, make_tiny_encoder: MakeEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("backend.loop.refit.evaluate_candidate", accept)
    tuned.take_over()
    make_tiny_encoder(models_dir, 2)
    assert candidate(tuned) == OTHER
    tuned.take_over()
    assert serving_encoder(tuned) == OTHER
    assert candidate(tuned) == ""


@pytest.mark.parametrize(("verdict", "serves"), [(accept, OTHER), (refuse, BASE)])
def test_an_encoder_with_more_views_takes_over_a_project_or_not_by_its_trial(
    trained: Trained,
    models_dir: Path,
    make_tiny_encoder: MakeEncoder,
    monkeypatch: pytest.MonkeyPatch,
    verdict: Callable[..., Verdict],
    serves: str,
) -> None:
    garage, ids = trained
    make_tiny_encoder(models_dir, 2, views=(32, 64))  # as `carcond encoder` does after CARCOND_VIEWS has changed
    assert candidate(garage) == OTHER
    assert trial(garage.services, PROJECT, OTHER)["photos_left"] == len(ids)
    monkeypatch.setattr("backend.loop.refit.evaluate_candidate", verdict)
    garage.take_over()
    assert serving_encoder(garage) == serves
    assert candidate(garage) == ""  # one trial is all it gets
    added = garage.add_photos(5)
    report = garage.settle()
    assert {garage.studio.prediction(each).model_version for each in added} == {report.version}
    ordinary = next(each for each in added if not garage.opens_blank(each))
    assert set(garage.studio.words(ordinary)) == {"cleanliness", "damage"}


def test_the_temperature_is_chosen_on_photos_that_the_encoder_does_not_know(
    tuned: Garage, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen: list[tuple[int, int]] = []

    def spy(encoder_id: str, embeddings: Any, classes: Any, **more: Any) -> Any:
        chosen.append((len(embeddings), int(more["fresh"].sum())))
        return fit_heads(encoder_id, embeddings, classes, **more)

    monkeypatch.setattr("backend.loop.refit.fit_heads", spy)
    tuned.take_over()
    ((count, fresh),) = chosen
    sides = {task_id: row["side"] for task_id, row in tuned.rows().items()}
    known = [i for i in tuning_ids(tuned) if sides[i] == "train"]
    assert (count, fresh) == (list(sides.values()).count("train"), count - len(known))


def tuning_ids(garage: Garage) -> tuple[int, ...]:
    tuning = tuning_of(garage.services, PROJECT, TUNED)
    assert tuning
    return tuning.trained_on


def test_labels_of_the_last_fine_tuning_are_known(tuned: Garage) -> None:
    assert labels_learnt(tuned.services, PROJECT) == 12
    assert labels_learnt(tuned.services, PROJECT + 1) == 0


def test_an_encoder_that_is_gone_has_no_tuning(tuned: Garage, models_dir: Path) -> None:
    shutil.rmtree(encoders_dir(models_dir) / TUNED)
    assert tuning_of(tuned.services, PROJECT, TUNED) is None
    assert candidate(tuned) == ""
