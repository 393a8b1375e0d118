"""Tasks that Label Studio holds and cannot show."""

import time
from collections.abc import Iterator

from backend.doctor.examination import ProjectExamination
from backend.doctor.finding import Finding, Kind, Level, fine

UNREADABLE = Kind(
    "tasks-unreadable",
    Level.FAULT,
    "The Data Manager shows an error in place of tasks (HTTP 500), and some labels are not learnt from.",
    "Label Studio cannot show {count} of {tried} tasks tried: {tasks}.",
    "A text in the task, or in one of its annotations or predictions, holds half of a surrogate pair, which Label "
    "Studio stores and cannot send. All other tasks are learnt from.",
    "Delete each of them, since no page shows it, and import its photo again: "
    'curl -X DELETE -H "Authorization: Token $LABEL_STUDIO_API_KEY" {url}/api/tasks/NUMBER/',
)

# Seconds for which tasks are read; a project of more tasks is examined as far as that.
_PATIENCE_S = 20.0
_NAMED = 20


def check_tasks(project: ProjectExamination) -> Iterator[Finding]:
    """Check that Label Studio can show the tasks: it answers HTTP 500 for a whole page with one that it cannot."""
    deadline = time.monotonic() + _PATIENCE_S
    unreadable: list[int] = []
    read = 0
    for _ in project.whole.api.tasks(project.id, on_unreadable=unreadable.append):
        read += 1
        if time.monotonic() > deadline:
            break
    tried = read + len(unreadable)
    if unreadable:
        more = f" and {len(unreadable) - _NAMED} more" if len(unreadable) > _NAMED else ""
        yield UNREADABLE.found(
            count=len(unreadable),
            tried=tried,
            tasks=", ".join(map(str, unreadable[:_NAMED])) + more,
            url=project.whole.label_studio,
        )
    else:
        yield fine(f"{tried} of {max(tried, project.info.task_count)} tasks can be shown")
