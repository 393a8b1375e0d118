"""Checks of photos: faults that forbid a prediction, and remarks on less reliable ones.

A fault replaces the answer, since a guess would look like one. A remark accompanies an answer.
"""

from dataclasses import dataclass
from enum import StrEnum

from carcond.data.images import ImageStats

MIN_SIDE = 300
"""Minimum length of a photo's shorter side without the remark that it is small, in pixels."""
BLURRED = 0.25
"""Minimum sharpness (`carcond.data.images.ImageStats`); below it, a photo is blurred.

Of 1 645 real car photos 0.2 % are below it; of a third of them, blurred by a Gaussian of 0.4 % of the longer side,
91 %.
"""
DARK = 0.13
"""Minimum brightness; below it, a photo is too dark: the five of 1 645 real car photos below it are nearly black."""
BRIGHT = 0.85
"""Maximum brightness; above it, a photo is over-exposed, or a cut-out on white: three of 1 645, all cut-outs."""
NOT_A_CAR = 0.015
"""Minimum probability of a car or a part of one (`carcond.model.car_detector`).

With EfficientNet-Lite0, 22 of 26 pictures of other things are below it, and 1.0 % of 1 645 real photos of cars: all of
these are close views of a scratch or dent, whole cars have at least 0.1.
"""

LEAST_SIDE = 150
"""Minimum length of a photo's shorter side for a prediction, in pixels; below `MIN_SIDE` it gets a remark.

Heads fitted on 1 260 photos (EfficientNet-Lite0, damage) are right on 166 others of at least 300 pixels in 96 of 100;
scaled down to a shorter side of 300 in 96, 200 in 94, 160 in 92, 150 in 89, 128 in 79, and 112 in 69. Of 1 645 real
photos 3 have less than 150.
"""


class Fault(StrEnum):
    """Reason for which a photo gets no prediction."""

    TOO_SMALL = "too_small"
    TOO_DARK = "too_dark"
    TOO_BLURRED = "too_blurred"
    NOT_A_CAR = "not_a_car"


class Remark(StrEnum):
    """Reason for which a prediction is less reliable."""

    SMALL = "small"


@dataclass(frozen=True)
class PhotoChecks:
    """Measurements of a photo that its prediction is checked by.

    Attributes:
        look: size, sharpness and brightness.
        car_probability: probability of a car; None when the encoder has no car classifier.
    """

    stats: ImageStats
    car_probability: float | None

    @property
    def faults(self) -> tuple[Fault, ...]:
        """Faults of the photo; empty when it is fit for prediction."""
        found = {
            Fault.TOO_SMALL: self._side < LEAST_SIDE,
            Fault.TOO_DARK: self.stats.brightness < DARK,
            Fault.TOO_BLURRED: self.stats.sharpness < BLURRED,
            Fault.NOT_A_CAR: self.car_probability is not None and self.car_probability < NOT_A_CAR,
        }
        return tuple(fault for fault, is_so in found.items() if is_so)

    @property
    def remarks(self) -> tuple[Remark, ...]:
        """Reasons for which the prediction is less reliable; empty when there are none."""
        return (Remark.SMALL,) if LEAST_SIDE <= self._side < MIN_SIDE else ()

    @property
    def _side(self) -> int:
        return min(self.stats.width, self.stats.height)
