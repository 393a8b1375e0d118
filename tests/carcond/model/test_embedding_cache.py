from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from carcond.model.embedding_cache import embed_files
from carcond.model.encoder import Encoder

MAX_PIXELS = 1_000_000


@pytest.fixture(scope="module")
def encoder(tiny_encoder_dir: Path) -> Encoder:
    return Encoder.load(tiny_encoder_dir, threads=1)


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """Ten photos of plain colours: more than a batch."""
    files = [tmp_path / f"{i}.png" for i in range(10)]
    for i, file in enumerate(files):
        Image.new("RGB", (80, 60), (25 * i, 255 - 25 * i, 40)).save(file)
    return files


class Watch:
    """Keeps what it is told of the progress."""

    def __init__(self) -> None:
        self.told: list[tuple[int, int]] = []

    def __call__(self, done: int, total: int) -> None:
        self.told.append((done, total))


def test_embeddings_are_those_of_the_encoder(encoder: Encoder, files: list[Path], tmp_path: Path) -> None:
    found = embed_files(encoder, files, tmp_path / "cache", MAX_PIXELS, Watch())
    expected = [encoder.embed_photo(file.read_bytes(), MAX_PIXELS) for file in files]
    np.testing.assert_allclose(found.embeddings, expected, atol=1e-5)
    assert found.problems == {}


def test_a_second_time_nothing_is_encoded(encoder: Encoder, files: list[Path], tmp_path: Path) -> None:
    first = embed_files(encoder, files, tmp_path / "cache", MAX_PIXELS, Watch())
    watch = Watch()
    second = embed_files(encoder, files, tmp_path / "cache", MAX_PIXELS, watch)
    assert watch.told == []
    np.testing.assert_array_equal(first.embeddings, second.embeddings)


def test_a_renamed_photo_is_found_again_and_a_changed_one_encoded_anew(
    encoder: Encoder, files: list[Path], tmp_path: Path
) -> None:
    embed_files(encoder, files, tmp_path / "cache", MAX_PIXELS, Watch())
    renamed = files[0].rename(tmp_path / "renamed.png")
    Image.new("RGB", (80, 60), (1, 2, 3)).save(files[1])
    watch = Watch()
    found = embed_files(encoder, [renamed, files[1]], tmp_path / "cache", MAX_PIXELS, watch)
    assert watch.told == [(1, 1)]
    np.testing.assert_allclose(found.embeddings[1], encoder.embed_photo(files[1].read_bytes(), MAX_PIXELS), atol=1e-5)


def test_copies_of_a_photo_are_encoded_once(encoder: Encoder, files: list[Path], tmp_path: Path) -> None:
    copy = tmp_path / "copy.png"
    copy.write_bytes(files[0].read_bytes())
    watch = Watch()
    found = embed_files(encoder, [files[0], copy], tmp_path / "cache", MAX_PIXELS, watch)
    assert watch.told == [(1, 1)]
    np.testing.assert_array_equal(found.embeddings[0], found.embeddings[1])


def test_missing_and_broken_photos_are_told_and_leave_the_others_in_place(
    encoder: Encoder, files: list[Path], tmp_path: Path
) -> None:
    files[3].unlink()
    files[5].write_bytes(b"no photo")
    found = embed_files(encoder, files, tmp_path / "cache", MAX_PIXELS, Watch())
    assert set(found.problems) == {3, 5}
    assert "3.png" in found.problems[3]
    assert "5.png" in found.problems[5]
    np.testing.assert_allclose(found.embeddings[9], encoder.embed_photo(files[9].read_bytes(), MAX_PIXELS), atol=1e-5)


def test_a_broken_cache_is_made_again(encoder: Encoder, files: list[Path], tmp_path: Path) -> None:
    first = embed_files(encoder, files, tmp_path / "cache", MAX_PIXELS, Watch())
    (cache,) = (tmp_path / "cache").iterdir()
    cache.write_bytes(cache.read_bytes()[:100])
    watch = Watch()
    second = embed_files(encoder, files, tmp_path / "cache", MAX_PIXELS, watch)
    assert watch.told[-1] == (10, 10)
    np.testing.assert_allclose(first.embeddings, second.embeddings, atol=1e-6)


def test_no_photo_at_all_is_no_embedding(encoder: Encoder, tmp_path: Path) -> None:
    found = embed_files(encoder, [], tmp_path / "cache", MAX_PIXELS, Watch())
    assert found.embeddings.shape == (0, encoder.dimension)
