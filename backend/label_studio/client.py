"""Label Studio's client: one authenticated HTTP client, and the requests that the loop makes.

Label Studio's SDK is not used for these requests: it cannot set a prediction's `cluster`, which the
queue is built on, and its client alone costs 110 MB, which the web process should not pay.
"""

import json
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx

from backend.label_studio.answers import (
    Answers,
    Row,
    finite_number,
    read_answers,
    read_count,
    read_id,
    read_object,
    read_objects,
    read_text,
    read_timestamp,
    whole_number,
)
from backend.label_studio.token_auth import TokenAuth
from carcond.errors import LabelStudioError
from carcond.settings import Settings

logger = logging.getLogger(__name__)

PAGE_SIZE = 500
_RETRY_WAITS_S = (0.3, 1.5)
# What the loop needs of a task and of its annotations and predictions (Label Studio applies one list
# to all three): everything else makes the page slower to build and to send.
_TASK_FIELDS = (
    "id,data,updated_at,annotations,predictions,result,completed_by,was_cancelled,task,model_version,score,cluster,"
    "mislabeling,neighbors"
)


@dataclass(frozen=True)
class Annotation:
    """Annotation of one task by one annotator. `result` is Label Studio's list of regions."""

    id: int
    annotator: int
    cancelled: bool
    updated_at: str
    result: list[dict[str, Any]]


@dataclass(frozen=True)
class StoredPrediction:
    """A prediction as Label Studio keeps it.

    `slot` is its `cluster` field, `mislabeling` a field that review uses, and `hidden` its `neighbors` field.
    """

    id: int
    task_id: int
    model_version: str
    score: float | None
    slot: int | None
    mislabeling: float = 0.0
    updated_at: str = ""
    result: list[dict[str, Any]] = field(default_factory=list)
    hidden: Answers = field(default_factory=dict)


@dataclass(frozen=True)
class LabelStudioTask:
    """One item to be labelled, with all its annotations and predictions."""

    id: int
    data: dict[str, Any]
    updated_at: str
    annotations: tuple[Annotation, ...]
    predictions: tuple[StoredPrediction, ...]


@dataclass(frozen=True)
class UploadedPhoto:
    """A photo that was uploaded: its task, and its file."""

    task_id: int
    upload_id: int


@dataclass(frozen=True)
class PredictionDraft:
    """A prediction to be written: `score` is the joint confidence in 0..1, low first in the queue.

    `hidden` are the answers that `result` does not choose: task key -> (class key, its probability in 0..1). Label
    Studio keeps them in a field that no page shows.
    """

    task_id: int
    result: list[dict[str, Any]]
    score: float
    model_version: str
    slot: int | None
    hidden: Answers = field(default_factory=dict)


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
    labelled_count: int
    raw: dict[str, Any] = field(repr=False)


