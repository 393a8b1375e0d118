"""Cards that the tests of the report's forms share."""

from copy import deepcopy
from functools import cache
from typing import Any

import numpy as np

from carcond.evaluation.calibration import calibration_figures
from carcond.evaluation.intervals import macro_f1_interval, wilson_interval
from carcond.evaluation.metrics import class_scores, score
from carcond.taxonomy import TASKS

HOSTILE = '<script>alert("x")</script>[bold]&{{ 7*7 }}\x1b[2J\u202e'


def full_card() -> dict[str, Any]:
    """A card with every part, of drawn probabilities; its sources' names are not harmless."""
    return deepcopy(_full_card())


@cache
def _full_card() -> dict[str, Any]:
    rng = np.random.default_rng(0)
    holdout = {}
    for task in TASKS:
        probabilities = rng.dirichlet(np.full(len(task.classes), 0.4), size=90).astype(np.float32)
        indices = np.where(rng.uniform(size=90) < 0.8, probabilities.argmax(axis=1), 0)
        metrics = score(probabilities, indices)
        confusion = np.array(metrics["confusion"])
        holdout[task.key] = {
            **metrics,
            "accuracy_interval": list(wilson_interval(int(np.trace(confusion)), 90)),
            "macro_f1_interval": list(macro_f1_interval(confusion)),
            **class_scores(confusion, task),
            "before": calibration_figures(probabilities, indices),
            "after": calibration_figures(np.sqrt(probabilities) / np.sqrt(probabilities).sum(1)[:, None], indices),
        }
    scores = {task.key: {"photos": 45, "accuracy": 0.8765, "macro_f1": 0.7654} for task in TASKS}
    compared = {"serving": 0.91, "candidate": 0.93, "difference": 0.02, "low": -0.01, "high": 0.05}
    return {
        "version": "carcond-0007",
        "created": "2026-03-01T10:00:00+00:00",
        "parent": "carcond-0006",
        "encoder_id": "tiny-1234abcd",
        "labels": {"train": 310, "holdout": 90, "unusable": 3},
        "labelled_by_task": {task.key: 400 for task in TASKS},
        "calibration": {task.key: {"temperature": 1.2345, "cross_fitted": True, "photos": 310} for task in TASKS},
        "holdout": holdout,
        "combined": {"photos": 88, "accuracy": 0.6543, "accuracy_interval": [0.55, 0.75]},
        "sources": [
            {"source": HOSTILE, "labels": 200, "photos": 45, "tasks": scores},
            {"sources": 12, "labels": 200, "photos": 45, "tasks": {"damage": scores["damage"]}},
        ],
        "annotators": [
            {"annotator": 5, "labels": 400, "share": 0.8, "agreement": 0.97, "photos": 90, "tasks": scores},
            {"annotator": 6, "labels": 100, "share": 0.2, "agreement": None, "photos": 0, "tasks": {}},
        ],
        "gate": {
            "accepted": True,
            "reason": "not worse",
            "against": "carcond-0006",
            "tasks": {
                "damage": {
                    "photos": 90,
                    "tested": True,
                    "macro_f1": compared,
                    "worst_recall": compared,
                    "probability_score": compared,
                },
                "cleanliness": {"photos": 4, "tested": False, "untested": "too few hold-out labels, 4 of 20"},
            },
        },
    }


def old_card() -> dict[str, Any]:
    """A card as the first versions of this program wrote it."""
    return {
        "version": "carcond-0001",
        "created": "2025-12-01T10:00:00+00:00",
        "parent": "carcond-0000",
        "labels": {"train": 12, "holdout": 3, "unusable": 0},
        "labelled_by_task": {"damage": 15, "cleanliness": 0},
        "calibration": {"damage": {"temperature": 1.0, "cross_fitted": False}},
        "holdout": {
            "damage": {"photos": 3, "accuracy": 2 / 3, "macro_f1": 0.4, "nll": 0.51, "confusion": [[2, 0], [1, 0]]}
        },
    }


def broken_cards() -> list[dict[str, Any]]:
    """Full cards in which one part, at any depth, holds something else than expected; and cards that lack one."""
    cards = []
    for path in _paths(full_card()):
        cards += [_with(path, value) for value in (None, "text", -3, [[1, 2]], {"a": {"b": [1]}})]
        cards.append(_with(path, None, remove=True))
    return cards


def _paths(part: Any, above: tuple[str | int, ...] = (), depth: int = 4) -> list[tuple[str | int, ...]]:
    keys: list[str | int] = []
    if isinstance(part, dict):
        keys = list(part)
    elif isinstance(part, list):
        keys = list(range(min(len(part), 1)))
    paths = [(*above, key) for key in keys]
    return paths if not depth else paths + [p for key in keys for p in _paths(part[key], (*above, key), depth - 1)]


def _with(path: tuple[str | int, ...], value: Any, remove: bool = False) -> dict[str, Any]:
    card = full_card()
    part: Any = card
    for key in path[:-1]:
        part = part[key]
    if remove:
        del part[path[-1]]
    else:
        part[path[-1]] = value
    return card
