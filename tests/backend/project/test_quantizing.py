"""Quantizing the encoder of a project, by the real ONNX Runtime, on photos of a real web server."""

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from backend.loop.encoder_trial import candidate_encoder, quantized_encoders, trial, tuned_encoders
from backend.project.quantizing import CALIBRATION_PHOTOS, quantize_encoder
from backend.services import Services, get_services
from carcond.arrays import FloatArray
from carcond.errors import EncoderError
from carcond.evaluation.quantization_gate import compare_encoders
from carcond.model.encoder import Encoder, encoder_directory, encoders_dir, find_encoder
from carcond.model.encoder_card import EncoderCard, EncoderComparison, Tuning, read_card
from tests.backend.conftest import MakeSettings
from tests.backend.fake_label_studio import PROJECT
from tests.backend.garage import Garage
from tests.backend.http_server import HttpServer, Reply

BASE = "tiny-00000000"


@pytest.fixture
def services(server: HttpServer, make_settings: MakeSettings) -> Iterator[Services]:
    make_settings(LABEL_STUDIO_URL=server.url, CARCOND_GATE_MIN_PHOTOS="4")
    made = get_services()
    yield made
    made.store.close()
    made.photos.close()


@pytest.fixture
def large(garage: Garage) -> Garage:
    """A project of enough photos, of which the sampled ones and twenty others are labelled."""
    ids = garage.add_photos(200)
    garage.label(*ids[:20])
    garage.settle()
    garage.label(*sorted(garage.drawn() - set(ids[:20])))
    garage.settle()
    return garage


@pytest.fixture
def faster(monkeypatch: pytest.MonkeyPatch) -> None:
    """A network of two small convolutions gains nothing: only its times are made up."""

    def compare(*arguments: Any) -> EncoderComparison:
        return compare_encoders(*arguments).model_copy(update={"base_ms": 2.0, "ms": 1.0})

    monkeypatch.setattr("backend.project.quantizing.compare_encoders", compare)


def quantize(garage: Garage) -> EncoderCard:
    return quantize_encoder(garage.services, PROJECT, lambda _: None)


def candidate(garage: Garage) -> str:
    return candidate_encoder(garage.services, PROJECT, garage.services.registry(PROJECT).current())


def serving_encoder(garage: Garage) -> str:
    version = garage.services.registry(PROJECT).current()
    assert version
    return version.heads.encoder_id


@pytest.mark.usefixtures("faster")
def test_an_accepted_one_is_kept_with_its_comparison_and_takes_over_by_its_trial(large: Garage) -> None:
    serving = large.services.registry(PROJECT).current()
    card = quantize(large)
    models_dir = large.services.settings.models_dir
    assert read_card(encoder_directory(models_dir, card.encoder_id)) == card
    made = card.quantization
    assert made
    assert serving
    assert (made.project, made.base, made.version) == (PROJECT, BASE, serving.name)
    assert made.calibration_photos == CALIBRATION_PHOTOS
    assert {key: task.photos for key, task in made.comparison.tasks.items()} == {"cleanliness": 136, "damage": 136}
    assert all(task.agreement >= 0.99 for task in made.comparison.tasks.values())
    assert find_encoder(models_dir).name == BASE  # other projects go on with theirs
    assert candidate(large) == card.encoder_id
    assert large.take_over().version != serving.name
    assert serving_encoder(large) == card.encoder_id
    assert trial(large.services, PROJECT, card.encoder_id)["verdict"] == "accepted"
    assert candidate(large) == ""  # neither the one that it was made from
    with pytest.raises(EncoderError, match="is quantized already"):
        quantize(large)


@pytest.mark.usefixtures("faster")
def test_after_a_rollback_it_is_not_tried_again(large: Garage) -> None:
    quantize(large)
    before = large.services.registry(PROJECT).current()
    assert before
    large.take_over()
    large.services.registry(PROJECT).promote(before.number, "anna", "slower here", "rollback")
    assert (large.turn().candidate, serving_encoder(large)) == ("", BASE)
    with pytest.raises(EncoderError, match="it was made before"):
        quantize(large)


@pytest.mark.usefixtures("faster")
def test_a_fine_tuned_one_stays_fine_tuned_and_its_copy_is_a_candidate(large: Garage) -> None:
    models_dir = large.services.settings.models_dir
    path = encoder_directory(models_dir, BASE) / "encoder.json"
    tuning = Tuning(project=PROJECT, base="tiny-00000009", trained_on=(1, 2), labels=12)
    path.write_text(read_card(path.parent).model_copy(update={"tuning": tuning}).model_dump_json())
    large.services = large.fresh_services()
    card = quantize(large)
    assert card.tuning == tuning
    assert [each.encoder_id for each in tuned_encoders(large.services, PROJECT)] == [BASE]
    assert [each.encoder_id for each in quantized_encoders(large.services, PROJECT)] == [card.encoder_id]
    assert candidate(large) == card.encoder_id


@pytest.mark.usefixtures("faster")
def test_one_with_other_answers_is_refused_with_numbers_and_nothing_is_kept(
    large: Garage, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrong(pixels: FloatArray) -> Iterator[FloatArray]:
        yield np.asarray(pixels[:8] / 1000)

    monkeypatch.setattr("backend.project.quantizing._batches", wrong)
    told: list[str] = []
    with pytest.raises(EncoderError, match=r"no quantization of tiny-00000000 .* of 136 photos keep their class"):
        quantize_encoder(large.services, PROJECT, told.append)
    assert sum(line.startswith("refused") for line in told) == 2  # with all convolutions in int8, and with one
    assert quantized_encoders(large.services, PROJECT) == []
    assert [each.name for each in encoders_dir(large.services.settings.models_dir).glob("*/")] == [BASE]
    assert candidate(large) == ""


def test_too_few_photos_are_not_compared(trained: tuple[Garage, list[int]]) -> None:
    garage, _ = trained
    garage.label(*sorted(garage.drawn()))
    garage.settle()
    with pytest.raises(EncoderError, match=r"expected at least (4 hold-out labels|100 photos)"):
        quantize(garage)


def test_photos_that_are_gone_meanwhile_do_not_count(large: Garage) -> None:
    for path in list(large.server.answers)[60:]:
        large.server.answers[path] = Reply(b"", status=404)
    with pytest.raises(EncoderError, match=r"expected at least (4 hold-out labels|100 photos)"):
        quantize(large)


def test_without_a_version_nothing_can_be_compared(garage: Garage) -> None:
    garage.add_photos(5)
    garage.turn()
    with pytest.raises(EncoderError, match="no version whose answers could be compared"):
        quantize(garage)


def test_a_card_from_before_is_of_no_quantization(large: Garage) -> None:
    directory = encoder_directory(large.services.settings.models_dir, BASE)
    card = json.loads((directory / "encoder.json").read_text())
    del card["quantization"]
    (directory / "encoder.json").write_text(json.dumps(card))
    assert read_card(directory).quantization is None


@pytest.mark.usefixtures("faster")
def test_a_damaged_file_is_not_run(large: Garage) -> None:
    card = quantize(large)
    directory = encoder_directory(large.services.settings.models_dir, card.encoder_id)
    (directory / "encoder.onnx").write_bytes((directory / "encoder.onnx").read_bytes()[:-1])
    with pytest.raises(EncoderError, match="is damaged"):
        Encoder.load(directory)
