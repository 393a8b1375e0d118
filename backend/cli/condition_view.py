"""Output of `carcond predict`: a table for terminals, and rows for JSON and CSV."""

from collections.abc import Mapping
from typing import Any

from backend.project.condition_schema import PhotoAnswer
from carcond.model.inference import PhotoCondition
from carcond.reports.text_page import PlainPage, add_cells, plain_table
from carcond.taxonomy import TASKS

_WIDTH = 120


def photo_facts(project: int, version: str, seen: Mapping[str, PhotoCondition | str]) -> dict[str, Any]:
    """The facts of photos, JSON-ready.

    Args:
        project: number of the project.
        version: name of the version that predicted them.
        seen: name of each photo -> the condition that it shows, or why it cannot be read.

    Returns:
        `project`, `version`, `photos` (see `backend.project.condition_schema.PhotoAnswer`), and `unreadable`: photos
        with their `problem`.
    """
    read = {name: each for name, each in seen.items() if not isinstance(each, str)}
    answers = [PhotoAnswer.of(name, condition, None) for name, condition in read.items()]
    return {
        "project": project,
        "version": version,
        "photos": [answer.model_dump(mode="json", exclude={"overlay"}) for answer in answers],
        "unreadable": [{"file": name, "problem": each} for name, each in seen.items() if isinstance(each, str)],
    }


def condition_rows(facts: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A row for each photo, as CSV has them; unreadable ones last."""
    rows = []
    for photo in [*facts["photos"], *facts["unreadable"]]:
        row: dict[str, Any] = {"file": photo["file"]}
        for task in TASKS:
            answer = photo.get("tasks", {}).get(task.key, {})
            row[task.key] = answer.get("status", "")
            row[f"{task.key}_confidence"] = answer.get("confidence", "")
        row["problem"] = photo.get("problem") or " ".join(photo["faults"])
        row["remarks"] = " ".join(photo.get("remarks", ()))
        rows.append(row)
    return rows


def conditions_table(facts: Mapping[str, Any]) -> str:
    """The same rows as text."""
    page = PlainPage(_WIDTH)
    columns = [name for task in TASKS for name in (task.en.lower(), "confidence")]
    title = f"{facts['version']} of project {facts['project']}"
    table = plain_table(title, "photo", *columns, "not judged: why", "remarks")
    for row in condition_rows(facts):
        add_cells(table, *(f"{value:.2f}" if isinstance(value, float) else str(value) for value in row.values()))
    page.print(table)
    return page.text
