import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image

from carcond.data.images import to_pixels
from carcond.errors import UnreadableImageError
from carcond.model.damage_box import suspected_box
from carcond.model.encoder import Encoder
from carcond.model.explain import Explanation, activation_map, explain, explain_photo
from carcond.model.head_fitting import fit_heads
from carcond.model.heads import Heads
from carcond.taxonomy import TASKS
from tests.conftest import TINY_DIMENSION

LIMIT = 10_000_000


@pytest.fixture(scope="module")
def encoder(tiny_encoder_dir: Path) -> Encoder:
    return Encoder.load(tiny_encoder_dir, threads=1)


@pytest.fixture(scope="module")
def heads(encoder: Encoder) -> Heads:
    embeddings = np.random.default_rng(0).normal(size=(60, TINY_DIMENSION)).astype(np.float32)
    classes = {
        "cleanliness": np.digitize(embeddings[:, 0], [-0.5, 0.5]).astype(np.int64),
        "damage": (embeddings[:, 1] > 0).astype(np.int64),
    }
    return fit_heads(encoder.encoder_id, embeddings, classes)


def photo_bytes(size: tuple[int, int] = (90, 60), orientation: int = 1) -> bytes:
    pixels = np.random.default_rng(1).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", exif=exif)
    return file.getvalue()


def test_the_mean_of_a_map_plus_the_bias_is_the_logit_of_its_class(encoder: Encoder, heads: Heads) -> None:
    pixels = np.random.default_rng(2).normal(size=(3, 3, 64, 64)).astype(np.float32)
    encoding = encoder.encode(pixels)
    for head in heads.by_task.values():
        logits = head.logits(encoding.embeddings)
        for photo, feature_map in enumerate(encoding.feature_maps):
            for k in range(len(head.task.classes)):
                activation = activation_map(head, feature_map, k)
                assert activation.shape == encoder.map_shape
                assert activation.mean() + head.bias[k] == pytest.approx(logits[photo, k], rel=1e-4, abs=1e-4)


def test_a_map_is_the_slow_sum_over_channels(heads: Heads) -> None:
    head = heads.by_task["cleanliness"]
    feature_map = np.random.default_rng(3).normal(size=(TINY_DIMENSION, 2, 3)).astype(np.float32)
    activation = activation_map(head, feature_map, 2)
    for row in range(2):
        for column in range(3):
            slow = sum(float(head.weight[2, d]) * float(feature_map[d, row, column]) for d in range(TINY_DIMENSION))
            assert activation[row, column] == pytest.approx(slow, rel=1e-4, abs=1e-4)


def test_an_explanation_answers_what_the_heads_answer(encoder: Encoder, heads: Heads) -> None:
    explanation = explain_photo(photo_bytes(), encoder, heads, LIMIT)
    expected = heads.probabilities(encoder.embed_photo(photo_bytes(), LIMIT)[np.newaxis])
    assert list(explanation.answers) == [task.key for task in TASKS]
    for key, answer in explanation.answers.items():
        assert answer.probabilities == pytest.approx(expected[key][0], abs=1e-4)
        assert answer.condition == answer.task.classes[int(expected[key][0].argmax())]
        assert answer.confidence == pytest.approx(expected[key][0].max(), abs=1e-4)


def test_a_task_without_a_head_is_missing_in_answers_and_picture(encoder: Encoder, heads: Heads) -> None:
    one = Heads(heads.encoder_id, {"damage": heads.by_task["damage"]})
    explanation = explain_photo(photo_bytes(), encoder, one, LIMIT)
    both = explain_photo(photo_bytes(), encoder, heads, LIMIT)
    assert list(explanation.answers) == ["damage"]
    assert explanation.picture.size == explanation.overlay("damage").size
    assert both.picture.width == 2 * explanation.picture.width


def test_a_caption_tells_task_class_and_percentage(encoder: Encoder, heads: Heads) -> None:
    answer = explain_photo(photo_bytes(), encoder, heads, LIMIT).answers["damage"]
    assert answer.caption == f"Damage: {answer.condition.en} {100 * answer.confidence:.0f} %"


def test_a_kept_feature_map_explains_as_the_photo_does(encoder: Encoder, heads: Heads) -> None:
    explanation = explain_photo(photo_bytes(), encoder, heads, LIMIT)
    feature_map = encoder.encode(to_pixels(explanation.photo, encoder.spec)[np.newaxis]).feature_maps[0]
    again = explain(explanation.photo, feature_map, heads)
    assert again.picture.tobytes() == explanation.picture.tobytes()


def test_a_photo_that_was_held_upright_is_shown_upright(encoder: Encoder, heads: Heads) -> None:
    lying, upright = (explain_photo(photo_bytes(orientation=o), encoder, heads, LIMIT) for o in (1, 6))
    assert lying.photo.size == (90, 60)
    assert upright.photo.size == (60, 90)
    assert upright.overlay("damage").height > lying.overlay("damage").height


def test_bytes_that_are_no_photo_are_refused(encoder: Encoder, heads: Heads) -> None:
    with pytest.raises(UnreadableImageError):
        explain_photo(b"no photo", encoder, heads, LIMIT)


def test_damage_is_suspected_where_the_map_says_and_only_when_it_is_predicted(encoder: Encoder, heads: Heads) -> None:
    explanation = explain_photo(photo_bytes(), encoder, heads, LIMIT)
    evidence = np.full((4, 4), -1, np.float32)
    evidence[1, 2] = 3
    answers = [
        replace(explanation.answers["damage"], class_index=k, activation=evidence - np.float32(0.5), bias=0.5)
        for k in (0, 1)
    ]
    intact, damaged = (Explanation(explanation.photo, {"damage": answer}) for answer in answers)
    assert intact.suspected_damage is None
    assert damaged.suspected_damage == suspected_box(evidence) is not None
    assert Explanation(explanation.photo, {}).suspected_damage is None
