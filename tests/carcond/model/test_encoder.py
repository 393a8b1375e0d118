import hashlib
import json
import shutil
import subprocess
import sys
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from carcond.data.images import decode_photo, to_pixels
from carcond.errors import EncoderError, UnreadableImageError
from carcond.model.encoder import (
    Encoder,
    encoder_directory,
    encoders_dir,
    find_encoder,
    fitting_encoder,
    list_encoders,
    use_encoder,
)
from carcond.model.encoder_card import EncoderRequest, encoder_request, read_card, save_encoder
from tests.conftest import TINY_DIMENSION, TINY_SPEC, MakeEncoder


@pytest.fixture(scope="module")
def encoder(tiny_encoder_dir: Path) -> Encoder:
    return Encoder.load(tiny_encoder_dir, threads=1)


@pytest.fixture
def own_encoder_dir(tiny_encoder_dir: Path, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return shutil.copytree(tiny_encoder_dir, tmp_path / tiny_encoder_dir.name)


def random_pixels(count: int) -> NDArray[np.float32]:
    return np.random.default_rng(0).normal(size=(count, 3, 64, 64)).astype(np.float32)


def test_a_loaded_encoder_tells_what_it_is(encoder: Encoder) -> None:
    assert encoder.encoder_id == "tiny-00000000"
    assert encoder.backbone == "tiny"
    assert encoder.weights_source == "random numbers, seed 0"
    assert encoder.spec == TINY_SPEC
    assert encoder.dimension == TINY_DIMENSION
    assert encoder.map_shape == (4, 4)


@pytest.mark.parametrize("count", [0, 1, 8, 19])
def test_encoding_gives_one_row_per_photo(encoder: Encoder, count: int) -> None:
    encoding = encoder.encode(random_pixels(count))
    assert encoding.embeddings.shape == (count, TINY_DIMENSION)
    assert encoding.feature_maps.shape == (count, TINY_DIMENSION, 4, 4)
    assert encoding.embeddings.dtype == encoding.feature_maps.dtype == np.float32


def test_the_mean_of_a_feature_map_is_the_embedding(encoder: Encoder) -> None:
    encoding = encoder.encode(random_pixels(5))
    np.testing.assert_allclose(encoding.feature_maps.mean(axis=(2, 3)), encoding.embeddings, rtol=1e-5, atol=1e-6)


def test_embed_and_encode_give_the_same_embeddings(encoder: Encoder) -> None:
    pixels = random_pixels(11)
    np.testing.assert_array_equal(encoder.embed(pixels), encoder.encode(pixels).embeddings)


def test_a_photo_has_the_same_embedding_alone_and_in_a_batch(encoder: Encoder) -> None:
    pixels = random_pixels(10)
    np.testing.assert_allclose(encoder.embed(pixels[9:]), encoder.embed(pixels)[9:], rtol=1e-5, atol=1e-6)


def test_embed_photo_equals_decoding_and_embedding_by_hand(encoder: Encoder) -> None:
    file = BytesIO()
    Image.effect_noise((300, 200), 60).convert("RGB").save(file, "JPEG")
    image = decode_photo(file.getvalue(), target=64, max_pixels=100_000)
    expected = encoder.embed(to_pixels(image, encoder.spec)[np.newaxis])[0]
    np.testing.assert_array_equal(encoder.embed_photo(file.getvalue(), max_pixels=100_000), expected)


def test_embed_photo_refuses_bytes_that_are_no_photo(encoder: Encoder) -> None:
    with pytest.raises(UnreadableImageError):
        encoder.embed_photo(b"hello", max_pixels=100_000)


@pytest.mark.parametrize(
    "pixels", [np.zeros((1, 3, 32, 32), np.float32), np.zeros((3, 64, 64), np.float32), np.zeros((1, 3, 64, 64))]
)
def test_pixels_of_another_shape_or_type_are_refused(encoder: Encoder, pixels: NDArray[np.float32]) -> None:
    with pytest.raises(EncoderError, match=r"expected float32 pixels of shape \(N, 3, 64, 64\)"):
        encoder.embed(pixels)


def test_an_encoder_that_fails_while_it_runs_is_an_encoder_error(
    encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Broken:
        def run(self, *_: object) -> None:
            raise RuntimeError("bad allocation")

    monkeypatch.setattr(encoder, "_session", Broken())
    with pytest.raises(EncoderError, match="cannot be run by ONNX Runtime: bad allocation"):
        encoder.embed(np.zeros((1, 3, encoder.spec.size, encoder.spec.size), np.float32))


def test_the_fallback_stands_in_and_what_was_tuned_from_it_does_not(encoder: Encoder) -> None:
    stand_in = encoder.card.model_copy(update={"fallback_reason": "no hub", "weights_source": "package: lite0 0.1.0"})
    tuned = stand_in.model_copy(update={"weights_source": f"fine-tuned on 90 photos from {stand_in.weights_source}"})
    assert (encoder.card.stands_in, stand_in.stands_in, tuned.stands_in) == (False, True, False)


def test_a_missing_directory_is_an_encoder_error(tmp_path: Path) -> None:
    with pytest.raises(EncoderError, match=r"encoder\.json cannot be read"):
        Encoder.load(tmp_path / "nowhere")


def test_a_missing_network_is_an_encoder_error(own_encoder_dir: Path) -> None:
    (own_encoder_dir / "encoder.onnx").unlink()
    with pytest.raises(EncoderError, match=r"encoder\.onnx cannot be read"):
        Encoder.load(own_encoder_dir)


def test_a_network_that_is_not_the_one_described_is_refused(own_encoder_dir: Path) -> None:
    with (own_encoder_dir / "encoder.onnx").open("ab") as file:
        file.write(b"\0")
    with pytest.raises(EncoderError, match="is damaged"):
        Encoder.load(own_encoder_dir)


def test_a_network_that_cannot_be_run_is_an_encoder_error(own_encoder_dir: Path) -> None:
    (own_encoder_dir / "encoder.onnx").write_bytes(b"no network")
    card = own_encoder_dir / "encoder.json"
    card.write_text(
        card.read_text().replace(read_card(own_encoder_dir).onnx_sha256, hashlib.sha256(b"no network").hexdigest())
    )
    with pytest.raises(EncoderError, match="cannot be run by ONNX Runtime"):
        Encoder.load(own_encoder_dir)


def test_a_malformed_card_names_the_field(own_encoder_dir: Path) -> None:
    (own_encoder_dir / "encoder.json").write_text('{"encoder_id": "x"}')
    with pytest.raises(EncoderError, match=r"malformed.*backbone"):
        Encoder.load(own_encoder_dir)


def test_without_any_encoder_the_error_tells_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(EncoderError, match="carcond encoder"):
        find_encoder(tmp_path)


def test_the_encoder_made_last_is_in_use_and_an_older_one_can_be_used_again(
    tmp_path: Path, make_tiny_encoder: MakeEncoder
) -> None:
    first, second = make_tiny_encoder(tmp_path, 1), make_tiny_encoder(tmp_path, 2)
    assert find_encoder(tmp_path) == second
    use_encoder(tmp_path, first.name)
    assert find_encoder(tmp_path) == first
    assert encoder_directory(tmp_path, second.name) == second


def test_all_encoders_are_listed_but_damaged_ones(
    tmp_path: Path, make_tiny_encoder: MakeEncoder, caplog: pytest.LogCaptureFixture
) -> None:
    make_tiny_encoder(tmp_path, 1), make_tiny_encoder(tmp_path, 2)
    (make_tiny_encoder(tmp_path, 3) / "encoder.json").write_text("{")
    assert [card.encoder_id for card in list_encoders(tmp_path)] == ["tiny-00000001", "tiny-00000002"]
    assert "tiny-00000003" in caplog.text


def test_a_missing_models_directory_has_no_encoders(tmp_path: Path) -> None:
    assert list_encoders(tmp_path / "nowhere") == []


@pytest.mark.parametrize("encoder_id", ["", "absent", "..", "../encoders/tiny-00000000"])
def test_an_unknown_encoder_cannot_be_used(tiny_models_dir: Path, encoder_id: str) -> None:
    with pytest.raises(EncoderError, match="there is no encoder"):
        use_encoder(tiny_models_dir, encoder_id)


def test_saving_an_encoder_twice_writes_nothing_again(own_encoder_dir: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in own_encoder_dir.iterdir()}
    directory = save_encoder(own_encoder_dir.parent, read_card(own_encoder_dir), own_encoder_dir / "encoder.onnx")
    assert directory == own_encoder_dir
    assert {path: path.stat().st_mtime_ns for path in own_encoder_dir.iterdir()} == before


def test_an_encoder_that_is_asked_for_otherwise_learns_its_new_request(own_encoder_dir: Path) -> None:
    card = read_card(own_encoder_dir).model_copy(
        update={"request": EncoderRequest(backbone="tiny", weights="hub"), "fallback_reason": "offline"}
    )
    save_encoder(own_encoder_dir.parent, card, own_encoder_dir / "encoder.onnx")
    assert read_card(own_encoder_dir).request.weights == "hub"
    assert read_card(own_encoder_dir).fallback_reason == "offline"
    Encoder.load(own_encoder_dir)


def test_saving_leaves_no_temporary_files(tmp_path: Path, make_tiny_encoder: MakeEncoder) -> None:
    directory = make_tiny_encoder(tmp_path)
    assert {path.name for path in encoders_dir(tmp_path).iterdir()} == {directory.name, "current"}


def test_the_encoder_in_use_fits_only_its_own_request(tiny_models_dir: Path) -> None:
    card = fitting_encoder(tiny_models_dir, encoder_request("tiny", "random"))
    assert card is not None
    assert card.encoder_id == "tiny-00000000"
    assert fitting_encoder(tiny_models_dir, encoder_request("tiny", "hub")) is None
    assert fitting_encoder(tiny_models_dir, encoder_request("other", "random")) is None


def test_an_encoder_fits_only_a_request_for_its_own_views(tmp_path: Path, make_tiny_encoder: MakeEncoder) -> None:
    make_tiny_encoder(tmp_path, views=(32, 64))
    assert fitting_encoder(tmp_path, encoder_request("tiny", "random")) is None
    assert fitting_encoder(tmp_path, encoder_request("tiny", "random", (64,))) is None
    card = fitting_encoder(tmp_path, encoder_request("tiny", "random", (32, 64)))
    assert card is not None
    assert (card.views, card.dimension) == ((32, 64), 2 * TINY_DIMENSION)


def test_the_card_of_an_encoder_from_before_views_is_of_one_view_and_fits_its_request(own_encoder_dir: Path) -> None:
    path = own_encoder_dir / "encoder.json"
    written = json.loads(path.read_text())
    del written["views"], written["request"]["views"]
    path.write_text(json.dumps(written))
    card = read_card(own_encoder_dir)
    assert card.views == (64,)
    assert card.request == encoder_request("tiny", "random")
    assert Encoder.load(own_encoder_dir).dimension == TINY_DIMENSION


def test_two_views_are_the_photo_at_two_sizes(encoder: Encoder, tmp_path: Path, make_tiny_encoder: MakeEncoder) -> None:
    both = Encoder.load(make_tiny_encoder(tmp_path, views=(32, 64)), threads=1)
    encoding = both.encode(pixels := random_pixels(3))
    assert encoding.embeddings.shape == (3, 2 * TINY_DIMENSION)
    np.testing.assert_allclose(encoding.feature_maps.mean(axis=(2, 3)), encoding.embeddings, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(encoding.embeddings[:, TINY_DIMENSION:], encoder.embed(pixels), rtol=1e-5, atol=1e-6)
    # The small view's map covers four positions of the large one's with each of its own.
    small = encoding.feature_maps[:, :TINY_DIMENSION]
    np.testing.assert_array_equal(small, small[:, :, ::2, ::2].repeat(2, axis=2).repeat(2, axis=3))


def test_no_encoder_fits_where_there_is_none(tmp_path: Path) -> None:
    assert fitting_encoder(tmp_path, encoder_request("tiny", "random")) is None


def test_a_weights_file_is_known_by_its_content(tmp_path: Path) -> None:
    (tmp_path / "weights.pth").write_bytes(b"abc")
    (tmp_path / "same.pth").write_bytes(b"abc")
    request = encoder_request("tiny", str(tmp_path / "weights.pth"))
    assert request.weights == hashlib.sha256(b"abc").hexdigest()
    assert request == encoder_request("tiny", str(tmp_path / "same.pth"))


def test_a_missing_weights_file_is_an_encoder_error(tmp_path: Path) -> None:
    with pytest.raises(EncoderError, match="cannot be read"):
        encoder_request("tiny", str(tmp_path / "absent.pth"))


def test_encoding_imports_neither_torch_nor_scikit_learn() -> None:
    code = "import sys, carcond.model.encoder; print({'torch', 'timm', 'sklearn', 'scipy'} & set(sys.modules))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "set()"