class LabelStudioApi:
    """Requests to one Label Studio. Safe to share between threads."""

    def __init__(self, url: str, api_key: str, timeout_s: float = 60.0) -> None:
        self.url = url.rstrip("/")
        self.auth = TokenAuth(self.url, api_key)
        # The environment's proxies are meant for the internet, and Label Studio is on the local network.
        self._client = httpx.Client(
            base_url=self.url,
            auth=self.auth,
            headers=_connection_headers(self.url),
            timeout=httpx.Timeout(timeout_s, connect=5.0),
            trust_env=False,
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

        A 5xx answer is retried twice: a busy Label Studio on SQLite gives one now and then.

        Raises:
            LabelStudioError: not reachable, or answered with an error (then `status` is set).
        """
        return self._request(method, path, json=json, params=params)

    def _request(self, method: str, path: str, **content: Any) -> Any:
        response = self._send(method, path, content)
        for wait_s in _RETRY_WAITS_S:
            if not response.is_server_error:
                break
            time.sleep(wait_s)
            response = self._send(method, path, content)
        return _decode(method, path, response)

    def _page(self, params: dict[str, Any]) -> tuple[int, list[Row]]:
        """Number of tasks that a query found, and the rows of one page of them.

        A smaller page than the usual one is part of one that has failed three times: it is not asked for again.
        """
        method, path = "GET", "/api/tasks/"
        if params["page_size"] < PAGE_SIZE:
            return _read_page(_decode(method, path, self._send(method, path, {"params": params})))
        return _read_page(self.request(method, path, params=params))

    def _send(self, method: str, path: str, content: Mapping[str, Any]) -> httpx.Response:
        try:
            return self._client.request(method, path, **content)
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
        raw = read_object(self.request("GET", f"/api/projects/{project_id}/"), "a project")
        return ProjectInfo(
            id=read_id(raw),
            title=read_text(raw, "title"),
            label_config=read_text(raw, "label_config"),
            model_version=read_text(raw, "model_version"),
            sampling=read_text(raw, "sampling"),
            task_count=read_count(raw, "task_number"),
            prediction_count=read_count(raw, "total_predictions_number"),
            labelled_count=read_count(raw, "num_tasks_with_annotations"),
            raw=raw,
        )

    def update_project(self, project_id: int, **changes: Any) -> None:
        """Change settings of a project, for example `model_version` or `sampling`."""
        self.request("PATCH", f"/api/projects/{project_id}/", json=changes)

    def tasks(
        self,
        project_id: int,
        changed_since: str | None = None,
        on_unreadable: Callable[[int], None] | None = None,
    ) -> Iterator[LabelStudioTask]:
        """Tasks with annotations and predictions, in order of id.

        `updated_at` of a task moves with its annotations (deletions included) and its predictions, so
        `changed_since` (a value of `updated_at`) gives all changes at a cost proportional to their number.

        Args:
            project_id: of the tasks.
            changed_since: see above; None for all.
            on_unreadable: called with the id of each task that Label Studio cannot show; None for a line in the log.
        """
        conditions = [task_filter("updated_at", "greater", changed_since, "Datetime")] if changed_since else []
        for row in self._rows(project_id, _TASK_FIELDS, conditions, on_unreadable, fields="all"):
            yield _parse_task(row)

    def task_ids(self, project_id: int) -> set[int]:
        """Ids of all tasks of a project: the cheap way to notice deleted ones."""
        return {read_id(row) for row in self._rows(project_id, "id", [])}

    def find_tasks(
        self, project_id: int, conditions: Sequence[Mapping[str, Any]] = (), count: int = 1
    ) -> tuple[int, list[LabelStudioTask]]:
        """Number of tasks that fulfil all conditions (filters of the Data Manager), and the first `count` of them."""
        params = {"project": project_id, "page_size": count, "include": _TASK_FIELDS, "fields": "all"}
        total, rows = _read_page(self.request("GET", "/api/tasks/", params=params | {"query": _query(conditions)}))
        return total, [_parse_task(row) for row in rows]

    def _rows(
        self,
        project_id: int,
        include: str,
        conditions: Sequence[Mapping[str, Any]],
        on_unreadable: Callable[[int], None] | None = None,
        **extra: str,
    ) -> Iterator[Row]:
        """Rows of tasks that fulfil all conditions, in order of id.

        Always the first page after the last id: numbered pages would shift, and miss tasks, when others are deleted
        meanwhile. Label Studio answers 500 for a page with a task that it cannot write as JSON (one with half of a
        surrogate pair in a text). Such a task is left out, and reported: the others are read all the same.
        """
        params: dict[str, Any] = {"project": project_id, "page_size": PAGE_SIZE, "include": include} | extra
        last = 0
        while True:
            query = _query([*conditions, task_filter("id", "greater", last, "Number")])
            try:
                total, rows = self._page(params | {"query": query})
            except LabelStudioError as error:
                if not httpx.codes.is_server_error(error.status or 0):
                    raise
                if params["page_size"] > 1:
                    params["page_size"] = max(1, params["page_size"] // 10)
                    continue
                last = self._unreadable_id(project_id, query, error)
                if on_unreadable:
                    on_unreadable(last)
                else:
                    logger.error(
                        "project %d: task %d is left out, Label Studio cannot show it: %s", project_id, last, error
                    )
                params["page_size"] = PAGE_SIZE
                continue
            ids = [read_id(row) for row in rows]
            if ids and min(ids) <= last:
                raise LabelStudioError(f"expected tasks after number {last} from Label Studio, got number {min(ids)}")
            yield from rows
            # Pages may be shorter than requested.
            if len(rows) in (0, total):
                return
            last = max(ids)

    def _unreadable_id(self, project_id: int, query: str, error: LabelStudioError) -> int:
        """Id of the first task of a query, after Label Studio has failed on it in two ways.

        Raises:
            LabelStudioError: `error`, when Label Studio does not answer at all, or shows the task by itself: then it
                was busy, and the next turn reads it.
        """
        params = {"project": project_id, "page_size": 1, "include": "id", "query": query}
        try:
            first = read_id(_read_page(self.request("GET", "/api/tasks/", params=params))[1][0])
        except (LabelStudioError, IndexError):
            raise error from None
        try:
            self.request("GET", f"/api/tasks/{first}/")
        except LabelStudioError as again:
            if httpx.codes.is_server_error(again.status or 0):
                return first
        raise error

    def upload_photo(self, project_id: int, name: str, photo: bytes) -> UploadedPhoto:
        """Upload a photo, of which Label Studio makes a task.

        Args:
            project_id: the project.
            name: of the file; its ending says what it is.
            photo: the file.
        """
        path, files = f"/api/projects/{project_id}/import", {"file": (name, photo)}
        reply = self._request("POST", path, params={"return_task_ids": "true"}, files=files)
        made = read_object(reply, "an import")
        ids = [number for name in ("task_ids", "file_upload_ids") for number in made.get(name) or [None]]
        if len(ids) != 2 or not all(isinstance(number, int) for number in ids):
            raise LabelStudioError("expected the ids of one task and one upload from Label Studio, got others")
        return UploadedPhoto(*ids)

    def delete_upload(self, photo: UploadedPhoto) -> None:
        """Delete an uploaded photo's task with all of its annotations, and its file, which would stay otherwise."""
        self.request("DELETE", f"/api/tasks/{photo.task_id}/")
        self.request("DELETE", f"/api/import/file-upload/{photo.upload_id}")

    def create_prediction(self, draft: PredictionDraft) -> StoredPrediction:
        """Write a new prediction. The bulk import would drop the slot, so they go one by one."""
        return _parse_prediction(self.request("POST", "/api/predictions/", json=_prediction_body(draft)))

    def update_prediction(self, prediction_id: int, draft: PredictionDraft) -> StoredPrediction:
        """Move a prediction to another version, score and slot, in place: an open page submits its id."""
        return _parse_prediction(
            self.request("PATCH", f"/api/predictions/{prediction_id}/", json=_prediction_body(draft))
        )

    def set_slot(self, prediction_id: int, slot: int | None) -> StoredPrediction:
        """Move a prediction to another slot, and change nothing else of it."""
        return _parse_prediction(self.request("PATCH", f"/api/predictions/{prediction_id}/", json={"cluster": slot}))

    def set_version(self, prediction_id: int, model_version: str) -> StoredPrediction:
        """Give a prediction another version's name, and change nothing else of it."""
        body = {"model_version": model_version}
        return _parse_prediction(self.request("PATCH", f"/api/predictions/{prediction_id}/", json=body))

    def delete_prediction(self, prediction_id: int) -> None:
        """Remove one prediction. Never one of an unlabelled task that somebody may have open: its submit would fail."""
        self.request("DELETE", f"/api/predictions/{prediction_id}/")


def _connection_headers(url: str) -> dict[str, str]:
    """Headers that close each plain HTTP connection after its reply.

    Label Studio's own server sends a reply in several small segments. On a kept connection Nagle's algorithm holds
    the last one back until the client's delayed acknowledgement, 40 ms later: a written prediction took 79 ms so, and
    28 ms when the connection closes. Over TLS a new handshake would cost more than that.
    """
    return {"Connection": "close"} if url.startswith("http://") else {}


def _decode(method: str, path: str, response: httpx.Response) -> Any:
    if not response.is_success:
        raise LabelStudioError(_explain(method, path, response), response.status_code)
    if not response.content:
        return None
    try:
        return response.json()
    except (ValueError, RecursionError):
        raise LabelStudioError(
            f"{method} {path}: expected JSON from Label Studio, got {response.headers.get('content-type')}"
        ) from None


def _explain(method: str, path: str, response: httpx.Response) -> str:
    try:
        body = response.json()
        detail = body.get("validation_errors") or body.get("detail") or body if isinstance(body, dict) else body
    except (ValueError, RecursionError):
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
        "neighbors": draft.hidden,
    }


