"""Drawn pictures of cars, clean and dirty, intact and damaged, for trying the whole loop without any photos.

They are plainly drawings. A model learns them quickly, but its accuracy does not carry over to photos.
"""

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops, ImageDraw, ImageFilter

from carcond.data.synthetic_car import CANVAS, Colour, DrawnCar, draw_car
from carcond.taxonomy import CLEANLINESS, DAMAGE

SIZE = (640, 480)

_MUD: Colour = (112, 88, 60)
_SKIES: tuple[tuple[Colour, Colour], ...] = (
    ((120, 170, 225), (215, 230, 240)),
    ((170, 175, 182), (215, 216, 218)),
    ((70, 85, 120), (235, 170, 120)),
    ((205, 200, 190), (190, 184, 172)),
)
_GROUNDS: tuple[Colour, ...] = ((95, 96, 98), (140, 136, 128), (98, 122, 70), (170, 150, 115), (75, 75, 80))


@dataclass(frozen=True)
class Sample:
    """Classes of a drawing: class keys of `carcond.taxonomy`."""

    file: str
    damage: str
    cleanliness: str


def draw_samples(directory: Path, count: int, seed: int, *, labels: bool = False) -> list[Path]:
    """Draw pictures of cars as JPEG files of 640x480 pixels.

    Args:
        directory: of the files; made when missing.
        count: number of pictures.
        seed: the same seed draws the same pictures; a larger count only adds further ones.
        labels: also write `labels.csv` with the columns file, damage, cleanliness. File names contain no label.

    Returns:
        The pictures' paths, in order.
    """
    directory.mkdir(parents=True, exist_ok=True)
    samples = [_draw_sample(directory, index, seed) for index in range(count)]
    if labels:
        _write_labels(directory / "labels.csv", samples)
    return [directory / sample.file for sample in samples]


def _draw_sample(directory: Path, index: int, seed: int) -> Sample:
    rng = np.random.default_rng([seed, index])
    cleanliness = CLEANLINESS.class_keys[rng.choice(3, p=[0.4, 0.3, 0.3])]
    damage = DAMAGE.class_keys[rng.integers(2)]
    sample = Sample(f"car_{index:04d}.jpg", damage, cleanliness)
    draw_picture(rng, damage=damage, cleanliness=cleanliness).save(directory / sample.file, quality=88)
    return sample


def _write_labels(path: Path, samples: list[Sample]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["file", "damage", "cleanliness"])
        writer.writerows([sample.file, sample.damage, sample.cleanliness] for sample in samples)


def draw_picture(rng: np.random.Generator, *, damage: str, cleanliness: str) -> Image.Image:
    """Draw one car somewhere: RGB, 640x480 pixels.

    Args:
        rng: everything but the classes is drawn from it.
        damage: class key of the damage task.
        cleanliness: class key of the cleanliness task.
    """
    car = draw_car(rng)
    layer = car.layer
    if cleanliness != "clean":
        layer = _soil(layer, rng, very=cleanliness == "very_dirty")
    if damage == "damaged":
        layer = _damage(layer, car, rng)
    scene = _draw_scene(rng)
    placed = _place(layer, rng)
    for part in (_shadow(placed), placed):
        scene.paste(part, mask=part.getchannel("A"))
    return _develop(scene, rng)


def _damage(layer: Image.Image, car: DrawnCar, rng: np.random.Generator) -> Image.Image:
    kinds = rng.permutation(["crumple", "scratch", "glass"])[: rng.integers(1, 4)]
    marks = Image.new("RGBA", CANVAS)
    for kind in kinds:
        where = car.glass if kind == "glass" else car.body
        mark = {"crumple": _crumple, "scratch": _scratches, "glass": _cracks}[str(kind)](
            _spot(where, rng), car.paint, rng
        )
        mark.putalpha(ImageChops.multiply(mark.getchannel("A"), where))
        marks.alpha_composite(mark)
    return Image.alpha_composite(layer, marks)


def _spot(mask: Image.Image, rng: np.random.Generator) -> tuple[float, float]:
    """A point at some distance from the edges of the mask."""
    cell = 20
    rows, columns = np.nonzero(np.asarray(mask.reduce(cell)) == 255)
    chosen = rng.integers(len(rows))
    return (float(columns[chosen]) + 0.5) * cell, (float(rows[chosen]) + 0.5) * cell


