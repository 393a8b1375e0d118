"""The way to Label Studio: one authenticated HTTP client, and the requests the loop makes of it.

Label Studio's SDK is not used for these requests: it cannot set a prediction's `cluster`, which the
queue is built on, and its client alone costs 110 MB, which the web process should not pay.
"""

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx

from backend.token_auth import TokenAuth
from carcond.errors import LabelStudioError
from carcond.settings import Settings

PAGE_SIZE = 500
_RETRY_WAITS_S = (0.3, 1.5)
# What the loop needs of a task and of its annotations and predictions (Label Studio applies one list
# to all three): everything else makes the page slower to build and to send.
_TASK_FIELDS = (
    "id,data,updated_at,annotations,predictions,result,completed_by,was_cancelled,task,model_version,score,cluster,"
    "mislabeling"
)


@dataclass(frozen=True)
class Annotation:
    """What one annotator said of one task. `result` is Label Studio's list of regions."""

    id: int
    annotator: int
    cancelled: bool
    updated_at: str
    result: list[dict[str, Any]]


@dataclass(frozen=True)
class StoredPrediction:
    """A prediction as Label Studio keeps it; `slot` is its `cluster` field, `mislabeling` is for `backend.review`."""

    id: int
    task_id: int
    model_version: str
    score: float | None
    slot: int | None
    mislabeling: float = 0.0
    updated_at: str = ""


@dataclass(frozen=True)
class LabelStudioTask:
    """One item to be labelled, with all its annotations and predictions."""

    id: int
    data: dict[str, Any]
    updated_at: str
    annotations: tuple[Annotation, ...]
    predictions: tuple[StoredPrediction, ...]


@dataclass(frozen=True)
class PredictionDraft:
    """A prediction to be written: `score` is the joint confidence in 0..1, low first in the queue."""

    task_id: int
    result: list[dict[str, Any]]
    score: float
    model_version: str
    slot: int | None


@dataclass(frozen=True)
class ProjectInfo:
    """The parts of a Label Studio project that the loop acts on."""

    id: int
    title: str
    label_config: str
    model_version: str
    sampling: str
    task_count: int
    prediction_count: int
    raw: dict[str, Any] = field(repr=False)


class LabelStudioApi:
    """Requests to one Label Studio. Safe to share between threads."""

    def __init__(self, url: str, api_key: str, timeout_s: float = 60.0) -> None:
        self.url = url.rstrip("/")
        self.auth = TokenAuth(self.url, api_key)
        # The environment's proxies are meant for the outside world, and Label Studio is a neighbour.
        self._client = httpx.Client(
            base_url=self.url, auth=self.auth, timeout=httpx.Timeout(timeout_s, connect=5.0), trust_env=False
        )

    @classmethod
    def from_settings(cls, settings: Settings) -> "LabelStudioApi":
        """The client for the Label Studio that the settings name."""
        return cls(
            settings.label_studio_url,
            settings.label_studio_api_key.get_secret_value(),
            settings.label_studio_timeout_s,
        )

    def request(self, method: str, path: str, json: Any = None, params: dict[str, Any] | None = None) -> Any:
        """Send one request and return the decoded reply (None when it has no body).

        An answer of 5xx is asked for again, twice: a busy Label Studio on SQLite gives one now and then.

        Raises:
            LabelStudioError: not reachable, or answered with an error (then `status` is set).
        """
        response = self._send(method, path, json, params)
        for wait_s in _RETRY_WAITS_S:
            if not response.is_server_error:
                break
            time.sleep(wait_s)
            response = self._send(method, path, json, params)
        if not response.is_success:
            raise LabelStudioError(_explain(method, path, response), response.status_code)
        if not response.content:
            return None
        try:
            return response.json()
        except ValueError:
            raise LabelStudioError(
                f"{method} {path}: expected JSON from Label Studio, got {response.headers.get('content-type')}"
            ) from None

    def _send(self, method: str, path: str, json: Any, params: dict[str, Any] | None) -> httpx.Response:
        try:
            return self._client.request(method, path, json=json, params=params)
        except httpx.HTTPError as error:
            raise LabelStudioError(
                f"Label Studio at {self.url} could not be reached for {method} {path}: {type(error).__name__}. "
                "Is it running, and is LABEL_STUDIO_URL right?"
            ) from error

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def project(self, project_id: int) -> ProjectInfo:
        """Read a project's settings and counters."""
        raw = self.request("GET", f"/api/projects/{project_id}/")
        return ProjectInfo(
            id=int(raw["id"]),
            title=str(raw["title"]),
            label_config=str(raw.get("label_config") or ""),
            model_version=str(raw.get("model_version") or ""),
            sampling=str(raw.get("sampling") or ""),
            task_count=int(raw.get("task_number") or 0),
            prediction_count=int(raw.get("total_predictions_number") or 0),
            raw=raw,
        )

    def update_project(self, project_id: int, **changes: Any) -> None:
        """Change settings of a project, for example `model_version` or `sampling`."""
        self.request("PATCH", f"/api/projects/{project_id}/", json=changes)

    def tasks(self, project_id: int, changed_since: str | None = None) -> Iterator[LabelStudioTask]:
        """Tasks with annotations and predictions, in order of id.

        `updated_at` of a task moves with its annotations (deletions included) and its predictions, so
        `changed_since` (a value of `updated_at`) gives all news at a cost that follows the news.
        """
        conditions = [task_filter("updated_at", "greater", changed_since, "Datetime")] if changed_since else []
        for row in self._rows(project_id, _TASK_FIELDS, conditions, fields="all"):
            yield _parse_task(row)

    def task_ids(self, project_id: int) -> set[int]:
        """The ids of all tasks of a project: the cheap way to notice deleted ones."""
        return {int(row["id"]) for row in self._rows(project_id, "id", [])}

    def find_tasks(
        self, project_id: int, conditions: Sequence[Mapping[str, Any]] = (), count: int = 1
    ) -> tuple[int, list[LabelStudioTask]]:
        """How many tasks fulfil all conditions (filters of the Data Manager), and the first `count` of them."""
        params = {"project": project_id, "page_size": count, "include": _TASK_FIELDS, "fields": "all"}
        reply = self.request("GET", "/api/tasks/", params=params | {"query": _query(conditions)})
        return int(reply["total"]), [_parse_task(row) for row in reply["tasks"]]

    def _rows(
        self, project_id: int, include: str, conditions: Sequence[Mapping[str, Any]], **extra: str
    ) -> Iterator[dict[str, Any]]:
        """The rows of tasks that fulfil all conditions, in order of id.

        Always the first page of those behind the last id: numbered pages would shift, and pass tasks by, when others
        are deleted meanwhile.
        """
        params: dict[str, Any] = {"project": project_id, "page_size": PAGE_SIZE, "include": include} | extra
        last = 0
        while True:
            query = _query([*conditions, task_filter("id", "greater", last, "Number")])
            reply = self.request("GET", "/api/tasks/", params=params | {"query": query})
            yield from reply["tasks"]
            # Pages may be shorter than what was asked for.
            if len(reply["tasks"]) in (0, reply["total"]):
                return
            last = max(int(row["id"]) for row in reply["tasks"])

    def create_prediction(self, draft: PredictionDraft) -> StoredPrediction:
        """Write a new prediction. The bulk import would drop the slot, so they go one by one."""
        return _parse_prediction(self.request("POST", "/api/predictions/", json=_prediction_body(draft)))

    def update_prediction(self, prediction_id: int, draft: PredictionDraft) -> StoredPrediction:
        """Move a prediction to another version, score and slot, in place: the task never has two."""
        return _parse_prediction(
            self.request("PATCH", f"/api/predictions/{prediction_id}/", json=_prediction_body(draft))
        )

    def delete_prediction(self, prediction_id: int) -> None:
        """Remove one prediction."""
        self.request("DELETE", f"/api/predictions/{prediction_id}/")


