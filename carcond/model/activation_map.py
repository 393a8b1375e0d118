"""Overlays of class activation maps: the photo in grey, coloured where it supports the class, and a colour bar."""

from collections.abc import Sequence
from functools import cache

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from carcond.arrays import FloatArray

PHOTO_SIDE = 640
"""Maximum length of the photo's longer side in a picture, in pixels."""

# Purple to yellow: as anchors of matplotlib's inferno, which stays readable without colour vision and in print.
_COLOURS = ((87, 16, 110), (188, 55, 84), (249, 142, 9), (252, 255, 164))
# Share of colour where the activation is greatest; the photo stays visible everywhere.
_STRONGEST = 0.75
_STRENGTHS = [round(_STRONGEST * level) for level in range(256)]
_BAR_WIDTH, _BAR_ROOM = 14, 64
_CAPTION_ROOM, _FONT_SIZE = 26, 15
_PAPER, _INK = (255, 255, 255), (30, 30, 30)


def overlay(
    photo: Image.Image, activation: FloatArray, caption: str = "", greatest: float | None = None
) -> Image.Image:
    """Overlay a class activation map on a photo.

    The encoder's input is the whole photo squashed into a square, so the map is stretched back over the whole photo.
    Regions that count against the class stay grey.

    Args:
        photo: an RGB picture of any size, turned upright; a large one is shrunk.
        activation: ``(h, w)``, above 0 where a region supports the class: from `carcond.model.explain.activation_map`.
        caption: text above the picture.
        greatest: activation of the brightest colour. Default: the map's maximum.
    """
    shown = _shrink(photo)
    top = float(activation.max()) if greatest is None else greatest
    heat = _heat(activation, top, shown.size)
    picture = Image.new("RGB", (shown.width + _BAR_ROOM, shown.height + _CAPTION_ROOM), _PAPER)
    # In grey: rust, mud and red paint would look like heat.
    picture.paste(shown.convert("L"), (0, _CAPTION_ROOM))
    picture.paste(_coloured(heat), (0, _CAPTION_ROOM), mask=heat.point(_STRENGTHS))
    ImageDraw.Draw(picture).text((4, 4), caption, _INK, _font())
    _draw_bar(picture, shown.width + 8, top)
    return picture


def side_by_side(pictures: Sequence[Image.Image]) -> Image.Image:
    """Pictures in a row; at least one."""
    row = Image.new("RGB", (sum(each.width for each in pictures), max(each.height for each in pictures)), _PAPER)
    left = 0
    for each in pictures:
        row.paste(each, (left, 0))
        left += each.width
    return row


def _shrink(photo: Image.Image) -> Image.Image:
    scale = min(1.0, PHOTO_SIDE / max(photo.size))
    size = (max(1, round(photo.width * scale)), max(1, round(photo.height * scale)))
    return photo if size == photo.size else photo.resize(size, Image.Resampling.BILINEAR, reducing_gap=2)


def _heat(activation: FloatArray, greatest: float, size: tuple[int, int]) -> Image.Image:
    """The positive part of a map as grey levels, stretched smoothly."""
    share = np.clip(activation / greatest, 0, 1) if greatest > 0 else np.zeros_like(activation)
    levels: npt.NDArray[np.uint8] = np.round(255 * share).astype(np.uint8)
    return Image.fromarray(levels).resize(size, Image.Resampling.BICUBIC)


def _coloured(heat: Image.Image) -> Image.Image:
    coloured = heat.copy()
    coloured.putpalette(_palette())
    return coloured.convert("RGB")


@cache
def _palette() -> bytes:
    """The colours of 256 levels, three bytes each."""
    at = np.linspace(0, 255, len(_COLOURS))
    channels = [np.interp(np.arange(256), at, channel) for channel in zip(*_COLOURS, strict=True)]
    return np.stack(channels, axis=1).round().astype(np.uint8).tobytes()


@cache
def _font() -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(_FONT_SIZE)


def _draw_bar(picture: Image.Image, left: int, greatest: float) -> None:
    """The colours from nothing to the greatest activation, in logits, upwards."""
    height = picture.height - _CAPTION_ROOM
    levels = np.linspace(255, 0, height).astype(np.uint8)[:, np.newaxis]
    bar = Image.fromarray(np.repeat(levels, _BAR_WIDTH, axis=1))
    picture.paste(_coloured(bar), (left, _CAPTION_ROOM))
    draw = ImageDraw.Draw(picture)
    beside = left + _BAR_WIDTH + 4
    draw.text((beside, _CAPTION_ROOM), f"{max(greatest, 0):.1f}", _INK, _font())
    draw.text((beside, picture.height - 4), "0", _INK, _font(), anchor="ls")
