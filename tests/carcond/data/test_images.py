import struct
import subprocess
import sys
import time
import warnings
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFilter
from scipy import ndimage

from carcond.data.images import (
    STATS_SIDE,
    ImageStats,
    InputSpec,
    decode_photo,
    hamming,
    measure_image,
    perceptual_hash,
    to_pixels,
)
from carcond.errors import UnreadableImageError

SPEC = InputSpec(size=32, mean=(0.5, 0.4, 0.3), std=(0.2, 0.25, 0.5), interpolation="bilinear")
LIMIT = 10_000_000


def picture(width: int = 320, height: int = 240) -> Image.Image:
    """Left half red, right half blue, with a green bar at the top."""
    image = Image.new("RGB", (width, height), "red")
    draw = ImageDraw.Draw(image)
    draw.rectangle((width // 2, 0, width, height), fill="blue")
    draw.rectangle((0, 0, width, height // 10), fill="green")
    return image


def encoded(image: Image.Image, file_format: str, **options: Any) -> bytes:
    file = BytesIO()
    image.save(file, file_format, **options)
    return file.getvalue()


def decoded(data: bytes) -> Image.Image:
    return decode_photo(data, target=1000, max_pixels=LIMIT)


def mean_difference(first: Image.Image, second: Image.Image) -> float:
    return float(np.abs(np.asarray(first, float) - np.asarray(second, float)).mean())


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP", "BMP", "GIF", "MPO"])
def test_every_safe_format_is_decoded(file_format: str) -> None:
    image = decoded(encoded(picture(), file_format))
    assert image.mode == "RGB"
    assert image.size == (320, 240)
    assert mean_difference(image, picture()) < 4


def test_the_first_frame_of_an_animation_is_taken() -> None:
    data = encoded(picture(), "GIF", save_all=True, append_images=[Image.new("RGB", (320, 240), "black")])
    assert mean_difference(decoded(data), picture()) < 4


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_photo_is_turned_as_the_camera_was_held(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    stored = picture().transpose(undo[orientation]) if orientation in undo else picture()
    image = decoded(encoded(stored, "JPEG", exif=exif))
    assert image.size == (320, 240)
    assert mean_difference(image, picture()) < 4


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_a_broken_exif_block_does_not_spoil_the_photo() -> None:
    image = decoded(encoded(picture(), "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\x7f"))
    assert image.size == (320, 240)


def test_a_large_jpeg_is_decoded_at_about_twice_the_target() -> None:
    image = decode_photo(encoded(picture(1280, 960), "JPEG"), target=112, max_pixels=LIMIT)
    assert image.size == (320, 240)


def test_a_small_jpeg_keeps_its_size() -> None:
    image = decode_photo(encoded(picture(), "JPEG"), target=224, max_pixels=LIMIT)
    assert image.size == (320, 240)


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_a_large_photo_that_is_no_jpeg_is_handed_on_small_and_looks_the_same(mode: str) -> None:
    large = picture(4000, 2400).convert(mode)
    image = decode_photo(encoded(large, "PNG"), target=112, max_pixels=10_000_000)
    assert image.size == (400, 240)
    assert mean_difference(image, picture(400, 240)) < 3


def test_large_photos_are_decoded_one_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("carcond.data.images._LARGE", 1000)
    at_once, most = [0], [0]

    def watched(image: Image.Image) -> Image.Image:
        at_once[0] += 1
        most[0] = max(most[0], at_once[0])
        time.sleep(0.02)
        at_once[0] -= 1
        return image.convert("RGB")

    monkeypatch.setattr("carcond.data.images._to_rgb", watched)
    photo = encoded(picture(), "PNG")
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: decode_photo(photo, target=8, max_pixels=LIMIT), range(8)))
    assert most == [1]


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparent_parts_become_grey(mode: str) -> None:
    image = decoded(encoded(Image.new(mode, (10, 10)), "PNG"))
    assert image.getpixel((5, 5)) == (128, 128, 128)


def test_a_transparent_palette_colour_becomes_grey() -> None:
    image = decoded(encoded(picture().quantize(4), "PNG", transparency=0))
    assert image.mode == "RGB"
    assert (128, 128, 128) in image.get_flattened_data()


def test_black_and_white_pictures_are_decoded() -> None:
    image = decoded(encoded(Image.new("1", (10, 10), 1), "PNG"))
    assert image.getpixel((5, 5)) == (255, 255, 255)


def test_sixteen_bit_grey_is_scaled_not_clipped() -> None:
    grey = Image.fromarray(np.full((10, 10), 0x8040, np.uint16))
    assert decoded(encoded(grey, "PNG")).getpixel((5, 5)) == (128, 128, 128)


def test_cmyk_jpegs_keep_their_colours() -> None:
    image = decoded(encoded(picture().convert("CMYK"), "JPEG"))
    assert mean_difference(image, picture()) < 10


def test_an_empty_file_is_refused() -> None:
    with pytest.raises(UnreadableImageError, match=r"empty \(0 bytes\)"):
        decoded(b"")


@pytest.mark.parametrize(
    "data", [b"<html>not found</html>", b"%!PS-Adobe-3.0 EPSF-3.0\n", b"II*\0\x08\0\0\0", b"\xff\xd8", bytes(100)]
)
def test_other_files_are_refused_and_named(data: bytes) -> None:
    with pytest.raises(UnreadableImageError, match="expected a JPEG, PNG, WebP, BMP or GIF photo"):
        decoded(data)


def test_no_byte_of_a_file_that_is_no_photo_is_told() -> None:
    with pytest.raises(UnreadableImageError) as caught:
        decoded(b'{"token":"0123456789abcdef"}')
    assert str(caught.value) == "expected a JPEG, PNG, WebP, BMP or GIF photo, got 28 bytes of another kind"


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "GIF", "BMP", "WEBP"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_a_photo_that_is_cut_off_is_refused(file_format: str, share: float) -> None:
    noise = Image.effect_noise((200, 200), 80).convert("RGB")
    data = encoded(noise, file_format)
    with pytest.raises(UnreadableImageError):
        decoded(data[: int(len(data) * share)])


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "GIF", "BMP", "WEBP"])
def test_damaged_bytes_give_a_picture_or_an_unreadable_image_error(file_format: str) -> None:
    data = encoded(Image.effect_noise((64, 64), 80).convert("RGB"), file_format)
    rng = np.random.default_rng(0)
    for _ in range(100):
        damaged = bytearray(data)
        for position in rng.integers(0, len(data), 5):
            damaged[position] = rng.integers(256)
        try:
            assert decoded(bytes(damaged)).mode == "RGB"
        except UnreadableImageError:
            continue


def test_a_photo_above_the_limit_is_refused_before_it_is_decoded() -> None:
    data = encoded(picture(), "JPEG")
    headless = data[: len(data) // 2]  # decoding it would complain about the missing half instead
    with pytest.raises(UnreadableImageError, match="320x240 = 76800 pixels, more than the limit of 76799"):
        decode_photo(headless, target=224, max_pixels=76_799)


def png_of_size(width: int, height: int) -> bytes:
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header)) + struct.pack(">I", 1000) + b"IDAT"
    return b"\x89PNG\r\n\x1a\n" + chunks


