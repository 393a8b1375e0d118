"""Decoding of untrusted image bytes to the encoder's input pixels."""

import re
import threading
import warnings
from contextlib import nullcontext
from dataclasses import dataclass
from io import BytesIO
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, UnidentifiedImageError

from carcond.errors import TooManyPixelsError, UnreadableImageError

# Formats of phones, browsers and label tools. Formats with a large attack surface or that can start
# other programs (EPS, TIFF, PSD, ...) are left out. MPO, the phones' JPEG
# with several pictures, comes with JPEG.
_SAFE_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF")

# Pillow's warnings are of photos that `decode_photo` refuses with errors of its own. Set once: `catch_warnings`
# around each photo would change the filters of all threads.
warnings.simplefilter("ignore", Image.DecompressionBombWarning)

_GREY = (128, 128, 128)

# Number of pixels from which a photo takes some hundred megabytes to decode; the limit is 60 million. Most photos of
# that size are JPEGs, which are decoded at a reduced scale; the others are decoded one at a time.
_LARGE = 8_000_000
_large_photo = threading.Lock()

# Limits of photos that are small as files and costly to decode. No camera comes near them.
_MAX_SIDE = 16_384
_MAX_WEBP_PIXELS = 20_000_000  # WebP is decoded whole, at its full size, whatever is asked for
_MAX_JPEG_SCANS = 100  # each scan of a progressive JPEG goes over all coefficients; encoders write about ten
_MAX_JPEG_SEGMENTS = 1_000
# In a scan, 0xFF is followed by 0 or by a restart marker; any other byte begins a segment.
_JPEG_MARKER = re.compile(rb"\xff+[^\x00\xff\xd0-\xd7]")
_SCAN, _END, _WITHOUT_LENGTH = 0xDA, 0xD9, {0x01, 0xD8}

_TURN_BY_ORIENTATION = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

STATS_SIDE = 256
"""Longer side at which sharpness is measured: blur is judged relative to the picture, as eyes and encoder do."""

_RESAMPLING = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


@dataclass(frozen=True)
class InputSpec:
    """Input size and normalisation of an encoder.

    The whole photo is squashed into the square, whatever its proportions: damage often sits at a car's
    ends, which a centre crop cuts off, and a letterbox wastes pixels on padding.

    Attributes:
        size: side of the square, in pixels.
        mean: per channel (R, G, B), in the scale 0..1.
        std: per channel (R, G, B), in the scale 0..1.
        interpolation: resampling filter.
    """

    size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    interpolation: Literal["bilinear", "bicubic"]


@dataclass(frozen=True)
class ImageStats:
    """Size, sharpness and brightness of a photo.

    Attributes:
        width: of the file in pixels, after rotation by its EXIF orientation.
        height: the same.
        sharpness: energy of the Laplacian over energy of the gradient, with the longer side shrunk to 256 pixels:
            0 for a flat photo, below 0.25 for a blurred one, mostly 0.5 to 3. Both are common focus measures (Pertuz
            et al. 2013, doi:10.1016/j.patcog.2012.11.011); their ratio does not depend on the photo's contrast.
        brightness: mean luma, 0 (black) to 1 (white).
    """

    width: int
    height: int
    sharpness: float
    brightness: float


