"""Comparison of the intended labels with those in Label Studio and in the serving version."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from backend.label_studio.client import LabelStudioApi
from backend.label_studio.label_config import LabelBinding
from carcond.registry.registry import Registry
from scripts.labellers.crew import Crew
from scripts.labellers.ledger import Ledger, Meant

_LEARNING_S = 120.0
_POLL_S = 0.5


def ledger_differences(crew: Crew, ledger: Ledger, *, serving: bool = True) -> list[str]:
    """Differences of the intended labels from Label Studio's annotations and from a version's labels.

    Waits for a version with the last labels.

    Args:
        crew: the annotators.
        ledger: their intended labels.
        serving: compare with the serving version; False for the newest one, after somebody promoted an earlier one.
    """
    found = label_studio_differences(ledger, crew.stack.api(), crew.project_id, crew.binding)
    registry = Registry(Path(crew.stack.environment["CARCOND_MODELS_DIR"]), crew.project_id)
    deadline = time.monotonic() + _LEARNING_S
    while True:
        version = registry.current()
        numbers = [version.number] if version and serving else registry.numbers()
        rows = registry.labels(numbers[-1]) if numbers else []
        unlearnt = snapshot_differences(ledger, rows)
        if not unlearnt or time.monotonic() > deadline:
            return found + unlearnt
        time.sleep(_POLL_S)


def label_studio_differences(ledger: Ledger, api: LabelStudioApi, project_id: int, binding: LabelBinding) -> list[str]:
    """Differences between the intended labels and the annotations in Label Studio.

    Args:
        ledger: the intended labels.
        api: client of Label Studio.
        project_id: number of the project.
        binding: the project's label config.
    """
    held = held_labels(api, project_id, binding)
    entries = ledger.entries()
    return [
        f"task {key[0]}, user {key[1]}: meant {entries.get(key)}, Label Studio holds {held.get(key, [])}"
        for key in sorted(entries.keys() | held.keys())
        if held.get(key, []) != ([entries[key]] if key in entries else [])
    ]


def held_labels(api: LabelStudioApi, project_id: int, binding: LabelBinding) -> dict[tuple[int, int], list[Meant]]:
    """(task id, user id) -> labels that Label Studio holds: one, unless something went wrong."""
    held: dict[tuple[int, int], list[Meant]] = {}
    for task in api.tasks(project_id):
        for annotation in task.annotations:
            meant = Meant(skipped=True) if annotation.cancelled else Meant(binding.labels(annotation.result))
            held.setdefault((task.id, annotation.annotator), []).append(meant)
    return held


def snapshot_differences(ledger: Ledger, rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Differences between the intended labels and those that a version was fitted and measured on.

    Args:
        ledger: the intended labels.
        rows: the version's labels, as `carcond.registry.registry.Registry.labels` reads them.
    """
    known = {int(row["task"]): dict(row["classes"]) for row in rows if row["classes"]}
    meant = ledger.labels()
    return [
        f"task {task}: meant {meant.get(task)}, the serving version knows {known.get(task)}"
        for task in sorted(meant.keys() | known.keys())
        if meant.get(task) != known.get(task)
    ]
