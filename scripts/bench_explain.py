"""Overhead of an activation overlay over a prediction, in one process and side by side."""

import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image

from carcond.arrays import FloatArray
from carcond.data.images import decode_photo, to_pixels
from carcond.model.encoder import Encoder
from carcond.model.explain import explain
from scripts.made_up_heads import made_up_heads
from scripts.photo_source import noise_photo

_ROUNDS = 100
_MAX_PIXELS = 10_000_000


def bench_explain(encoder: Encoder) -> dict[str, Any]:
    """Milliseconds of each step for a photo of 1280x960 pixels (least, median, p90), with heads of made-up weights.

    The steps take turns, so that other load on the machine affects all of them alike.
    """
    heads, data = made_up_heads(encoder), noise_photo()
    photo = decode_photo(data, target=encoder.spec.size, max_pixels=_MAX_PIXELS)
    feature_map = encoder.encode(to_pixels(photo, encoder.spec)[np.newaxis]).feature_maps[0]

    def see() -> tuple[Image.Image, FloatArray]:
        seen = decode_photo(data, target=encoder.spec.size, max_pixels=_MAX_PIXELS)
        return seen, encoder.encode(to_pixels(seen, encoder.spec)[np.newaxis]).feature_maps[0]

    def predict_from(kept: FloatArray) -> None:
        heads.probabilities(kept.mean(axis=(1, 2))[np.newaxis])

    steps: dict[str, Callable[[], object]] = {
        "prediction, feature map kept": lambda: predict_from(feature_map),
        "prediction and overlay, feature map kept": lambda: explain(photo, feature_map, heads).overlay("damage"),
        "prediction, from the file": lambda: predict_from(see()[1]),
        "prediction and overlay, from the file": lambda: explain(*see(), heads).overlay("damage"),
        "both overlays, feature map kept": lambda: explain(photo, feature_map, heads).picture,
    }
    taken: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(_ROUNDS):
        for name, step in steps.items():
            began = time.perf_counter()
            step()
            taken[name].append(1000 * (time.perf_counter() - began))
    rows = [
        {
            "step": name,
            "least_ms": round(min(ms), 2),
            "median_ms": round(statistics.median(ms), 2),
            "p90_ms": round(float(np.quantile(ms, 0.9)), 2),
        }
        for name, ms in taken.items()
    ]
    medians = [statistics.median(ms) for ms in taken.values()]
    return {
        "encoder": encoder.encoder_id,
        "overlay_on_kept_ms": round(medians[1] - medians[0], 2),
        "overlay_and_encoding_ms": round(medians[3] - medians[0], 2),
        "rows": rows,
    }
