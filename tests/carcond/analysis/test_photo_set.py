import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from carcond.analysis.photo_set import embed_labelled, rate_folder, read_file_labels
from carcond.arrays import UNKNOWN
from carcond.data.images import perceptual_hash
from carcond.errors import LabelTableError
from carcond.model.encoder import Encoder

LIMIT = 10_000_000


def silent(done: int, total: int) -> None:
    """Tell nobody how far it is."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three photos, one of them in a folder of its own, a broken one and a text."""
    (tmp_path / "more").mkdir()
    rng = np.random.default_rng(0)
    for name, shade in (("a.png", 60), ("b.JPG", 200), ("more/c.webp", 120)):
        pixels = rng.integers(shade - 50, shade + 50, (8, 12, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((360, 240), Image.Resampling.NEAREST).save(tmp_path / name)
    (tmp_path / "broken.jpg").write_bytes(b"no photo")
    (tmp_path / "notes.txt").write_text("no photo either")
    return tmp_path


def table(folder: Path, *rows: dict[str, str]) -> Path:
    path = folder / "labels.csv"
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def export(folder: Path, *tasks: tuple[str, list[tuple[int, str]]]) -> Path:
    """A JSON export: file names, and who said which word."""

    def annotation(who: int, word: str) -> dict[str, Any]:
        return {"completed_by": who, "result": [{"type": "choices", "value": {"choices": [word]}}]}

    path = folder / "export.json"
    records = [{"data": {"image": name}, "annotations": [annotation(*each) for each in said]} for name, said in tasks]
    path.write_text(json.dumps(records))
    return path


def test_every_photo_below_the_folder_is_measured(folder: Path) -> None:
    seen: list[tuple[int, int]] = []
    photos = {photo.name: photo for photo in rate_folder(folder, {}, LIMIT, lambda *step: seen.append(step))}
    assert set(photos) == {"a.png", "b.JPG", "broken.jpg", "more/c.webp"}
    assert seen[-1] == (4, 4)
    a = photos["a.png"]
    assert a.stats is not None
    assert (a.stats.width, a.stats.height) == (360, 240)
    assert a.stats.brightness == pytest.approx(60 / 255, abs=0.05)
    assert a.phash == perceptual_hash(Image.open(folder / "a.png").convert("RGB"))
    assert photos["broken.jpg"].stats is None
    assert "got 8 bytes" in str(photos["broken.jpg"].problem)


def test_a_folder_without_photos_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(LabelTableError, match=r"expected photos \(\.bmp, .* found none"):
        rate_folder(tmp_path, {}, LIMIT, silent)


def test_labels_of_a_table_come_to_their_photos(folder: Path) -> None:
    path = table(
        folder,
        {"file": "a.png", "damage": "битый", "cleanliness": "", "group": " red "},
        {"file": "photos/more/c.webp", "damage": "intact", "cleanliness": "", "group": ""},
        {"file": "gone.png", "damage": "intact", "cleanliness": "", "group": ""},
    )
    labels = read_file_labels(path, folder)
    photos = {photo.name: photo for photo in rate_folder(folder, labels, LIMIT, silent)}
    assert photos["a.png"].classes == {"damage": "damaged"}
    assert photos["more/c.webp"].classes == {"damage": "intact"}
    assert photos["b.JPG"].classes == {}
    assert labels[folder / "a.png"].group == "red"


def test_an_export_brings_what_each_annotator_said(folder: Path) -> None:
    path = export(
        folder,
        ("/data/upload/1/0a1b2c3d-a.png", [(1, "damaged"), (2, "damaged"), (3, "intact")]),
        ("/data/upload/1/0a1b2c3d-b.JPG", [(1, "intact")]),
    )
    labels = read_file_labels(path, folder)
    a = labels[folder / "a.png"]
    assert a.classes == {"damage": "damaged"}
    assert a.opinions == {1: {"damage": "damaged"}, 2: {"damage": "damaged"}, 3: {"damage": "intact"}}
    assert labels[folder / "b.JPG"].classes == {"damage": "intact"}


def test_labels_of_other_photos_are_an_error(folder: Path) -> None:
    path = table(folder, {"file": "x.png", "damage": "damaged"}, {"file": "y.png", "damage": "intact"})
    with pytest.raises(LabelTableError, match=r"none of the 2 photos is in .*the first should be x\.png"):
        read_file_labels(path, folder)


def test_labelled_photos_that_can_be_read_are_embedded(folder: Path, tiny_encoder_dir: Path, tmp_path: Path) -> None:
    Image.open(folder / "a.png").save(folder / "copy.png")
    path = table(
        folder,
        {"file": "a.png", "damage": "damaged", "group": ""},
        {"file": "b.JPG", "damage": "intact", "group": "one car"},
        {"file": "more/c.webp", "damage": "intact", "group": "one car"},
        {"file": "copy.png", "damage": "damaged", "group": ""},
        {"file": "broken.jpg", "damage": "damaged", "group": ""},
    )
    labels = read_file_labels(path, folder)
    encoder = Encoder.load(tiny_encoder_dir, 1)
    photos = rate_folder(folder, labels, LIMIT, silent)
    seen = embed_labelled(
        photos, folder, labels, encoder, cache_dir=tmp_path / "cache", max_pixels=LIMIT, progress=silent
    )
    assert seen.names == ["a.png", "b.JPG", "copy.png", "more/c.webp"]
    np.testing.assert_allclose(
        seen.embeddings[0], encoder.embed_photo((folder / "a.png").read_bytes(), LIMIT), rtol=1e-4, atol=1e-5
    )
    assert seen.classes["damage"].tolist() == [1, 0, 1, 0]
    assert seen.classes["cleanliness"].tolist() == [UNKNOWN] * 4
    a, b, copy, c = seen.groups.tolist()
    assert a == copy
    assert b == c
    assert a != b


def test_a_labelled_photo_with_a_name_that_is_no_utf_8_is_embedded(
    folder: Path, tiny_encoder_dir: Path, tmp_path: Path
) -> None:
    (folder / "a.png").rename(folder / "\udcea.png")
    labels = read_file_labels(export(folder, ("\udcea.png", [(1, "damaged")]), ("b.JPG", [(1, "intact")])), folder)
    photos = rate_folder(folder, labels, LIMIT, silent)
    encoder = Encoder.load(tiny_encoder_dir, 1)
    seen = embed_labelled(
        photos, folder, labels, encoder, cache_dir=tmp_path / "cache", max_pixels=LIMIT, progress=silent
    )
    assert (seen.names, seen.classes["damage"].tolist()) == (["b.JPG", r"\udcea.png"], [0, 1])
