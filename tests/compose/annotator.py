"""Annotator of the composed Label Studio, also while parts of it are down, for `scripts/check_compose`."""

import http.client
import json
import urllib.error
import urllib.request
from typing import Any

from scripts.page_requests import next_task_request, page_result, submit_request
from tests.compose.engine import CheckError

_CLEANLINESS = ("clean", "slightly dirty", "very dirty")
_DAMAGE = ("intact", "damaged")
# All tasks in one answer, from a Label Studio that is busy with other things.
_READ_PATIENCE_S = 120


class Annotator:
    """Labels the served tasks through Label Studio's API. The chosen classes do not matter to the check."""

    def __init__(self, url: str, token: str) -> None:
        self._url = url
        self._token = token
        self.project_id = int(self._read("/api/projects/")["results"][0]["id"])
        self.submitted: set[int] = set(self.labelled())
        self._unsure: set[int] = set()

    def label(self, count: int) -> None:
        """Label a number of photos.

        Raises:
            CheckError: Label Studio does not serve one.
        """
        for _ in range(count):
            if not self.try_label():
                raise CheckError("Label Studio served no photo, or did not take a label")

    def try_label(self) -> bool:
        """Label one photo, if Label Studio is available. A label that was not confirmed is looked up later."""
        task: int | None = None
        try:
            served = self._request("POST", *next_task_request(self.project_id))
            task = int(served["id"])
            result = page_result(served, _answers(task))
            self._request("POST", *submit_request(served, result, lead_time_s=1.0))
        except (OSError, http.client.HTTPException, ValueError):
            if task is not None:
                self._unsure.add(task)
            return False
        self.submitted.add(task)
        return True

    def labelled(self) -> list[int]:
        """Ids of the labelled tasks in Label Studio, one for each label."""
        path = f"/api/tasks/?project={self.project_id}&page_size=1000&fields=all"
        tasks = self._read(path)["tasks"]
        return sorted(task["id"] for task in tasks for _ in task["annotations"])

    def predictions(self) -> dict[int, int]:
        """Id of a task without a label -> number of its predictions."""
        path = f"/api/tasks/?project={self.project_id}&page_size=1000&fields=all"
        tasks = self._read(path)["tasks"]
        return {task["id"]: len(task["predictions"]) for task in tasks if not task["annotations"]}

    def version(self) -> str:
        """The version that Label Studio serves."""
        return str(self._read(f"/api/projects/{self.project_id}/")["model_version"])

    def is_refused(self, url: str) -> bool:
        """True if Label Studio's SSRF protection refuses an address."""
        body = {"project": self.project_id, "title": "elsewhere", "url": url}
        try:
            self._request("POST", "/api/ml/", body)
        except urllib.error.HTTPError as error:
            return b"reserved network address" in error.read()
        return False

    def check_nothing_lost(self) -> int:
        """Check that Label Studio has each confirmed label once, and return the number of labels.

        Raises:
            CheckError: one is lost, or doubled.
        """
        labelled = self.labelled()
        if len(labelled) != len(set(labelled)):
            raise CheckError(f"tasks were labelled twice: {labelled}")
        lost = self.submitted - set(labelled)
        strange = set(labelled) - self.submitted - self._unsure
        if lost or strange:
            raise CheckError(f"labels of tasks {sorted(lost)} are lost, those of {sorted(strange)} came from nowhere")
        self.submitted = set(labelled)
        return len(labelled)

    def _read(self, path: str) -> Any:
        try:
            return self._request("GET", path, patience_s=_READ_PATIENCE_S)
        except OSError as error:
            raise CheckError(f"Label Studio does not answer GET {path}: {error}") from error

    def _request(self, method: str, path: str, body: Any = None, patience_s: float = 20) -> Any:
        request = urllib.request.Request(  # noqa: S310 - its own address
            self._url + path,
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Authorization": f"Token {self._token}", "Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=patience_s) as response:  # noqa: S310
            return json.load(response)


def _answers(task: int) -> list[dict[str, Any]]:
    words = {"cleanliness": _CLEANLINESS[task % 3], "damage": _DAMAGE[task % 2]}
    return [
        {"from_name": name, "to_name": "image", "type": "choices", "value": {"choices": [word]}}
        for name, word in words.items()
    ]