def _crumple(spot: tuple[float, float], paint: Colour, rng: np.random.Generator) -> Image.Image:
    """Bent metal: facets of many shades around a point, with dark creases."""
    mark = Image.new("RGBA", CANVAS)
    draw = ImageDraw.Draw(mark)
    for reach in (rng.uniform(90, 150), rng.uniform(45, 75)):
        corners = _ring(spot, reach, 9, rng)
        for first, second in zip(corners, corners[1:] + corners[:1], strict=True):
            shade = rng.uniform(0.3, 1.45)
            red, green, blue = (int(min(255, channel * shade + 12)) for channel in paint)
            draw.polygon([spot, first, second], fill=(red, green, blue, 255))
            draw.line([first, spot], (15, 15, 18, 255), int(rng.integers(2, 6)))
    return mark


def _ring(spot: tuple[float, float], reach: float, count: int, rng: np.random.Generator) -> list[tuple[float, float]]:
    angles = np.linspace(0, 2 * np.pi, count, endpoint=False) + rng.uniform(-0.25, 0.25, count)
    reaches = reach * rng.uniform(0.6, 1.1, count)
    return [(spot[0] + r * np.cos(a), spot[1] + 0.75 * r * np.sin(a)) for a, r in zip(angles, reaches, strict=True)]


def _scratches(spot: tuple[float, float], paint: Colour, rng: np.random.Generator) -> Image.Image:
    """Parallel strokes down to the primer: bright on dark paint, dark on bright."""
    mark = Image.new("RGBA", CANVAS)
    draw = ImageDraw.Draw(mark)
    colour = (40, 38, 36, 255) if sum(paint) > 450 else (225, 222, 215, 255)
    slope = rng.uniform(-0.5, 0.5)
    for _ in range(rng.integers(5, 12)):
        x, y = spot[0] + rng.uniform(-60, 60), spot[1] + rng.uniform(-35, 35)
        steps = np.linspace(-1, 1, 6) * rng.uniform(60, 170)
        line = [(x + step, y + slope * step + rng.uniform(-4, 4)) for step in steps]
        draw.line(line, colour, int(rng.integers(2, 6)))
    return mark


def _cracks(spot: tuple[float, float], paint: Colour, rng: np.random.Generator) -> Image.Image:
    """A hole in the glass with rays and rings around it."""
    mark = Image.new("RGBA", CANVAS)
    draw = ImageDraw.Draw(mark)
    ends = _ring(spot, rng.uniform(170, 260), 15, rng)
    for x, y in ends:
        middle = ((spot[0] + x) / 2 + rng.uniform(-14, 14), (spot[1] + y) / 2 + rng.uniform(-14, 14))
        draw.line([spot, middle, (x, y)], (235, 240, 244, 240), int(rng.integers(2, 5)))
    for reach in rng.uniform(30, 120, 3):
        ring = _ring(spot, reach, 12, rng)
        draw.line([*ring, ring[0]], (225, 232, 238, 220), 3)
    draw.polygon(_ring(spot, rng.uniform(14, 34), 8, rng), (10, 10, 12, 255))
    return mark


def _soil(layer: Image.Image, rng: np.random.Generator, *, very: bool) -> Image.Image:
    """Dust thrown up from the road: thickest at the sills, in clouds and splashes."""
    alpha = layer.getchannel("A")
    rows = np.flatnonzero(np.asarray(alpha).any(axis=1))
    height = np.clip((np.arange(CANVAS[1]) - rows[0]) / len(rows), 0, 1)
    low, high = (0.35, 0.85) if very else (0.06, 0.5)
    thickness = np.interp(height, [0.1, 1], [low, high])[:, None] * (0.55 + 0.9 * _clouds(rng))
    cover = Image.fromarray((np.clip(thickness, 0, 0.93) * 255).astype(np.uint8))
    cover = ImageChops.lighter(cover, _splashes(rng, rows, 260 if very else 60))
    mud = Image.new("RGBA", CANVAS, tuple(int(c * rng.uniform(0.85, 1.2)) for c in _MUD))
    mud.putalpha(ImageChops.multiply(cover, alpha))
    return Image.alpha_composite(layer, mud)


