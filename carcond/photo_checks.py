"""What makes a photo unfit to be judged. Each is an answer of its own: a guess would look like one."""

from dataclasses import dataclass
from enum import StrEnum

from carcond.images import Look
from carcond.quality import BLURRED, DARK, MIN_SIDE

NOT_A_CAR = 0.015
"""Below this probability of a car or a part of one (`carcond.car_head`), a photo probably shows none.

With EfficientNet-Lite0, 22 of 26 pictures of other things are below it, and 1.0 % of 1 645 real photos of cars: all of
these are close views of a scratch or dent, whole cars have at least 0.1.
"""


class Fault(StrEnum):
    """Why a photo is not judged."""

    TOO_SMALL = "too_small"
    TOO_DARK = "too_dark"
    TOO_BLURRED = "too_blurred"
    NOT_A_CAR = "not_a_car"


@dataclass(frozen=True)
class PhotoChecks:
    """What was found out about a photo before its condition is believed.

    Attributes:
        look: size, sharpness and brightness.
        car_probability: that it shows a car; None when the encoder cannot tell.
    """

    look: Look
    car_probability: float | None

    @property
    def faults(self) -> tuple[Fault, ...]:
        """Why the photo is not judged; empty when it is fine."""
        found = {
            Fault.TOO_SMALL: min(self.look.width, self.look.height) < MIN_SIDE,
            Fault.TOO_DARK: self.look.brightness < DARK,
            Fault.TOO_BLURRED: self.look.sharpness < BLURRED,
            Fault.NOT_A_CAR: self.car_probability is not None and self.car_probability < NOT_A_CAR,
        }
        return tuple(fault for fault, is_so in found.items() if is_so)
