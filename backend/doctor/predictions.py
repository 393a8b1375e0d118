"""The predictions that Label Studio holds of unlabelled tasks: its order is made of them."""

from collections.abc import Iterator
from typing import Any

from backend.doctor.examination import ProjectExamination
from backend.doctor.finding import Finding, Kind, Level, fine
from backend.doctor.project import serving_version
from backend.label_studio.client import LabelStudioTask, task_filter

_IN_A_MINUTE = (
    "The worker writes them within a minute (python -m backend.worker has to run). If that does not help, see its "
    "log: .carcond/logs/worker.log, or docker compose logs worker"
)
NONE_CURRENT = Kind(
    "no-current-prediction",
    Level.FAULT,
    "Photos come at random, and nothing is pre-selected.",
    "None of the {unlabelled} unlabelled photos has a prediction of {version}.",
    "Label Studio orders by predictions of that version alone.",
    _IN_A_MINUTE,
)
DOUBLED = Kind(
    "two-predictions",
    Level.WARNING,
    "A photo comes out of turn, and its page has two tabs of one version.",
    "{count} unlabelled photos have more than one prediction of the serving version, like task {task}.",
    "Label Studio counts such a photo twice. Two people who open a photo at once make it so.",
    "The worker gives the second one another version at its next turn or refresh. If it stays, see the worker's log.",
)

# One page of tasks: more such photos have the same fix.
_LOOKED_AT = 50
_UNLABELLED = task_filter("completed_at", "empty", True, "Datetime")


def check_predictions(project: ProjectExamination) -> Iterator[Finding]:
    """Check that unlabelled photos have a prediction of the current version, and no second one."""
    unlabelled, _ = _find(project)
    if not unlabelled:
        yield fine("no unlabelled photo")
        return
    version = serving_version(project)
    current, _ = _find(project, task_filter("predictions_model_versions", "contains", version, "List"))
    if not current:
        yield NONE_CURRENT.found(unlabelled=unlabelled, version=version)
    _, several = _find(project, task_filter("total_predictions", "greater", 1, "Number"))
    doubled = [task.id for task in several if _count(task, version) > 1]
    if doubled:
        yield DOUBLED.found(count=len(doubled), task=doubled[0])
    if current and not doubled:
        yield fine(f"{current} of {unlabelled} unlabelled photos have one of {version}")


def _count(task: LabelStudioTask, version: str) -> int:
    """Number of predictions of a version. The order uses no other: the second row of a task is of an older one."""
    return sum(prediction.model_version == version for prediction in task.predictions)


def _find(project: ProjectExamination, *items: dict[str, Any]) -> tuple[int, list[LabelStudioTask]]:
    """Number of unlabelled tasks that fulfil conditions, and some of them."""
    return project.whole.api.find_tasks(project.id, [_UNLABELLED, *items], _LOOKED_AT if items else 1)