def _clouds(rng: np.random.Generator) -> NDArray[np.float32]:
    """Smooth noise, 0..1, (height, width) of the canvas."""
    total = np.zeros((CANVAS[1], CANVAS[0]), np.float32)
    for cells, share in ((6, 0.5), (18, 0.3), (60, 0.2)):
        noise = Image.fromarray(rng.random((cells, cells), np.float32))
        total += share * np.asarray(noise.resize(CANVAS, Image.Resampling.BICUBIC))
    return np.clip(total, 0, 1)


def _splashes(rng: np.random.Generator, rows: NDArray[np.intp], count: int) -> Image.Image:
    mask = Image.new("L", CANVAS)
    draw = ImageDraw.Draw(mask)
    for _ in range(count):
        y = rows[0] + len(rows) * (1 - rng.random() ** 1.7 * 0.8)
        draw.circle((rng.uniform(150, 1130), y), rng.uniform(2, 13), fill=int(rng.integers(140, 235)))
    return mask.filter(ImageFilter.BoxBlur(1.5))


def _draw_scene(rng: np.random.Generator) -> Image.Image:
    width, height = SIZE
    top, bottom = _SKIES[rng.integers(len(_SKIES))]
    share = np.linspace(0, 1, height)[:, None, None]
    sky = np.broadcast_to((1 - share) * np.array(top) + share * np.array(bottom), (height, width, 3))
    scene = Image.fromarray(sky.astype(np.uint8))
    draw = ImageDraw.Draw(scene)
    horizon = int(rng.integers(215, 300))
    if rng.random() < 0.7:
        _draw_houses(draw, horizon, rng)
    ground = np.array(_GROUNDS[rng.integers(len(_GROUNDS))])
    for y in range(horizon, height):
        draw.line([(0, y), (width, y)], tuple((ground * (0.8 + 0.3 * (y - horizon) / 225)).astype(int)))
    return scene.filter(ImageFilter.BoxBlur(rng.uniform(0.5, 2)))


def _draw_houses(draw: ImageDraw.ImageDraw, horizon: int, rng: np.random.Generator) -> None:
    x = -int(rng.integers(0, 50))
    while x < SIZE[0]:
        width, height = int(rng.integers(45, 150)), int(rng.integers(30, 190))
        grey = int(rng.integers(90, 200))
        wall = (grey, grey - int(rng.integers(0, 25)), grey - int(rng.integers(0, 45)))
        draw.rectangle([x, horizon - height, x + width, horizon], fill=wall)
        for left in range(x + 10, x + width - 15, 28):
            for top in range(horizon - height + 10, horizon - 25, 35):
                draw.rectangle([left, top, left + 13, top + 18], fill=(70, 80, 92))
        x += width + int(rng.integers(0, 30))


def _place(layer: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Shrink to the picture's size, turn to one side or the other, tilt in perspective, scale and shift."""
    layer = layer.reduce(2)
    if rng.random() < 0.5:
        layer = layer.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    width, height = SIZE
    zoom = rng.uniform(0.92, 1.3)
    shift_x, shift_y = rng.uniform(-45, 45), rng.uniform(-20, 45)
    left, right = 1 + rng.uniform(-0.16, 0.16), 1 + rng.uniform(-0.16, 0.16)

    def source(x: float, y: float, stretch: float) -> tuple[float, float]:
        return width / 2 + x * width / 2 * zoom + shift_x, 280 + y * height / 2 * zoom * stretch - shift_y

    corners = source(-1, -1, left) + source(-1, 1, left) + source(1, 1, right) + source(1, -1, right)
    return layer.transform(SIZE, Image.Transform.QUAD, corners, Image.Resampling.BICUBIC)


def _shadow(layer: Image.Image) -> Image.Image:
    """A flat dark patch under the car."""
    left, _, right, bottom = layer.getchannel("A").getbbox() or (0, 0, *SIZE)
    mask = Image.new("L", SIZE)
    ImageDraw.Draw(mask).ellipse([left + 5, bottom - 23, right - 5, bottom + 11], fill=150)
    shadow = Image.new("RGBA", SIZE, (12, 12, 14))
    shadow.putalpha(mask.filter(ImageFilter.BoxBlur(6)))
    return shadow


def _develop(scene: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Light and grain."""
    pixels = np.asarray(scene, np.float32)
    grain = rng.uniform(1, 4) * rng.standard_normal(pixels.shape, np.float32)
    return Image.fromarray(np.clip(pixels * rng.uniform(0.75, 1.12) + grain, 0, 255).astype(np.uint8))
