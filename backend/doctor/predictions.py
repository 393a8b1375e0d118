"""The predictions that Label Studio holds of unlabelled tasks: its order is made of them."""

from collections.abc import Iterator
from typing import Any

from backend.doctor.examination import ProjectExamination
from backend.doctor.finding import Finding, Kind, Level, fine
from backend.doctor.project import serving_version
from backend.labelstudio import LabelStudioTask, task_filter
from carcond.registry import is_ours

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
    "{count} unlabelled photos have more than one prediction of one version of carcond's, like task {task}.",
    "Label Studio counts such a photo twice. Two people who open a photo at once make it so.",
    "The worker removes the second one at its next turn or refresh. If it stays, see the worker's log.",
)

# A page of tasks: more than one such photo asks for the same cure.
_LOOKED_AT = 50
_UNLABELLED = task_filter("completed_at", "empty", True, "Datetime")


def check_predictions(project: ProjectExamination) -> Iterator[Finding]:
    """Whether unlabelled photos have a prediction of the current version, and no second one."""
    unlabelled, _ = _find(project)
    if not unlabelled:
        yield fine("no unlabelled photo")
        return
    version = serving_version(project)
    current, _ = _find(project, task_filter("predictions_model_versions", "contains", version, "List"))
    if not current:
        yield NONE_CURRENT.found(unlabelled=unlabelled, version=version)
    _, several = _find(project, task_filter("total_predictions", "greater", 1, "Number"))
    doubled = [task.id for task in several if _has_two_of_one_version(task)]
    if doubled:
        yield DOUBLED.found(count=len(doubled), task=doubled[0])
    if current and not doubled:
        yield fine(f"{current} of {unlabelled} unlabelled photos have one of {version}")


def _has_two_of_one_version(task: LabelStudioTask) -> bool:
    """The queue heeds neither those of other models, nor those of an older version while it gives way to a newer."""
    versions = [p.model_version for p in task.predictions if is_ours(p.model_version)]
    return len(versions) > len(set(versions))


def _find(project: ProjectExamination, *items: dict[str, Any]) -> tuple[int, list[LabelStudioTask]]:
    """How many unlabelled tasks fulfil conditions, and some of them."""
    return project.whole.api.find_tasks(project.id, [_UNLABELLED, *items], _LOOKED_AT if items else 1)