def _read_page(reply: object) -> tuple[int, list[Row]]:
    """Number of tasks that a query found, and the rows of one page of them."""
    page = read_object(reply, "a page of tasks")
    return read_id(page, "total"), read_objects(page.get("tasks"), "a list of tasks")


def _parse_prediction(reply: object) -> StoredPrediction:
    row = read_object(reply, "a prediction")
    return StoredPrediction(
        id=read_id(row),
        task_id=read_id(row, "task"),
        model_version=read_text(row, "model_version"),
        score=finite_number(row.get("score")),
        slot=whole_number(row.get("cluster")),
        mislabeling=finite_number(row.get("mislabeling")) or 0.0,
        updated_at=read_text(row, "updated_at"),
        result=_regions(row),
        hidden=read_answers(row.get("neighbors")),
    )


def _parse_annotation(row: Row) -> Annotation:
    author = row.get("completed_by")
    return Annotation(
        id=read_id(row),
        annotator=whole_number(author.get("id") if isinstance(author, dict) else author) or 0,
        cancelled=bool(row.get("was_cancelled")),
        updated_at=read_text(row, "updated_at"),
        result=_regions(row),
    )


def _regions(row: Row) -> list[Row]:
    # Label Studio checks no region of what scripts submit; what is none answers nothing, and stops nothing.
    result = row.get("result")
    return [region for region in result if isinstance(region, dict)] if isinstance(result, list) else []


def _parse_task(row: Row) -> LabelStudioTask:
    data = row.get("data")
    return LabelStudioTask(
        id=read_id(row),
        data=data if isinstance(data, dict) else {},
        updated_at=read_timestamp(row, "updated_at"),
        annotations=tuple(map(_parse_annotation, _objects_or_none(row, "annotations"))),
        predictions=tuple(map(_parse_prediction, _objects_or_none(row, "predictions"))),
    )


def _objects_or_none(row: Row, name: str) -> list[Row]:
    return [] if row.get(name) is None else read_objects(row[name], f"a list of {name}")
