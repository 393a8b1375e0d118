"""The condition of a car in the form that mobile applications show, with messages in English and Russian."""

from collections.abc import Mapping
from typing import Any, Literal

from carcond.data.photo_checks import LEAST_SIDE, MIN_SIDE, Fault, Remark
from carcond.model.inference import CarCondition, TaskCondition
from carcond.taxonomy import CLEANLINESS, DAMAGE

Language = Literal["en", "ru"]
LANGUAGES: tuple[Language, ...] = ("en", "ru")

UNKNOWN_STATUS = "unknown"
"""Status of a task without a prediction; its confidence is 0."""

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
        "en": f"The photo is too small: please send one of at least {LEAST_SIDE}x{LEAST_SIDE} pixels.",
        "ru": f"Фото слишком маленькое: нужно не меньше {LEAST_SIDE}×{LEAST_SIDE} пикселей.",
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

_REMARK_MESSAGES: Mapping[Remark, Mapping[Language, str]] = {
    Remark.SMALL: {
        "en": f"Small photo: less reliable. Better send one of at least {MIN_SIDE}x{MIN_SIDE} pixels.",
        "ru": f"Маленькое фото: ответ менее надёжен. Лучше прислать не меньше {MIN_SIDE}×{MIN_SIDE} пикселей.",
    },
}


def fault_message(fault: Fault, language: Language) -> str:
    """Message about a fault, for the person who took the photo."""
    return _FAULT_MESSAGES[fault][language]


def remark_message(remark: Remark, language: Language) -> str:
    """Message about a remark, for the person who took the photo."""
    return _REMARK_MESSAGES[remark][language]


def car_condition_form(car: CarCondition, language: Language) -> dict[str, Any]:
    """The JSON object that stands under `car_condition` in mobile applications.

    Returns:
        `cleanliness` with `status`, `confidence` and `display_message`; `damage` with `status`, `confidence` and
        `safety_level` (see `safety_level`). When no photo is fit for prediction, both are unknown and the message
        gives the remedy.
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
    """Safety level of driving the car, as far as visible in photos.

    Returns:
        "high" when confidently intact, "low" when confidently damaged, "medium" when the confidence is low,
        "unknown" without a prediction.
    """
    if damage is None:
        return UNKNOWN_STATUS
    if not damage.is_sure:
        return "medium"
    return "high" if damage.status == "intact" else "low"
