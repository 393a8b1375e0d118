from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from carcond.data.images import decode_photo, measure_image, to_pixels
from carcond.data.photo_checks import Fault, Remark
from carcond.errors import EncoderError, UnreadableImageError
from carcond.model.car_detector import CLASS_COUNT, CarHead
from carcond.model.encoder import Encoder, find_encoder
from carcond.model.heads import Head, Heads
from carcond.model.inference import SURE, TaskCondition, combine, read_condition
from carcond.taxonomy import CLEANLINESS, DAMAGE, TASKS
from tests.carcond.conditions import FINE, photo_condition

LIMIT = 60_000_000
DARK = replace(FINE, brightness=0.05)


@pytest.fixture(scope="module")
def encoder(tiny_encoder_dir: Path) -> Encoder:
    return Encoder.load(tiny_encoder_dir, threads=1)


@pytest.fixture(scope="module")
def heads(encoder: Encoder) -> Heads:
    rng = np.random.default_rng(0)
    by_task = {}
    for task in TASKS:
        weight = rng.normal(size=(len(task.classes), encoder.dimension)).astype(np.float32)
        by_task[task.key] = Head(task, weight, np.zeros(len(task.classes), np.float32), 2.0, True)
    return Heads(encoder.encoder_id, by_task)


def test_a_photo_is_seen_by_encoder_and_heads(drawn_cars: list[bytes], encoder: Encoder, heads: Heads) -> None:
    seen = read_condition(drawn_cars[0], encoder, heads, "carcond-0007", LIMIT)
    image = decode_photo(drawn_cars[0], target=64, max_pixels=LIMIT)
    encoding = encoder.encode(to_pixels(image, encoder.spec)[np.newaxis])
    assert seen.photo == image
    np.testing.assert_array_equal(seen.feature_map, encoding.feature_maps[0])
    assert seen.version == "carcond-0007"
    assert seen.checks.stats == measure_image(drawn_cars[0], image)
    assert seen.checks.car_probability is None
    for key, probabilities in heads.probabilities(encoding.embeddings).items():
        condition = seen.by_task[key]
        np.testing.assert_array_equal(condition.probabilities, probabilities[0])
        assert condition.confidence == probabilities[0].max()
        assert condition.status == condition.task.class_keys[probabilities[0].argmax()]


def test_an_encoder_that_knows_cars_is_asked(drawn_cars: list[bytes], encoder: Encoder, heads: Heads) -> None:
    head = CarHead(np.zeros((CLASS_COUNT, encoder.dimension), np.float32), np.zeros(CLASS_COUNT, np.float32), (1, 2))
    knowing = Encoder(encoder._session, encoder.card, head)
    seen = read_condition(drawn_cars[0], knowing, heads, "carcond-0007", LIMIT)
    assert seen.checks.car_probability == pytest.approx(0.002)
    assert seen.checks.faults == (Fault.NOT_A_CAR,)


def test_heads_of_another_encoder_are_refused(drawn_cars: list[bytes], encoder: Encoder, heads: Heads) -> None:
    with pytest.raises(EncoderError, match="carcond-0007 was fitted on the encoder other-1, got tiny-00000000"):
        read_condition(drawn_cars[0], encoder, replace(heads, encoder_id="other-1"), "carcond-0007", LIMIT)


def test_bytes_that_are_no_photo_are_an_error(encoder: Encoder, heads: Heads) -> None:
    with pytest.raises(UnreadableImageError):
        read_condition(b"no photo", encoder, heads, "carcond-0007", LIMIT)


def test_an_answer_is_sure_from_its_limit_on() -> None:
    assert TaskCondition(DAMAGE, np.array([SURE, 1 - SURE], np.float32)).is_sure
    assert not TaskCondition(DAMAGE, np.array([SURE - 0.01, 1.01 - SURE], np.float32)).is_sure


def test_one_photo_is_its_own_condition() -> None:
    photo = photo_condition()
    assert combine([photo]).by_task == photo.by_task


