"""Image bytes from anybody: a picture or an error of ours, within memory and time."""

import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from carcond.data.images import InputSpec, decode_photo, measure_image, perceptual_hash, to_pixels
from carcond.errors import UnreadableImageError
from carcond.settings import Settings
from tests.damage import damaged_bytes

SPEC = InputSpec(size=32, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5), interpolation="bicubic")
MAX_PIXELS = Settings().max_photo_pixels
MAX_MEMORY = 700_000_000
"""Bytes that one photo may take: a backend of 1 GiB, which has 300 MB to itself, must survive it."""
MAX_SECONDS = 10.0
_MAGIC = (b"\xff\xd8\xff\xe0", b"\x89PNG\r\n\x1a\n", b"RIFF\x40\0\0\0WEBPVP8 ", b"GIF89a", b"BM")


def originals() -> list[bytes]:
    """Small files of every format that is decoded, in the variants that Pillow writes."""
    rng = np.random.default_rng(0)
    photo = Image.fromarray(rng.integers(0, 256, (24, 40, 3), dtype=np.uint8)).resize((80, 48))
    grey = photo.convert("L")
    clear = photo.copy()
    clear.putalpha(grey)
    sixteen = Image.fromarray(rng.integers(0, 65536, (24, 40), dtype=np.uint16))
    exif = Image.Exif()
    exif[0x0112] = 6
    more = {"save_all": True, "append_images": [photo.rotate(90), photo.rotate(180)]}
    wanted: list[tuple[Image.Image, str, dict[str, Any]]] = [
        (photo, "JPEG", {"exif": exif}),
        (photo, "JPEG", {"progressive": True, "optimize": True}),
        (photo.convert("CMYK"), "JPEG", {}),
        (grey, "JPEG", {"restart_marker_rows": 1}),
        (photo, "MPO", more),
        (photo, "PNG", {"exif": exif}),
        (clear, "PNG", {}),
        (photo.convert("P"), "PNG", {"transparency": 3, "bits": 8}),
        (photo.convert("1"), "PNG", {}),
        (sixteen, "PNG", {}),
        (photo, "PNG", more),
        (photo, "WEBP", {"exif": exif}),
        (clear, "WEBP", {"lossless": True}),
        (photo, "WEBP", more),
        (photo, "GIF", {**more, "transparency": 2}),
        (grey, "GIF", {"interlace": 1}),
        (photo, "BMP", {}),
        (photo.convert("P"), "BMP", {}),
        (clear, "BMP", {}),
    ]
    files = []
    for image, kind, options in wanted:
        file = BytesIO()
        image.save(file, kind, **options)
        files.append(file.getvalue())
    return files


@contextmanager
def limited_memory(amount: int) -> Iterator[None]:
    """This process gets no more than this many bytes on top of what it has."""
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + amount, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def check_decoding(data: bytes) -> Image.Image | None:
    """Decode a photo as the loop and the API do; None when it was refused."""
    began = time.monotonic()
    try:
        with limited_memory(MAX_MEMORY):
            image = decode_photo(data, target=SPEC.size, max_pixels=MAX_PIXELS)
    except UnreadableImageError as error:
        assert not isinstance(error.__cause__, MemoryError), "it took more memory than it may"  # noqa: PT017
        return None
    finally:
        assert time.monotonic() - began < MAX_SECONDS
    assert image.mode == "RGB"
    assert min(image.size) >= 1
    stats = measure_image(data, image)
    assert min(stats.width, stats.height) >= 1
    assert np.isfinite([stats.sharpness, stats.brightness]).all()
    assert np.isfinite(to_pixels(image, SPEC)).all()
    assert 0 <= perceptual_hash(image) < 2**64
    return image


def test_each_original_is_decoded_within_the_limits() -> None:
    for data in originals():
        assert check_decoding(data) is not None, data[:16]


@given(data=damaged_bytes(originals()))
def test_a_damaged_photo_is_decoded_or_refused_within_memory_and_time(data: bytes) -> None:
    check_decoding(data)


@given(data=damaged_bytes(originals(), keep_start=12))
def test_a_photo_damaged_behind_its_first_bytes_is_decoded_or_refused(data: bytes) -> None:
    check_decoding(data)


@given(data=st.binary(max_size=300) | st.tuples(st.sampled_from(_MAGIC), st.binary(max_size=300)).map(b"".join))
def test_random_bytes_are_refused_or_decoded_within_memory_and_time(data: bytes) -> None:
    check_decoding(data)