def decode_photo(data: bytes, *, target: int, max_pixels: int) -> Image.Image:
    """Decode a photo from untrusted bytes.

    Args:
        data: a JPEG, PNG, WebP, BMP or GIF file; of an animation the first frame is taken.
        target: side in pixels to which the caller will shrink the photo. Large JPEGs are decoded at a
            reduced scale, which keeps both sides at or above twice this.
        max_pixels: limit of width x height, checked in the header, before anything is decoded. Limits of sides, of
            WebP files and of a JPEG's scans and segments stop files that are small and costly to decode.

    Returns:
        An RGB picture, rotated by its EXIF orientation; transparent areas are grey.

    Raises:
        UnreadableImageError: not a photo, damaged, empty, or larger than the limit.
    """
    if not data:
        raise UnreadableImageError("the photo is empty (0 bytes): upload it again")
    _check_segments(data)
    image = _open(data)
    _check_size(image, max_pixels)
    # A progressive JPEG keeps all coefficients in memory, whatever its scale.
    is_large = bool(image.info.get("progressive")) and image.width * image.height > _LARGE
    image.draft(None, (2 * target, 2 * target))
    is_large = is_large or image.width * image.height > _LARGE
    try:
        with _large_photo if is_large else nullcontext():
            image.load()
            rgb = _to_rgb(image)
            if is_large:  # the result is to be small, too
                rgb = rgb.reduce(max(1, min(rgb.size) // (2 * target)))
        return _turn(rgb, _orientation(image))
    except Exception as error:  # Pillow's decoders raise nearly every kind of exception on damaged bytes
        raise UnreadableImageError(
            f"the {image.format} photo is damaged or cut off and cannot be decoded ({error}): upload it again"
        ) from error


def _open(data: bytes) -> Image.Image:
    try:
        return Image.open(BytesIO(data), formats=_SAFE_FORMATS)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise TooManyPixelsError(f"the photo has too many pixels to be decoded safely: {error}") from error
    except UnidentifiedImageError as error:
        raise UnreadableImageError(
            # Nothing of them: they may be a private answer of Label Studio.
            f"expected a JPEG, PNG, WebP, BMP or GIF photo, got {len(data)} bytes of another kind"
        ) from error
    except Exception as error:  # Pillow's header parsers raise nearly every kind of exception on damaged bytes
        raise UnreadableImageError(f"the photo's header is damaged ({error}): upload it again") from error


def _check_segments(data: bytes) -> None:
    """Count the segments and scans of a JPEG: Pillow reads each segment, and libjpeg decodes each scan.

    Raises:
        UnreadableImageError: there are more than any camera writes.
    """
    if not data.startswith(b"\xff\xd8"):
        return
    segments = scans = 0
    found = _JPEG_MARKER.search(data, 2)
    while found and (marker := data[found.end() - 1]) != _END:
        segments += 1
        scans += marker == _SCAN
        if segments > _MAX_JPEG_SEGMENTS or scans > _MAX_JPEG_SCANS:
            raise UnreadableImageError(
                f"expected a JPEG of at most {_MAX_JPEG_SEGMENTS} segments and {_MAX_JPEG_SCANS} scans, got more: "
                "save it again with another program"
            )
        length = 0 if marker in _WITHOUT_LENGTH else int.from_bytes(data[found.end() : found.end() + 2], "big")
        found = _JPEG_MARKER.search(data, found.end() + length)


def _check_size(image: Image.Image, max_pixels: int) -> None:
    width, height = image.size
    if width < 1 or height < 1:
        raise UnreadableImageError(f"expected a photo of at least 1x1 pixels, got {width}x{height}")
    if width * height > max_pixels:
        raise TooManyPixelsError(
            f"the photo has {width}x{height} = {width * height} pixels, more than the limit of {max_pixels}: "
            "shrink it, or raise CARCOND_MAX_PHOTO_PIXELS"
        )
    if max(width, height) > _MAX_SIDE:
        raise TooManyPixelsError(f"the photo has {width}x{height} pixels, more than {_MAX_SIDE} on a side: shrink it")
    if image.format == "WEBP" and width * height > _MAX_WEBP_PIXELS:
        raise TooManyPixelsError(
            f"the WebP photo has {width}x{height} = {width * height} pixels, more than {_MAX_WEBP_PIXELS}: shrink it, "
            "or send it as a JPEG"
        )


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # 16 bits of grey; Pillow's own conversion would clip instead of scale
        eight_bits = np.clip(np.asarray(image, dtype=np.int32) >> 8, 0, 255).astype(np.uint8)
        return Image.fromarray(eight_bits).convert("RGB")
    if image.has_transparency_data:
        rgba = image if image.mode == "RGBA" else image.convert("RGBA")
        opaque = Image.new("RGB", image.size, _GREY)
        opaque.paste(rgba, mask=rgba)
        return opaque
    return image if image.mode == "RGB" else image.convert("RGB")


def _turn(image: Image.Image, orientation: int) -> Image.Image:
    turn = _TURN_BY_ORIENTATION.get(orientation)
    return image if turn is None else image.transpose(turn)


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # a broken EXIF block does not affect the pixels, which are fine
        return 1


def to_pixels(image: Image.Image, spec: InputSpec) -> NDArray[np.float32]:
    """Shrink a photo to the encoder's square and normalise it.

    Args:
        image: an RGB picture of any size.
        spec: input size and normalisation of the encoder.

    Returns:
        Array (3, size, size), normalised by mean and standard deviation.
    """
    square = image.resize((spec.size, spec.size), _RESAMPLING[spec.interpolation])
    mean, std = np.asarray(spec.mean, np.float32), np.asarray(spec.std, np.float32)
    pixels = (np.asarray(square, np.float32) / 255 - mean) / std
    return np.ascontiguousarray(pixels.transpose(2, 0, 1), dtype=np.float32)


def measure_image(data: bytes, image: Image.Image) -> ImageStats:
    """Measure size, sharpness and brightness of a photo.

    Args:
        data: the file's bytes.
        image: the same photo as `decode_photo` returned it.
    """
    header = _open(data)
    width, height = header.size
    if _orientation(header) >= 5:  # these turn the photo by a quarter
        width, height = height, width
    scale = min(1.0, STATS_SIDE / max(image.size))
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    luma = np.asarray(image.convert("L").resize(size, Image.Resampling.BILINEAR), np.float32) / np.float32(255)
    return ImageStats(width, height, _sharpness(luma), float(luma.mean()))


def _sharpness(luma: NDArray[np.float32]) -> float:
    if min(luma.shape) < 3:
        return 0.0
    above, below, left, right = luma[:-2, 1:-1], luma[2:, 1:-1], luma[1:-1, :-2], luma[1:-1, 2:]
    laplacian = above + below + left + right - 4 * luma[1:-1, 1:-1]
    gradient = (right - left) ** 2 + (below - above) ** 2
    energy = float(gradient.mean())
    return float((laplacian**2).mean()) / energy if energy else 0.0


def perceptual_hash(image: Image.Image) -> int:
    """A 64-bit hash that hardly changes when a photo is rescaled or recompressed.

    Args:
        image: an RGB picture of any size.

    Returns:
        The hash, 0 .. 2**64 - 1. Near-duplicates differ in few bits (see `hamming`).
    """
    import imagehash  # noqa: PLC0415 - it imports scipy, which processes that only encode do not need

    return int(str(imagehash.phash(image)), 16)


def hamming(first: int, second: int) -> int:
    """Number of bits in which two perceptual hashes differ, 0..64."""
    return (first ^ second).bit_count()