def test_damage_on_one_photo_is_damage_of_the_car() -> None:
    intact, damaged = photo_condition(damage=(0.99, 0.01)), photo_condition(damage=(0.2, 0.8))
    for photos in ([intact, damaged, intact], [damaged, intact, intact]):
        damage = combine(photos).by_task["damage"]
        assert damage.status == "damaged"
        assert damage.confidence == pytest.approx(0.8)


def test_a_car_is_as_surely_intact_as_its_worst_photo() -> None:
    photos = [photo_condition(damage=(p, 1 - p)) for p in (0.99, 0.6, 0.9)]
    damage = combine(photos).by_task["damage"]
    assert damage.status == "intact"
    assert damage.confidence == pytest.approx(0.6)


def test_cleanliness_is_the_geometric_mean_of_the_photos() -> None:
    first, second = (0.7, 0.2, 0.1), (0.2, 0.5, 0.3)
    combined = combine([photo_condition(cleanliness=first), photo_condition(cleanliness=second)])
    mean = np.sqrt(np.array(first) * np.array(second))
    np.testing.assert_allclose(combined.by_task["cleanliness"].probabilities, mean / mean.sum(), rtol=1e-5)


def test_the_same_photo_twice_makes_no_surer() -> None:
    once, twice = combine([photo_condition()]), combine([photo_condition(), photo_condition()])
    for key in ("cleanliness", "damage"):
        np.testing.assert_allclose(twice.by_task[key].probabilities, once.by_task[key].probabilities, rtol=1e-5)


def test_a_class_of_probability_zero_can_still_win() -> None:
    photos = [photo_condition(cleanliness=(1.0, 0.0, 0.0)), photo_condition(cleanliness=(0.0, 1.0, 0.0))]
    probabilities = combine(photos).by_task["cleanliness"].probabilities
    assert np.isfinite(probabilities).all()
    np.testing.assert_allclose(probabilities, [0.5, 0.5, 0.0], atol=1e-2)


def test_photos_with_a_fault_are_left_out() -> None:
    dark = photo_condition(damage=(0.0, 1.0), stats=DARK)
    combined = combine([dark, photo_condition(damage=(0.9, 0.1))])
    assert combined.by_task["damage"].status == "intact"
    assert combined.faults == ()
    assert len(combined.photos) == 2


def test_a_car_without_a_fit_photo_has_faults_and_no_condition() -> None:
    combined = combine([photo_condition(car_probability=0.0), photo_condition(stats=DARK)])
    assert combined.by_task == {}
    assert combined.faults == (Fault.TOO_DARK, Fault.NOT_A_CAR)


def test_a_task_without_a_head_is_absent() -> None:
    assert set(combine([photo_condition(damage=None)] * 2).by_task) == {"cleanliness"}


def test_what_is_seen_on_one_side_is_named_by_the_taxonomy() -> None:
    assert DAMAGE.on_one_side
    assert not CLEANLINESS.on_one_side


@pytest.mark.slow
def test_a_pretrained_encoder_tells_a_drawn_car_from_noise(lite0_models_dir: Path, drawn_cars: list[bytes]) -> None:
    encoder = Encoder.load(find_encoder(lite0_models_dir))
    weight = np.zeros((2, encoder.dimension), np.float32)
    heads = Heads(encoder.encoder_id, {"damage": Head(DAMAGE, weight, np.zeros(2, np.float32), 1.0, True)})
    seen = read_condition(drawn_cars[0], encoder, heads, "carcond-0001", LIMIT)
    assert seen.checks.faults == ()
    assert (seen.checks.car_probability or 0) > 0.1


def test_a_small_photo_is_judged_with_a_remark_and_one_with_a_fault_leaves_none() -> None:
    small = replace(FINE, width=200)
    combined = combine([photo_condition(), photo_condition(stats=small)])
    assert (combined.faults, combined.remarks) == ((), (Remark.SMALL,))
    assert set(combined.by_task) == {"cleanliness", "damage"}
    assert combine([photo_condition(), photo_condition(stats=replace(small, brightness=0.0))]).remarks == ()