@pytest.mark.parametrize("side", [10_000, 12_000, 2_000_000_000])
def test_decompression_bombs_are_refused(side: int) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(UnreadableImageError, match="pixels"):
            decoded(png_of_size(side, side))


def test_a_huge_photo_is_refused_without_a_warning_of_pillow(tmp_path: Path) -> None:
    (tmp_path / "huge.png").write_bytes(png_of_size(10_000, 10_000))
    lines = (
        "import sys, pathlib, carcond.data.images as images",
        "try: images.decode_photo(pathlib.Path(sys.argv[1]).read_bytes(), target=224, max_pixels=60_000_000)",
        "except images.UnreadableImageError as error: print(error)",
    )
    command = [sys.executable, "-c", "\n".join(lines), str(tmp_path / "huge.png")]
    # In a process of its own: here, pytest makes errors of warnings.
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "10000x10000 = 100000000 pixels, more than the limit of 60000000" in done.stdout
    assert done.stderr == ""


def small_jpeg(**options: Any) -> bytes:
    noise = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    return encoded(Image.fromarray(noise), "JPEG", **options)


def seconds_and_megabytes(data: bytes) -> tuple[float, float]:
    """Time and peak memory of an attempt to decode, in a process of its own."""
    program = (
        "import resource, sys, time\n"
        "from carcond.data.images import decode_photo\n"
        "from carcond.errors import UnreadableImageError\n"
        "data = sys.stdin.buffer.read()\n"
        "before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()\n"
        "try:\n"
        "    decode_photo(data, target=224, max_pixels=60_000_000)\n"
        "except UnreadableImageError:\n"
        "    pass\n"
        "else:\n"
        "    sys.exit('it was decoded')\n"
        "print(time.monotonic() - began, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], input=data, capture_output=True, check=True)
    seconds, megabytes = map(float, done.stdout.split())
    return seconds, megabytes


def huge_webp() -> bytes:
    """Thirty-odd bytes that claim 7 745 pixels on each side (VP8L header)."""
    bits = (7744 | 7744 << 14).to_bytes(4, "little")
    chunk = b"VP8L" + (10).to_bytes(4, "little") + b"\x2f" + bits + b"\0" * 5
    return b"RIFF" + (4 + len(chunk)).to_bytes(4, "little") + b"WEBP" + chunk


def long_png() -> bytes:
    """A line of 60 million pixels in a few kilobytes."""
    rows = zlib.compress(bytes(1 + 60_000_000 // 8), 9)
    header = (60_000_000).to_bytes(4, "big") + (1).to_bytes(4, "big") + bytes([1, 0, 0, 0, 0])
    chunks = [(b"IHDR", header), (b"IDAT", rows), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        len(body).to_bytes(4, "big") + name + body + zlib.crc32(name + body).to_bytes(4, "big") for name, body in chunks
    )


def many_segments() -> bytes:
    return b"\xff\xd8" + b"\xff\xe1\x00\x02" * 2_000_000 + small_jpeg()[2:]


def many_scans() -> bytes:
    data = small_jpeg(progressive=True)
    last = data.rindex(b"\xff\xda")
    return data[:last] + data[last:-2] * 20_000 + data[-2:]


@pytest.mark.parametrize("made", [huge_webp, long_png, many_segments, many_scans])
def test_a_small_file_that_is_costly_to_decode_is_refused_at_once(made: Callable[[], bytes]) -> None:
    seconds, megabytes = seconds_and_megabytes(made())
    assert seconds < 1
    assert megabytes < 50


def test_scans_hidden_behind_an_end_in_a_segment_are_counted() -> None:
    data = small_jpeg(progressive=True)
    last = data.rindex(b"\xff\xda")
    comment = b"\xff\xfe\x00\x04\xff\xd9"
    with pytest.raises(UnreadableImageError, match="at most 1000 segments and 100 scans"):
        decode_photo(data[:last] + comment + data[last:-2] * 101 + data[-2:], target=224, max_pixels=LIMIT)


@pytest.mark.parametrize(
    "options", [{}, {"progressive": True}, {"restart_marker_rows": 1}, {"comment": b"\xff\xda" * 300}]
)
def test_usual_jpegs_are_within_the_limits(options: dict[str, Any]) -> None:
    assert decode_photo(small_jpeg(**options), target=224, max_pixels=LIMIT).size == (60, 40)


def test_bytes_behind_the_picture_are_not_counted() -> None:
    film = np.random.default_rng(0).bytes(3_000_000) + b"\xff\xda" * 1000
    assert decode_photo(small_jpeg() + film, target=224, max_pixels=LIMIT).size == (60, 40)


def test_a_photo_without_any_pixels_is_refused() -> None:
    with pytest.raises(UnreadableImageError):
        decoded(png_of_size(0, 7))


def test_pixels_are_normalised_by_mean_and_standard_deviation() -> None:
    pixels = to_pixels(Image.new("RGB", (50, 20), (255, 51, 0)), SPEC)
    assert pixels.shape == (3, 32, 32)
    assert pixels.dtype == np.float32
    assert pixels.flags.c_contiguous
    np.testing.assert_allclose(pixels[:, 16, 16], [(1 - 0.5) / 0.2, (0.2 - 0.4) / 0.25, -0.3 / 0.5], rtol=1e-5)


def test_the_whole_photo_is_squashed_into_the_square() -> None:
    red, _, blue = to_pixels(picture(320, 100), SPEC)
    assert red[16, 0] == red.max()
    assert blue[16, -1] == blue.max()


def test_a_photo_of_one_pixel_can_be_encoded() -> None:
    assert to_pixels(decoded(encoded(Image.new("RGB", (1, 1)), "PNG")), SPEC).shape == (3, 32, 32)


def test_the_perceptual_hash_outlives_scaling_and_compression() -> None:
    original = Image.effect_noise((8, 6), 200).resize((400, 300), Image.Resampling.BICUBIC).convert("RGB")
    again = decoded(encoded(original.resize((200, 150)), "JPEG", quality=40))
    assert hamming(perceptual_hash(original), perceptual_hash(again)) <= 4


def test_different_pictures_have_different_perceptual_hashes() -> None:
    mandelbrot = Image.effect_mandelbrot((400, 300), (-2, -1.5, 1, 1.5), 50).convert("RGB")
    assert hamming(perceptual_hash(mandelbrot), perceptual_hash(picture())) > 12


def test_a_perceptual_hash_has_64_bits() -> None:
    assert 0 <= perceptual_hash(picture()) < 2**64


def test_hamming_counts_differing_bits() -> None:
    assert hamming(0b1010, 0b0110) == 2
    assert hamming(0, 2**64 - 1) == 64
    assert hamming(7, 7) == 0


def scene(seed: int = 0, width: int = STATS_SIDE, height: int = 192) -> Image.Image:
    """Blocks of random shades, as busy as a street."""
    shades = np.random.default_rng(seed).integers(0, 255, (height // 8, width // 8, 3), dtype=np.uint8)
    return Image.fromarray(shades).resize((width, height), Image.Resampling.NEAREST)


def look(image: Image.Image, file_format: str = "PNG", **options: Any) -> ImageStats:
    data = encoded(image, file_format, **options)
    return measure_image(data, decode_photo(data, target=224, max_pixels=LIMIT))


def test_sharpness_is_the_energy_of_the_laplacian_over_that_of_the_gradient() -> None:
    image = scene()
    luma = np.asarray(image.convert("L"), float) / 255
    laplacian = ndimage.laplace(luma)[1:-1, 1:-1]
    rows, columns = (2 * part[1:-1, 1:-1] for part in np.gradient(luma))
    expected = (laplacian**2).mean() / (rows**2 + columns**2).mean()
    assert look(image).sharpness == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("seed", range(5))
def test_a_blurred_photo_is_less_sharp_whatever_its_contrast(seed: int) -> None:
    image = scene(seed, 1024, 768)
    blurred = image.filter(ImageFilter.GaussianBlur(8))
    pale = Image.blend(image, Image.new("RGB", image.size, "grey"), 0.7)
    assert look(blurred).sharpness < 0.25 < look(pale).sharpness
    assert look(pale).sharpness == pytest.approx(look(image).sharpness, rel=0.1)


def test_sharpness_does_not_depend_on_how_many_pixels_a_camera_has() -> None:
    large = scene(0, 2048, 1536)
    assert look(large, "JPEG").sharpness == pytest.approx(look(large.resize((512, 384))).sharpness, rel=0.15)


def test_a_photo_without_any_edge_is_not_sharp() -> None:
    assert look(Image.new("RGB", (300, 200), "white")) == ImageStats(300, 200, 0.0, 1.0)
    assert look(Image.new("RGB", (2, 400))) == ImageStats(2, 400, 0.0, 0.0)


def test_brightness_is_the_mean_luma() -> None:
    assert look(Image.new("RGB", (300, 200), (0, 255, 0))).brightness == pytest.approx(0.587, abs=0.005)


def test_the_size_of_a_look_is_that_of_the_file_as_the_camera_was_held() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = look(scene(0, 3200, 1600), "JPEG", exif=exif)
    assert (turned.width, turned.height) == (1600, 3200)
