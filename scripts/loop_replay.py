"""The replay of `carcond simulate --strategies live` beside the running service, on the same photos and embeddings."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from carcond.analysis.live_replay import LiveReplay, LiveSettings
from carcond.analysis.replay_heads import fitted
from carcond.analysis.replay_set import ReplayDataset
from carcond.evaluation.metrics import evaluate
from carcond.model.heads import Heads
from carcond.model.single_thread import one_core
from carcond.query.live_queue import QueueSettings

FIGURES = ("accuracy", "macro_f1")
"""Figures that are compared, of those of `carcond.evaluation.metrics.evaluate`."""

Point = Mapping[str, Any]
"""Figures after a number of labels: `labels`, and task key -> figure -> value 0..1, None for a split of one class."""


def measure_heads(heads: Heads, dataset: ReplayDataset) -> dict[str, dict[str, float | None]]:
    """Task key -> accuracy and macro-F1 on the test photos, of the tasks with a head."""
    test = dataset.measured()
    classes = {key: labels.indices[test] for key, labels in dataset.labels.items()}
    measured = evaluate(heads, dataset.embeddings[test], classes)
    return {key: {name: metrics[name] for name in FIGURES} for key, metrics in measured.items()}


def _point(labels: int, heads: Heads, dataset: ReplayDataset) -> Point:
    return {"labels": labels, **measure_heads(heads, dataset)}


def replay_curves(
    dataset: ReplayDataset, counts: Sequence[int], *, seeds: int, queue: QueueSettings, say: Callable[[str], None]
) -> list[list[Point]]:
    """One curve for each seed: the live service with a version after each label, measured after `counts` labels."""
    settings = LiveSettings(queue=queue, publish_every=1)
    curves = []
    with one_core():
        for seed in range(seeds):
            say(f"replay {seed + 1} of {seeds}")
            service = LiveReplay(dataset, settings, seed)
            heads = [Heads("", fitted(service.label(count))) for count in counts]
            curves.append([_point(n, each, dataset) for n, each in zip(counts, heads, strict=True)])
    return curves


def compare(curve: Sequence[Point], replays: Sequence[Sequence[Point]]) -> list[dict[str, Any]]:
    """Rows of the comparison, for each number of labels, task and figure that the service and all replays have.

    Args:
        curve: of the service.
        replays: curves of replays, with the same numbers of labels.

    Returns:
        `labels`, `task`, `figure`, the `service`'s value, mean `replay` and its standard deviation `sd`, and the
        `difference` of service and mean in points of 100.
    """
    rows = []
    for at, *others in zip(curve, *replays, strict=True):
        for task in (name for name in at if name != "labels"):
            for figure in FIGURES:
                values = [other.get(task, {}).get(figure) for other in (at, *others)]
                if None in values:
                    continue
                service, *replayed = values
                mean = float(np.mean(replayed))
                rows.append(
                    {
                        "labels": at["labels"],
                        "task": task,
                        "figure": figure,
                        "service": round(service, 4),
                        "replay": round(mean, 4),
                        "sd": round(float(np.std(replayed, ddof=1)), 4) if len(replayed) > 1 else None,
                        "difference": round(100 * (service - mean), 2),
                    }
                )
    return rows
