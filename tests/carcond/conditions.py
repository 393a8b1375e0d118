"""Conditions of photos that no model has seen, for tests of what is made of them."""

import numpy as np
from PIL import Image

from carcond.data.images import ImageStats
from carcond.data.photo_checks import PhotoChecks
from carcond.model.inference import PhotoCondition, TaskCondition
from carcond.taxonomy import CLEANLINESS, DAMAGE, Task

FINE = ImageStats(width=1280, height=960, sharpness=1.0, brightness=0.5)


def photo_condition(
    cleanliness: tuple[float, ...] | None = (0.8, 0.15, 0.05),
    damage: tuple[float, ...] | None = (0.9, 0.1),
    stats: ImageStats = FINE,
    car_probability: float | None = 0.9,
) -> PhotoCondition:
    said: list[tuple[Task, tuple[float, ...] | None]] = [(CLEANLINESS, cleanliness), (DAMAGE, damage)]
    by_task = {task.key: TaskCondition(task, np.array(p, np.float32)) for task, p in said if p}
    picture, feature_map = Image.new("RGB", (8, 6)), np.zeros((2, 1, 1), np.float32)
    return PhotoCondition("carcond-0003", PhotoChecks(stats, car_probability), by_task, picture, feature_map)