def _explain(method: str, path: str, response: httpx.Response) -> str:
    try:
        body = response.json()
        detail = body.get("validation_errors") or body.get("detail") or body if isinstance(body, dict) else body
    except ValueError:
        detail = "no details"
    hint = ""
    if response.status_code == httpx.codes.UNAUTHORIZED:
        hint = ". Check LABEL_STUDIO_API_KEY: a legacy token must be switched on for the organization"
    if response.has_redirect_location:
        hint = f". It redirects to {response.headers['location']}: set LABEL_STUDIO_URL to where it really is"
    return f"Label Studio answered HTTP {response.status_code} to {method} {path}: {str(detail)[:300]}{hint}"


def task_filter(column: str, operator: str, value: object, kind: str) -> dict[str, Any]:
    """A condition on tasks, as a filter of the Data Manager."""
    return {"filter": f"filter:tasks:{column}", "operator": operator, "value": value, "type": kind}


def _query(conditions: Sequence[Mapping[str, Any]]) -> str:
    filters = {"conjunction": "and", "items": list(conditions)}
    return json.dumps({"filters": filters, "ordering": ["tasks:id"]})


def _prediction_body(draft: PredictionDraft) -> dict[str, Any]:
    return {
        "task": draft.task_id,
        "result": draft.result,
        "score": draft.score,
        "model_version": draft.model_version,
        "cluster": draft.slot,
    }


def _parse_prediction(row: dict[str, Any]) -> StoredPrediction:
    return StoredPrediction(
        id=int(row["id"]),
        task_id=int(row["task"]),
        model_version=str(row.get("model_version") or ""),
        score=row.get("score"),
        slot=row.get("cluster"),
        mislabeling=float(row.get("mislabeling") or 0),
        updated_at=str(row.get("updated_at") or ""),
    )


def _parse_annotation(row: dict[str, Any]) -> Annotation:
    author = row.get("completed_by")
    return Annotation(
        id=int(row["id"]),
        annotator=int(author["id"] if isinstance(author, dict) else author or 0),
        cancelled=bool(row.get("was_cancelled")),
        updated_at=str(row.get("updated_at") or ""),
        result=row.get("result") or [],
    )


def _parse_task(row: dict[str, Any]) -> LabelStudioTask:
    return LabelStudioTask(
        id=int(row["id"]),
        data=row.get("data") or {},
        updated_at=str(row["updated_at"]),
        annotations=tuple(_parse_annotation(a) for a in row.get("annotations") or ()),
        predictions=tuple(_parse_prediction(p) for p in row.get("predictions") or ()),
    )
