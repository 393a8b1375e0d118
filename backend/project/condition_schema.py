"""Requests and answers of the JSON API, as typed models: the OpenAPI document is made from them."""

from collections.abc import Mapping
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from carcond.data.photo_checks import Fault, Remark
from carcond.model.inference import CarCondition, PhotoCondition, TaskCondition
from carcond.reports.mobile_form import (
    Language,
    car_condition_form,
    confidence_of,
    fault_message,
    remark_message,
    status_of,
)
from carcond.taxonomy import CLEANLINESS, DAMAGE

PROBLEM_TYPE = "application/problem+json"
"""Media type of errors (RFC 9457)."""

Confidence = Field(ge=0, le=1, description="calibrated probability of the status; 0 when it is unknown")


class ShortRequest(BaseModel):
    """The fields of a request for the short answer, beside its photo."""

    model_config = ConfigDict(extra="forbid")

    project: int | None = Field(
        None, ge=1, lt=2**63, description="number in Label Studio; may be left out when there is one"
    )


class ConditionRequest(ShortRequest):
    """The fields of a request for the condition of a car, beside its photos."""

    language: Language = Field("en", description="of the messages")
    overlay: bool = Field(False, description="whether to draw the class activation maps over each photo")


class CleanlinessForm(BaseModel):
    """Cleanliness as mobile applications show it."""

    status: Literal["clean", "slightly_dirty", "very_dirty", "unknown"]
    confidence: float = Confidence
    display_message: str


class DamageForm(BaseModel):
    """Damage as mobile applications show it."""

    status: Literal["intact", "damaged", "unknown"]
    confidence: float = Confidence
    safety_level: Literal["high", "medium", "low", "unknown"]


class CarConditionForm(BaseModel):
    """The condition of a car as mobile applications show it."""

    cleanliness: CleanlinessForm
    damage: DamageForm


class TaskAnswer(BaseModel):
    """Prediction of one task."""

    status: str = Field(description="the most likely class")
    confidence: float = Confidence
    probabilities: dict[str, float] = Field(description="calibrated, of each class")

    @classmethod
    def of(cls, condition: TaskCondition) -> "TaskAnswer":
        """Round the prediction of a task."""
        rounded = zip(condition.task.class_keys, condition.probabilities, strict=True)
        probabilities = {key: round(float(probability), 4) for key, probability in rounded}
        return cls(status=condition.status, confidence=confidence_of(condition), probabilities=probabilities)


class PhotoAnswer(BaseModel):
    """Prediction of one photo."""

    file: str = Field(description="name of the file, as sent")
    faults: list[Fault] = Field(description="why it was not evaluated; empty when it was")
    remarks: list[Remark] = Field(description="why the answer is less reliable; empty when it is as good as any")
    width: int
    height: int
    sharpness: float = Field(description="below 0.25 the photo is blurred")
    brightness: float = Field(description="0 is black, 1 white")
    car_probability: float | None = Field(description="that it shows a car; null when the encoder has no car detector")
    tasks: dict[str, TaskAnswer] = Field(description="empty when there is a fault")
    overlay: str | None = Field(description="PNG in base64; null when not requested, or with a fault")

    @classmethod
    def of(cls, file: str, photo: PhotoCondition, overlay: str | None) -> "PhotoAnswer":
        """Round the prediction of a photo."""
        look, car = photo.checks.stats, photo.checks.car_probability
        return cls(
            file=file,
            faults=list(photo.checks.faults),
            remarks=list(photo.checks.remarks),
            width=look.width,
            height=look.height,
            sharpness=round(look.sharpness, 4),
            brightness=round(look.brightness, 4),
            car_probability=None if car is None else round(car, 4),
            tasks={} if photo.checks.faults else _tasks(photo.by_task),
            overlay=overlay,
        )


class ConditionAnswer(BaseModel):
    """The condition of a car, from all photos of a request."""

    project: int
    version: str = Field(description="of the model")
    car_condition: CarConditionForm
    tasks: dict[str, TaskAnswer] = Field(description="of the car; empty when no photo could be evaluated")
    faults: list[Fault] = Field(description="why no photo could be evaluated; empty when one could")
    remarks: list[Remark] = Field(description="why the condition is less reliable; empty when it is as good as any")
    messages: list[str] = Field(
        description="messages for the person who took the photos, one for each fault and each remark"
    )
    photos: list[PhotoAnswer]

    @classmethod
    def of(cls, project: int, car: CarCondition, photos: list[PhotoAnswer], language: Language) -> "ConditionAnswer":
        """Put the answer together."""
        return cls(
            project=project,
            version=car.version,
            car_condition=CarConditionForm.model_validate(car_condition_form(car, language)),
            tasks=_tasks(car.by_task),
            faults=list(car.faults),
            remarks=list(car.remarks),
            messages=[
                *(fault_message(fault, language) for fault in car.faults),
                *(remark_message(remark, language) for remark in car.remarks),
            ],
            photos=photos,
        )


class ShortConfidence(BaseModel):
    """Calibrated probabilities of both statuses; 0 when it is unknown."""

    cleanliness: float = Confidence
    damage: float = Confidence


class ShortAnswer(BaseModel):
    """The condition that one photo shows, in three fields."""

    cleanliness: Literal["clean", "slightly_dirty", "very_dirty", "unknown"]
    damage: Literal["intact", "damaged", "unknown"]
    confidence: ShortConfidence
    faults: list[Fault] | None = Field(None, description="why the photo was not evaluated; absent when it was")
    remarks: list[Remark] | None = Field(None, description="why the answer is less reliable; absent when it is not")

    @classmethod
    def of(cls, car: CarCondition) -> "ShortAnswer":
        """Put the answer together."""
        cleanliness, damage = car.by_task.get(CLEANLINESS.key), car.by_task.get(DAMAGE.key)
        return cls.model_validate(
            {
                "cleanliness": status_of(cleanliness),
                "damage": status_of(damage),
                "confidence": {"cleanliness": confidence_of(cleanliness), "damage": confidence_of(damage)},
                "faults": list(car.faults) or None,
                "remarks": list(car.remarks) or None,
            }
        )


class Problem(BaseModel):
    """Why a request failed (RFC 9457)."""

    title: str
    status: int
    detail: str


def _tasks(by_task: Mapping[str, TaskCondition]) -> dict[str, TaskAnswer]:
    return {key: TaskAnswer.of(condition) for key, condition in by_task.items()}
