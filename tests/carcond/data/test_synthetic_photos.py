import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from carcond.data.images import hamming, perceptual_hash
from carcond.data.synthetic_photos import draw_picture, draw_samples
from carcond.model.encoder import Encoder, find_encoder
from carcond.taxonomy import CLEANLINESS, DAMAGE


def read_labels(directory: Path) -> list[dict[str, str]]:
    with (directory / "labels.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_samples_are_rgb_jpegs_of_640x480(tmp_path: Path) -> None:
    for path in draw_samples(tmp_path / "new" / "folder", 2, seed=0):
        with Image.open(path) as image:
            assert (image.format, image.mode, image.size) == ("JPEG", "RGB", (640, 480))


def test_the_same_seed_draws_the_same_pictures_and_a_larger_count_adds_to_them(tmp_path: Path) -> None:
    two, three = draw_samples(tmp_path / "a", 2, seed=7), draw_samples(tmp_path / "b", 3, seed=7)
    assert [path.read_bytes() for path in two] == [path.read_bytes() for path in three[:2]]


def test_another_seed_draws_other_pictures(tmp_path: Path) -> None:
    (first,), (second,) = draw_samples(tmp_path / "a", 1, seed=0), draw_samples(tmp_path / "b", 1, seed=1)
    assert first.read_bytes() != second.read_bytes()


def test_labels_are_written_only_when_asked_for_and_name_every_file(tmp_path: Path) -> None:
    paths = draw_samples(tmp_path, 3, seed=0)
    assert not (tmp_path / "labels.csv").exists()
    assert draw_samples(tmp_path, 3, seed=0, labels=True) == paths
    rows = read_labels(tmp_path)
    assert [tmp_path / row["file"] for row in rows] == paths
    assert all(row["damage"] in DAMAGE.class_keys and row["cleanliness"] in CLEANLINESS.class_keys for row in rows)


def test_file_names_tell_no_label(tmp_path: Path) -> None:
    assert [path.name for path in draw_samples(tmp_path, 2, seed=0)] == ["car_0000.jpg", "car_0001.jpg"]


def test_no_samples_make_an_empty_list(tmp_path: Path) -> None:
    assert draw_samples(tmp_path, 0, seed=0, labels=True) == []
    assert read_labels(tmp_path) == []


@pytest.mark.parametrize(
    ("damage", "cleanliness"), [("damaged", "clean"), ("intact", "slightly_dirty"), ("intact", "very_dirty")]
)
def test_damage_and_dirt_change_the_picture_of_the_same_car(damage: str, cleanliness: str) -> None:
    plain = draw_picture(np.random.default_rng(3), damage="intact", cleanliness="clean")
    changed = draw_picture(np.random.default_rng(3), damage=damage, cleanliness=cleanliness)
    assert np.abs(np.asarray(plain, float) - np.asarray(changed, float)).mean() > 1


def test_samples_are_no_near_duplicates_of_each_other(tmp_path: Path) -> None:
    hashes = []
    for path in draw_samples(tmp_path, 8, seed=0):
        with Image.open(path) as image:
            hashes.append(perceptual_hash(image))
    assert min(hamming(a, b) for i, a in enumerate(hashes) for b in hashes[:i]) > 4


@pytest.mark.slow
def test_a_model_learns_both_tasks_from_samples(tmp_path: Path, lite0_models_dir: Path) -> None:
    encoder = Encoder.load(find_encoder(lite0_models_dir))
    paths = draw_samples(tmp_path, 120, seed=0, labels=True)
    embeddings = np.stack([encoder.embed_photo(path.read_bytes(), max_pixels=10**6) for path in paths])
    for task, better_than in ((DAMAGE, 0.7), (CLEANLINESS, 0.6)):
        classes = [row[task.key] for row in read_labels(tmp_path)]
        model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=2000))
        model.fit(embeddings[:80], classes[:80])
        assert model.score(embeddings[80:], classes[80:]) > better_than
