"""A drawn car, clean and intact: shapes, paint, windows and wheels.

Shapes are given in units of a hundredth of a car's length, x from nose to tail and y upwards from the road.
"""

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

Points = list[tuple[float, float]]
Colour = tuple[int, int, int]

CANVAS = (1280, 960)
"""Cars are drawn at twice their size and shrunk, which smooths the edges."""

_GLASS: Colour = (58, 72, 86)
_RUBBER: Colour = (28, 28, 30)
_PAINTS: tuple[Colour, ...] = (
    (190, 30, 35),
    (35, 70, 150),
    (235, 235, 232),
    (45, 48, 52),
    (165, 170, 176),
    (30, 105, 70),
    (225, 170, 40),
    (120, 35, 60),
    (95, 145, 190),
    (215, 95, 35),
)


@dataclass(frozen=True)
class DrawnCar:
    """A car on a transparent canvas.

    Attributes:
        layer: RGBA, `CANVAS` pixels.
        body: L, 255 where there is painted metal.
        glass: L, 255 where there are windows.
        paint: colour of the body.
    """

    layer: Image.Image
    body: Image.Image
    glass: Image.Image
    paint: Colour


@dataclass(frozen=True)
class _Shape:
    """Outline from the lower nose over the roof to the lower tail, windows, wheels as (x, y, radius), and lines."""

    outline: Points
    windows: tuple[Points, ...]
    wheels: tuple[tuple[float, float, float], ...]
    scale: float
    front: bool = False


_SIDE_WHEELS = ((19.0, 8.0, 8.0), (80.0, 8.0, 8.0))

_SHAPES: tuple[_Shape, ...] = (
    _Shape(  # saloon
        [(0, 6), (0, 18), (5, 22), (26, 25), (37, 37), (48, 39), (62, 39), (78, 26), (98, 25), (100, 18), (100, 6)],
        ([(30, 25.5), (38.5, 35.5), (51, 37), (51, 25.5)], [(53, 25.5), (53, 37), (61, 37), (73, 25.5)]),
        _SIDE_WHEELS,
        9.0,
    ),
    _Shape(  # hatchback
        [(4, 6), (4, 18), (9, 22), (27, 25), (39, 38), (52, 40), (78, 39), (93, 27), (96, 20), (96, 6)],
        ([(31, 25.5), (40.5, 36.5), (55, 38), (55, 25.5)], [(57, 25.5), (57, 38), (77, 37), (87, 27)]),
        _SIDE_WHEELS,
        9.2,
    ),
    _Shape(  # off-roader
        [(1, 8), (1, 22), (6, 27), (26, 29), (35, 44), (50, 46), (92, 45), (98, 29), (99, 20), (99, 8)],
        (
            [(30, 30), (37, 42.5), (52, 43.5), (52, 30)],
            [(54, 30), (54, 43.5), (71, 43.5), (71, 30)],
            [(73, 30), (73, 43.5), (90, 42.5), (94, 30)],
        ),
        ((20.0, 9.0, 9.5), (79.0, 9.0, 9.5)),
        8.6,
    ),
    _Shape(  # van
        [(1, 6), (1, 20), (7, 26), (18, 30), (29, 47), (40, 49), (96, 49), (99, 40), (99, 6)],
        ([(21, 31), (30, 45), (42, 46), (42, 31)], [(45, 31), (45, 46), (62, 46), (62, 31)]),
        ((18.0, 8.0, 8.0), (80.0, 8.0, 8.0)),
        8.8,
    ),
    _Shape(  # pick-up
        [(0, 8), (0, 22), (5, 26), (26, 28), (36, 43), (45, 44), (56, 44), (60, 28), (99, 28), (100, 20), (100, 8)],
        ([(30, 29), (37.5, 41), (46, 42), (46, 29)], [(48, 29), (48, 42), (54, 42), (57, 29)]),
        ((19.0, 9.0, 9.0), (80.0, 9.0, 9.0)),
        8.8,
    ),
    _Shape(  # seen from the front
        [(0, 5), (-1, 20), (3, 26), (10, 40), (17, 43), (39, 43), (46, 40), (53, 26), (57, 20), (56, 5)],
        ([(8, 27), (13.5, 38), (19, 40), (37, 40), (42.5, 38), (48, 27)],),
        ((6.0, 5.0, 5.5), (50.0, 5.0, 5.5)),
        12.0,
        front=True,
    ),
)


def draw_car(rng: np.random.Generator) -> DrawnCar:
    """Draw a clean, intact car of random shape and colour in the middle of the canvas."""
    shape = _SHAPES[rng.integers(len(_SHAPES))]
    paint = _vary(_PAINTS[rng.integers(len(_PAINTS))], rng)
    outline = _to_canvas(_smooth(shape.outline), shape)
    windows = [_to_canvas(_smooth(window, rounds=1), shape) for window in shape.windows]
    layer = Image.new("RGBA", CANVAS)
    draw = ImageDraw.Draw(layer)
    if shape.front:
        _draw_wheels(draw, shape)
    draw.polygon(outline, fill=paint)
    layer = _shade(layer)
    draw = ImageDraw.Draw(layer)
    for window in windows:
        draw.polygon(window, fill=_GLASS, outline=_darker(paint, 0.45), width=5)
        _draw_reflection(draw, window)
    if shape.front:
        _draw_face(draw, shape, paint)
    else:
        _draw_side_details(draw, shape, paint)
        _draw_wheels(draw, shape)
    glass = _mask(windows)
    return DrawnCar(layer, _without(_mask([outline]), glass, shape), glass, paint)


def _vary(colour: Colour, rng: np.random.Generator) -> Colour:
    red, green, blue = (int(np.clip(channel + rng.integers(-18, 19), 0, 255)) for channel in colour)
    return red, green, blue


