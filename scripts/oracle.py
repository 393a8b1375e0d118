"""An annotator that knows the answers: labels what Label Studio serves, from a CSV of true classes."""

import csv
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from backend.label_config import LabelBinding, bind_label_config
from backend.labelstudio import LabelStudioApi
from carcond.errors import LabelStudioError
from carcond.taxonomy import TASKS
from scripts.preflight import StackError

TEST = "test"
"""Split of the photos that are only measured on: the oracle skips them."""


@dataclass(frozen=True)
class Truth:
    """What a CSV says of one photo: its classes by task key (unknown ones absent) and its split."""

    classes: Mapping[str, str]
    split: str


@dataclass(frozen=True)
class Labelled:
    """One served task, labelled or skipped.

    Attributes:
        task_id: its id in Label Studio.
        skipped: True for a photo of the test split, and for one of which nothing is known.
        prediction: what the annotator was shown: Label Studio's prediction, or None.
        submitted_at: `time.monotonic()` when the submit began.
    """

    task_id: int
    skipped: bool
    prediction: Mapping[str, Any] | None
    submitted_at: float


def read_truth(path: Path) -> dict[str, Truth]:
    """Read a CSV with the column file, one for each task of which something is known, and, if there is one, split.

    Returns:
        File as it stands in the CSV -> what is true of it.

    Raises:
        StackError: there is no column of a file, or none of a task, or a class is none of the taxonomy.
    """
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    known = [task for task in TASKS if rows and task.key in rows[0]]
    if not known or "file" not in rows[0]:
        names = ", ".join(task.key for task in TASKS)
        raise StackError(f"expected the column file and at least one of {names} in {path}")
    truth = {}
    for row in rows:
        classes = {task.key: row[task.key] for task in known if row[task.key]}
        for task in known:
            if task.key in classes and classes[task.key] not in task.class_keys:
                raise StackError(
                    f"{path}: {classes[task.key]!r} is no class of {task.key}: {', '.join(task.class_keys)}"
                )
        truth[row["file"]] = Truth(classes, row.get("split") or "")
    return truth


def file_of_task(data: Mapping[str, Any], image_key: str) -> str:
    """The photo's path under the imported folder, from a task's local-files address."""
    path = parse_qs(urlsplit(str(data[image_key])).query).get("d", [""])[0]
    return unquote(path).partition("/")[2]


class Oracle:
    """Labels through the same calls that Label Studio's page makes."""

    def __init__(self, api: LabelStudioApi, project_id: int, truth: Mapping[str, Truth]) -> None:
        self._api = api
        self._project_id = project_id
        self._truth = truth
        self.binding: LabelBinding = bind_label_config(api.project(project_id).label_config)

    def next_task(self) -> dict[str, Any] | None:
        """The task that is served now, locked for this annotator; None when all are done."""
        params = {"id": "next_task", "project": self._project_id}
        try:
            return dict(self._api.request("POST", "/api/dm/actions", json={}, params=params))
        except LabelStudioError as error:
            if error.status == 404:
                return None
            raise

    def label_next(self) -> Labelled | None:
        """Label the task that is served now; None when all are done."""
        task = self.next_task()
        if task is None:
            return None
        truth = self._truth[file_of_task(task["data"], self.binding.image_key)]
        skipped = truth.split == TEST or not truth.classes
        body: dict[str, Any] = {"result": [], "was_cancelled": True}
        if not skipped:
            stated = {task_key: (class_key, 1.0) for task_key, class_key in truth.classes.items()}
            body = {"result": [_annotated(region) for region in self.binding.result(stated)], "was_cancelled": False}
        submitted_at = time.monotonic()
        self._api.request("POST", f"/api/tasks/{task['id']}/annotations/", json=body)
        predictions = task.get("predictions") or [None]
        return Labelled(int(task["id"]), skipped, predictions[0], submitted_at)


def _annotated(region: Mapping[str, Any]) -> dict[str, Any]:
    """A region as an annotator's page sends it: without a score."""
    return {key: value for key, value in region.items() if key != "score"}
