"""Oracle annotator: labels the tasks that Label Studio serves, from a CSV of true classes."""

import csv
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from backend.label_studio.client import LabelStudioApi
from backend.label_studio.label_config import CONFIDENCE_TAG, SHOWN_TAG, LabelBinding, bind_label_config
from carcond.errors import LabelStudioError
from carcond.taxonomy import TASKS
from scripts.page_requests import next_task_request, page_result, submit_request, update_request
from scripts.preflight import StackError

_FIRST_VERSION_S = 600.0
TEST = "test"
"""Split of the photos that the model is only measured on: the oracle skips them."""


@dataclass(frozen=True)
class Truth:
    """Row of the CSV for one photo: its classes by task key (unknown ones absent) and its split."""

    classes: Mapping[str, str]
    split: str


@dataclass(frozen=True)
class Labelled:
    """One served task, labelled or skipped.

    Attributes:
        task_id: its id in Label Studio.
        skipped: True for a photo of the test split, and for one without known classes.
        classes: task key -> class key, as it was labelled; empty when skipped.
        prediction: Label Studio's prediction that the annotator was shown, or None.
        submitted_at: `time.monotonic()` when the submit began.
    """

    task_id: int
    skipped: bool
    classes: Mapping[str, str]
    prediction: Mapping[str, Any] | None
    submitted_at: float


def read_truth(path: Path) -> dict[str, Truth]:
    """Read a CSV with the columns file, one per known task (at least one), and optionally split.

    Returns:
        File as it stands in the CSV -> its truth.

    Raises:
        StackError: there is no column file, or none of a task, or a class is not in the taxonomy.
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
    """Labels through the same requests as Label Studio's page: see `scripts.page_requests`."""

    def __init__(self, api: LabelStudioApi, project_id: int, truth: Mapping[str, Truth]) -> None:
        self._api = api
        self._project_id = project_id
        self._truth = truth
        self.binding: LabelBinding = bind_label_config(api.project(project_id).label_config)

    def next_task(self) -> dict[str, Any] | None:
        """The task that is served now, locked for this annotator; None when all are done."""
        path, body = next_task_request(self._project_id)
        try:
            return dict(self._api.request("POST", path, json=body))
        except LabelStudioError as error:
            if error.status == 404:
                return None
            raise

    def label_next(self) -> Labelled | None:
        """Label the task that is served now; None when all are done."""
        served_at = time.monotonic()
        task = self.next_task()
        if task is None:
            return None
        truth = self._truth[file_of_task(task["data"], self.binding.image_key)]
        skipped = truth.split == TEST or not truth.classes
        submitted_at = time.monotonic()
        classes = {} if skipped else truth.classes
        self.submit(task, classes, lead_time_s=submitted_at - served_at, skipped=skipped)
        predictions = task.get("predictions") or [None]
        return Labelled(int(task["id"]), skipped, classes, predictions[0], submitted_at)

    def label_until_versioned(self) -> None:
        """Label a photo a second until a fitted version serves.

        Raises:
            StackError: none does in ten minutes.
        """
        deadline = time.monotonic() + _FIRST_VERSION_S
        while self._api.project(self._project_id).model_version in ("", "carcond", "carcond-0000"):
            if time.monotonic() > deadline:
                raise StackError("no version was fitted in 10 minutes; see the stack's logs")
            self.label_next()
            time.sleep(1)

    def submit(
        self, task: Mapping[str, Any], classes: Mapping[str, str], *, lead_time_s: float = 1.0, skipped: bool = False
    ) -> dict[str, Any]:
        """Submit or skip a served task.

        Args:
            task: as `next_task` returned it.
            classes: task key -> class key.
            lead_time_s: time for which the photo was open.
            skipped: skip it; the result is then its pre-label, without the line that the page leaves out.

        Returns:
            The annotation that Label Studio made.
        """
        chosen = self.binding.result({key: (class_key, 1.0) for key, class_key in classes.items()})
        if skipped:
            predicted = (task.get("predictions") or [{}])[0].get("result") or []
            chosen = [region for region in predicted if region["from_name"] not in (CONFIDENCE_TAG, SHOWN_TAG)]
        path, body = submit_request(task, page_result(task, chosen), lead_time_s=lead_time_s, skipped=skipped)
        return dict(self._api.request("POST", path, json=body))

    def update(self, annotation_id: int, classes: Mapping[str, str], *, lead_time_s: float = 1.0) -> None:
        """Update an annotation, as the page does when an annotator returns to a photo."""
        annotation = self._api.request("GET", f"/api/annotations/{annotation_id}/")
        chosen = self.binding.result({key: (class_key, 1.0) for key, class_key in classes.items()})
        earlier = {"predictions": [{"result": annotation["result"]}]}
        path, body = update_request(annotation, page_result(earlier, chosen), lead_time_s=lead_time_s)
        self._api.request("PATCH", path, json=body)