def _darker(colour: Colour, share: float) -> Colour:
    red, green, blue = (int(channel * share) for channel in colour)
    return red, green, blue


def _smooth(points: Points, rounds: int = 3) -> Points:
    """Cut the corners of an open line again and again (Chaikin's curve); its ends stay."""
    for _ in range(rounds):
        line = np.asarray(points)
        cut = np.stack([0.75 * line[:-1] + 0.25 * line[1:], 0.25 * line[:-1] + 0.75 * line[1:]], axis=1)
        points = [(float(x), float(y)) for x, y in [line[0], *cut.reshape(-1, 2), line[-1]]]
    return points


def _to_canvas(points: Points, shape: _Shape) -> Points:
    middle = 28 if shape.front else 50
    return [(CANVAS[0] / 2 + (x - middle) * shape.scale, 730 - y * shape.scale) for x, y in points]


def _mask(polygons: list[Points]) -> Image.Image:
    mask = Image.new("L", CANVAS)
    draw = ImageDraw.Draw(mask)
    for polygon in polygons:
        draw.polygon(polygon, fill=255)
    return mask


def _without(body: Image.Image, glass: Image.Image, shape: _Shape) -> Image.Image:
    body.paste(0, mask=glass)
    draw = ImageDraw.Draw(body)
    for wheel in () if shape.front else shape.wheels:
        _circle(draw, shape, wheel, 1.2, (0, 0, 0))
    return body


def _shade(layer: Image.Image) -> Image.Image:
    """Light from above: bright shoulders, dark sills."""
    _, top, _, bottom = layer.getbbox() or (0, 0, *CANVAS)
    light = np.interp(np.linspace(0, 1, bottom - top), [0, 0.3, 0.5, 0.55, 1], [1.1, 1.0, 1.15, 0.95, 0.62])
    pixels = np.array(layer)
    car = pixels[top:bottom, :, :3]
    car[:] = np.clip(car * light[:, None, None].astype(np.float32), 0, 255)
    return Image.fromarray(pixels)


def _draw_reflection(draw: ImageDraw.ImageDraw, window: Points) -> None:
    xs, ys = [x for x, _ in window], [y for _, y in window]
    left, top, width, height = min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)
    start = left + 0.5 * width
    draw.line([(start, top + 0.2 * height), (start - 0.15 * width, top + 0.75 * height)], (120, 140, 155), 9)


def _circle(
    draw: ImageDraw.ImageDraw, shape: _Shape, wheel: tuple[float, float, float], share: float, fill: Colour
) -> None:
    (centre,) = _to_canvas([wheel[:2]], shape)
    draw.circle(centre, wheel[2] * shape.scale * share, fill=fill[0] if draw.mode == "L" else fill)


def _draw_wheels(draw: ImageDraw.ImageDraw, shape: _Shape) -> None:
    if shape.front:
        for x, _, _ in shape.wheels:
            draw.rectangle([*_to_canvas([(x - 5, 9)], shape)[0], *_to_canvas([(x + 5, 0)], shape)[0]], fill=_RUBBER)
        return
    for wheel in shape.wheels:
        for share, fill in ((1.2, (15, 15, 17)), (1.0, _RUBBER), (0.66, (175, 178, 182)), (0.2, (90, 92, 95))):
            _circle(draw, shape, wheel, share, fill)


def _draw_side_details(draw: ImageDraw.ImageDraw, shape: _Shape, paint: Colour) -> None:
    waist, nose, tail = shape.windows[0][0][1] - 2, shape.outline[1][0], shape.outline[-2][0]
    seam = _darker(paint, 0.5)
    for x in (window[-1][0] + 1 for window in shape.windows[:2]):
        draw.line(_to_canvas([(min(x, 71), waist + 2), (min(x, 71), 7)], shape), seam, 4)
        draw.line(_to_canvas([(min(x, 71) - 6, waist - 1), (min(x, 71) - 2, waist - 1)], shape), seam, 9)
    draw.line(_to_canvas([(nose + 11, 6.6), (tail - 11, 6.6)], shape), _RUBBER, 14)
    lamp_y = shape.outline[1][1]
    draw.ellipse(
        [*_to_canvas([(nose + 1, lamp_y + 1)], shape)[0], *_to_canvas([(nose + 7, lamp_y - 3)], shape)[0]],
        (250, 245, 205),
    )
    draw.ellipse(
        [*_to_canvas([(tail - 4, lamp_y + 2)], shape)[0], *_to_canvas([(tail - 1, lamp_y - 3)], shape)[0]],
        (160, 15, 20),
    )


def _draw_face(draw: ImageDraw.ImageDraw, shape: _Shape, paint: Colour) -> None:
    def box(left: float, top: float, right: float, bottom: float) -> list[float]:
        return [*_to_canvas([(left, top)], shape)[0], *_to_canvas([(right, bottom)], shape)[0]]

    draw.line(_to_canvas([(4, 25), (52, 25)], shape), _darker(paint, 0.6), 4)
    draw.rounded_rectangle(box(17, 20, 39, 14), 20, (30, 30, 32))
    for y in (18.5, 17, 15.5):
        draw.line(_to_canvas([(18, y), (38, y)], shape), (110, 112, 115), 4)
    for left in (3, 43):
        draw.ellipse(box(left, 21, left + 10, 15), (250, 245, 215), _darker(paint, 0.4), 4)
    draw.rectangle(box(20, 11, 36, 8), (245, 245, 245), (40, 40, 40), 3)
    draw.rounded_rectangle(box(2, 7.5, 54, 5), 10, (45, 45, 48))
