"""Small sets of drawn photos that the tests of fine-tuning share."""

from pathlib import Path

import numpy as np
from PIL import Image

from carcond.data.annotations import ConsensusLabel
from carcond.data.split import HOLDOUT, TRAIN
from carcond.training.dataset import VALIDATION, TrainingPhoto, TrainingSet
from carcond.training.settings import NO_AUGMENTATION, TrainingSettings

SMALL = "test_efficientnet"  # timm's smallest, of EfficientNet's family
SIDES = (TRAIN, TRAIN, TRAIN, VALIDATION, HOLDOUT)


def draw_photos(folder: Path, count: int) -> TrainingSet:
    """Noise: dark where damaged, red, green or blue where clean, slightly or very dirty. Every third has one label."""
    folder.mkdir(parents=True, exist_ok=True)
    photos = []
    for number in range(count):
        rng = np.random.default_rng(number)
        damaged, dirt = number % 2, number // 2 % 3
        pixels = rng.integers(0, 100, (40, 60, 3)) + (20 if damaged else 120)
        pixels[..., dirt] += 80
        file = folder / f"{number}.png"
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(file)
        classes = {
            "damage": ("intact", "damaged")[damaged],
            "cleanliness": ("clean", "slightly_dirty", "very_dirty")[dirt],
        }
        if number % 3 == 0:
            classes.pop(("damage", "cleanliness")[number % 2])
        label = ConsensusLabel(classes, dict.fromkeys(classes, 1.0), (), {1: classes})
        photos.append(TrainingPhoto(file.name, file, label, SIDES[number % len(SIDES)], number, "drawn"))
    return TrainingSet(photos)


def quick(**changes: object) -> TrainingSettings:
    """Settings with which a training takes a second."""
    values = {
        "image_size": 64,
        "batch_size": 8,
        "epochs": 3,
        "patience": 0,
        "learning_rate": 3e-3,
        "dropout": 0.0,
        "augmentation": NO_AUGMENTATION.model_copy(update={"flip": 0.5, "brightness": 0.1}),
    }
    return TrainingSettings.model_validate({**values, **changes})
