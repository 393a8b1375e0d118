"""Requests of Label Studio's page, made by programs in place of an annotator.

Captured from the page of 1.23.2 in Chromium:

* "Label All Tasks": `POST /api/dm/actions?id=next_task&tabID=1&project=1` with `{"project": "1"}`. Label Studio does
  not read `tabID`; a body with a filter or an order would serve the tab's order in place of the queue. The answer has
  the task, its `drafts`, those `predictions` that are of the project's `model_version`, and `queue`.
* Submit: `POST /api/tasks/{id}/annotations?project=1` with the keys of `submit_request`. `parent_prediction` is the id
  of the prediction that the photo was opened with; Label Studio refuses the submit when it is gone. It is null, and
  `draft_id` set, when the photo was opened with a draft. Skip sends the same, with the choices, and `was_cancelled`.
* Update: `PATCH /api/annotations/{id}?taskID={id}&project=1` with the keys of `update_request`. The page then reads the
  task again, and stays on it.
* Draft: `POST /api/tasks/{id}/drafts?project=1`, five seconds after a change that was not submitted, or when the page
  is left by a link; `PATCH /api/drafts/{id}` for later changes. A reload saves none. Whoever submits sooner makes none,
  so these programs make none.
* The arrows: `GET /api/tasks/{id}?interaction=labelstream&project=1`; a row: `GET /api/tasks/{id}?project=1`.

No other library is needed here: `scripts/check_compose` runs without an environment.
"""

import uuid
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

Json = dict[str, Any]


def next_task_request(project_id: int) -> tuple[str, Json]:
    """Path and body of the POST that requests the next photo of the queue."""
    return f"/api/dm/actions?id=next_task&project={project_id}", {"project": str(project_id)}


def submit_request(
    task: Mapping[str, Any], result: Sequence[Mapping[str, Any]], *, lead_time_s: float, skipped: bool = False
) -> tuple[str, Json]:
    """Path and body of the POST that submits or skips a photo.

    Args:
        task: as Label Studio served it.
        result: chosen regions, see `page_result`.
        lead_time_s: time for which the photo was open, in seconds.
        skipped: Skip in place of Submit.
    """
    project = str(task["project"])
    body = _common(result, project, lead_time_s) | {
        "parent_prediction": parent_prediction(task),
        "unique_id": str(uuid.uuid4()),
    }
    if skipped:
        body["was_cancelled"] = True
    return f"/api/tasks/{task['id']}/annotations?project={project}", body


def update_request(
    annotation: Mapping[str, Any], result: Sequence[Mapping[str, Any]], *, lead_time_s: float
) -> tuple[str, Json]:
    """Path and body of the PATCH that updates an annotation.

    Args:
        annotation: as Label Studio returned it.
        result: regions chosen now.
        lead_time_s: total time for which the photo was open, in seconds.
    """
    project, task = str(annotation["project"]), annotation["task"]
    body = _common(result, project, lead_time_s) | {"parent_prediction": annotation["parent_prediction"]}
    return f"/api/annotations/{annotation['id']}?taskID={task}&project={project}", body


def _common(result: Sequence[Mapping[str, Any]], project: str, lead_time_s: float) -> Json:
    started = datetime.now(UTC) - timedelta(seconds=lead_time_s)
    return {
        "lead_time": round(lead_time_s, 3),
        "result": [dict(region) for region in result],
        "draft_id": 0,
        "parent_annotation": None,
        "started_at": started.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "project": project,
    }


def parent_prediction(task: Mapping[str, Any]) -> int | None:
    """Id of the prediction that the page opens a served photo with; None without one."""
    predictions = task.get("predictions") or [{}]
    identifier: int | None = predictions[0].get("id")
    return identifier


def page_result(task: Mapping[str, Any], chosen: Sequence[Mapping[str, Any]]) -> list[Json]:
    """Regions as the page sends them for the chosen ones.

    The page starts from the prediction's regions, or from the annotation's, and keeps their ids and scores. An accepted
    one is of the origin "prediction", a changed one "prediction-changed", and one where nothing was chosen "manual",
    without a score.

    Args:
        task: as Label Studio served it.
        chosen: regions with `from_name`, `to_name`, `type` and `value`.
    """
    predictions = task.get("predictions") or [{}]
    predicted = {region["from_name"]: region for region in predictions[0].get("result") or []}
    return [_region(predicted.get(region["from_name"]), region) for region in chosen]


def _region(predicted: Mapping[str, Any] | None, chosen: Mapping[str, Any]) -> Json:
    kept = {key: chosen[key] for key in ("from_name", "to_name", "type", "value")}
    if predicted is None:
        return {"id": uuid.uuid4().hex[:10], **kept, "origin": "manual"}
    origin = predicted.get("origin", "prediction")
    if origin == "prediction" and predicted["value"] != chosen["value"]:
        origin = "prediction-changed"
    return {**predicted, **kept, "origin": origin}
