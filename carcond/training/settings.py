"""Typed settings of a fine-tuning, from a YAML file and from options; an unknown key is an error."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from carcond.errors import SettingsError
from carcond.taxonomy import DAMAGE, TASK_BY_KEY, TASKS


class Augmentation(BaseModel):
    """Settings of the augmentation; see `carcond.training.augmentation`.

    Attributes:
        flip: probability of a horizontal flip, 0 .. 1.
        rotation: maximum rotation to either side, in degrees.
        smallest_crop: the smallest share of the photo that a crop shows, 1 for no crops. Crops zoom in, so that a small
            scratch is seen larger, never smaller.
        brightness: maximum relative change, like contrast and saturation: light and shadow are not dirt.
        contrast: see brightness.
        saturation: see brightness.
        hue: maximum shift, as a share of the colour circle, 0 .. 0.5.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    flip: float = Field(0.5, ge=0, le=1)
    rotation: float = Field(7.0, ge=0, le=45)
    smallest_crop: float = Field(0.6, ge=0.1, le=1)
    brightness: float = Field(0.35, ge=0, lt=1)
    contrast: float = Field(0.3, ge=0, lt=1)
    saturation: float = Field(0.2, ge=0, lt=1)
    hue: float = Field(0.02, ge=0, le=0.5)


NO_AUGMENTATION = Augmentation(flip=0, rotation=0, smallest_crop=1, brightness=0, contrast=0, saturation=0, hue=0)
"""No augmentation."""


class TrainingSettings(BaseModel):
    """Settings of a fine-tuning.

    Attributes:
        image_size: side of the network's square, in pixels: that of the largest view, the others are in proportion.
            None for that of the encoder's views.
        batch_size: photos per batch, over all processes together.
        gradient_accumulation: batches per step of the optimizer.
        epochs: maximum number of epochs.
        patience: epochs without a better validation loss after which the training ends; 0: never before `epochs`.
        learning_rate: the highest; it rises during the warm-up and falls as a cosine to 0.
        warmup: share of all steps in which the learning rate rises.
        weight_decay: of AdamW (arXiv 1711.05101), for weights of more than one dimension.
        dropout: share of the embedding that is dropped in training.
        label_smoothing: share of the target that is spread over all classes.
        loss_weights: task key -> weight of its loss.
        class_weights: "balanced" weighs a photo by how rare its class is.
        linear_probe: begin with heads fitted on the frozen backbone (LP-FT, arXiv 2202.10054), not random ones.
        freeze_until: the backbone's stages before this one are frozen, and their activations cached; None trains all
            layers.
        kept_views: augmented views per photo with cached activations, used in turn; only with `freeze_until`.
        mixed_precision: "no", "bf16" or "fp16".
        validation_share: of the photos that may be trained on.
        when_unmarked: task key -> class of photos whose annotator left the task unanswered. Empty: unknown.
        seed: of all random numbers.
        loader_processes: number of processes that prepare batches; 0: the training process does.
        augmentation: of the training photos.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    image_size: int | None = Field(None, ge=32, le=1024)
    batch_size: int = Field(16, ge=1, le=4096)
    gradient_accumulation: int = Field(1, ge=1, le=1024)
    epochs: int = Field(15, ge=1, le=1000)
    patience: int = Field(5, ge=0)
    learning_rate: float = Field(1e-4, gt=0, le=1)
    warmup: float = Field(0.1, ge=0, lt=1)
    weight_decay: float = Field(0.01, ge=0, le=1)
    dropout: float = Field(0.4, ge=0, lt=1)
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    loss_weights: dict[str, float] = Field(default_factory=dict)
    class_weights: Literal["balanced", "none"] = "balanced"
    linear_probe: bool = True
    freeze_until: str | None = None
    kept_views: int = Field(4, ge=1, le=100)
    mixed_precision: Literal["no", "bf16", "fp16"] = "no"
    validation_share: float = Field(0.2, ge=0.05, le=0.5)
    when_unmarked: dict[str, str] = Field(default_factory=dict)
    seed: int = Field(0, ge=0, lt=2**32)
    loader_processes: int = Field(0, ge=0, le=64)
    augmentation: Augmentation = Augmentation()

    @model_validator(mode="before")
    @classmethod
    def _complete_loss_weights(cls, values: Any) -> Any:
        """A task that is not named keeps its weight."""
        given = values.get("loss_weights", {}) if isinstance(values, dict) else {}
        if not isinstance(given, dict):
            return values
        return {**values, "loss_weights": {**{task.key: 1.0 for task in TASKS}, DAMAGE.key: 1.2, **given}}

    @model_validator(mode="after")
    def _check_tasks(self) -> Self:
        for key, weight in self.loss_weights.items():
            if key not in TASK_BY_KEY or weight < 0:
                raise ValueError(f"expected a weight of 0 or more for {' or '.join(TASK_BY_KEY)}, got {key}={weight}")
        for key, class_key in self.when_unmarked.items():
            if key not in TASK_BY_KEY or class_key not in TASK_BY_KEY[key].class_keys:
                known = "; ".join(f"{task.key}: {', '.join(task.class_keys)}" for task in TASKS)
                raise ValueError(f"expected a task and one of its classes ({known}), got {key}={class_key}")
        return self


def load_training_settings(path: Path | None, options: Mapping[str, Any]) -> TrainingSettings:
    """Settings from a YAML file, overridden by options.

    Args:
        path: the file, a mapping as in docs/train.md; None for the defaults.
        options: field -> value; a mapping is merged into that of the file.

    Raises:
        SettingsError: the file cannot be read, or a key or value is not usable; the text names it.
    """
    values = {} if path is None else _read_yaml(path)
    for key, value in options.items():
        kept = values.get(key)
        values[key] = {**kept, **value} if isinstance(kept, dict) and isinstance(value, Mapping) else value
    try:
        return TrainingSettings.model_validate(values)
    except ValidationError as error:
        raise SettingsError("training settings are not usable: " + "; ".join(_problems(error))) from None


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise SettingsError(f"{path} cannot be read as YAML: {error}") from error
    if values is None:  # an empty file, or one of comments
        return {}
    if not isinstance(values, dict):
        raise SettingsError(f"expected a mapping of settings in {path}, got {values!r:.80}")
    return values


def _problems(error: ValidationError) -> list[str]:
    lines = []
    for details in error.errors(include_url=False):
        name = ".".join(map(str, details["loc"]))
        if details["type"] == "extra_forbidden":
            model = Augmentation if details["loc"][0] == "augmentation" else TrainingSettings
            lines.append(f"{name} is no setting; there are {', '.join(model.model_fields)}")
        elif details["type"] == "value_error":
            lines.append(details["msg"].removeprefix("Value error, "))
        else:
            lines.append(f"{name}: {details['msg']}, got {details['input']!r}")
    return lines
