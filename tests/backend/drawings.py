"""Pictures that stand for photos of cars: distinct for the eye of a hash, and coloured by their condition."""

from io import BytesIO

import numpy as np
from PIL import Image

_COLOUR_BY_CLEANLINESS = {"clean": (40, 90, 220), "slightly_dirty": (150, 150, 60), "very_dirty": (110, 60, 20)}


def draw_photo(seed: int, cleanliness: str = "clean", damage: str = "intact") -> bytes:
    """A JPEG: the hue tells the cleanliness, stripes tell the damage, blocks make it one of its kind."""
    rng = np.random.default_rng(seed)
    blocks = rng.integers(0, 255, size=(8, 12, 1)).repeat(16, axis=0).repeat(16, axis=1)
    colour = np.array(_COLOUR_BY_CLEANLINESS[cleanliness])
    pixels = 0.35 * blocks + 0.65 * colour
    if damage == "damaged":
        pixels[::4] = 255
    file = BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(file, "JPEG", quality=90)
    return file.getvalue()
