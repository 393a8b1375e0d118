"""The condition of a car in the form that mobile applications show, with messages in English and Russian."""

from collections.abc import Mapping
from typing import Any, Literal

from carcond.condition import CarCondition, TaskCondition
from carcond.photo_checks import Fault
from carcond.quality import MIN_SIDE
from carcond.taxonomy import CLEANLINESS, DAMAGE

Language = Literal["en", "ru"]
LANGUAGES: tuple[Language, ...] = ("en", "ru")

UNKNOWN_STATUS = "unknown"
"""Status of a task of which nothing is known; its confidence is 0."""

_CLEANLINESS_MESSAGES: Mapping[str, Mapping[Language, str]] = {
    "clean": {"en": "The car is clean. Nice!", "ru": "Машина чистая, так держать!"},
    "slightly_dirty": {
        "en": "There is some dirt: a wash would be good soon.",
        "ru": "Есть немного грязи: скоро пора на мойку.",
    },
    "very_dirty": {
        "en": "The car is very dirty: please wash it before the next ride.",
        "ru": "Машина очень грязная: пожалуйста, вымойте её до следующей поездки.",
    },
    UNKNOWN_STATUS: {
        "en": "The cleanliness cannot be told yet.",
        "ru": "Чистоту пока определить нельзя.",
    },
}

_FAULT_MESSAGES: Mapping[Fault, Mapping[Language, str]] = {
    Fault.TOO_SMALL: {
        "en": f"The photo is too small: please send one of at least {MIN_SIDE}x{MIN_SIDE} pixels.",
        "ru": f"Фото слишком маленькое: нужно не меньше {MIN_SIDE}×{MIN_SIDE} пикселей.",
    },
    Fault.TOO_DARK: {
        "en": "The photo is too dark: please take it again in better light.",
        "ru": "Фото слишком тёмное: снимите ещё раз при хорошем свете.",
    },
    Fault.TOO_BLURRED: {
        "en": "The photo is blurred: please hold still and take it again.",
        "ru": "Фото смазано: снимите ещё раз, не двигая камеру.",
    },
    Fault.NOT_A_CAR: {
        "en": "This is probably not a car: please show the whole car.",
        "ru": "Похоже, на фото нет машины: снимите автомобиль целиком.",
    },
}


def fault_message(fault: Fault, language: Language) -> str:
    """What to tell the person who took a photo."""
    return _FAULT_MESSAGES[fault][language]


def car_condition_form(car: CarCondition, language: Language) -> dict[str, Any]:
    """The JSON object that stands under `car_condition` in mobile applications.

    Returns:
        `cleanliness` with `status`, `confidence` and `display_message`; `damage` with `status`, `confidence` and
        `safety_level` (see `safety_level`). When no photo is fit to be judged, both are unknown and the message says
        what to do about it.
    """
    cleanliness, damage = car.by_task.get(CLEANLINESS.key), car.by_task.get(DAMAGE.key)
    status = status_of(cleanliness)
    message = fault_message(car.faults[0], language) if car.faults else _CLEANLINESS_MESSAGES[status][language]
    return {
        "cleanliness": {"status": status, "confidence": confidence_of(cleanliness), "display_message": message},
        "damage": {
            "status": status_of(damage),
            "confidence": confidence_of(damage),
            "safety_level": safety_level(damage),
        },
    }


def status_of(condition: TaskCondition | None) -> str:
    """Key of the class, "unknown" when nothing is known."""
    return condition.status if condition else UNKNOWN_STATUS


def confidence_of(condition: TaskCondition | None) -> float:
    """Calibrated probability of the class, rounded; 0 when nothing is known."""
    return round(condition.confidence, 4) if condition else 0.0


def safety_level(damage: TaskCondition | None) -> str:
    """How safe the car is to drive as far as a photo tells.

    Returns:
        "high" when it is surely intact, "low" when it is surely damaged, "medium" when it is unsure which,
        "unknown" when nothing is known.
    """
    if damage is None:
        return UNKNOWN_STATUS
    if not damage.is_sure:
        return "medium"
    return "high" if damage.status == "intact" else "low"
