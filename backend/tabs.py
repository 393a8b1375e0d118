"""Tabs of Label Studio's Data Manager, which its API calls views.

A filter must be one that the page knows too: a single unknown operator (`in_list`, for one, which the API takes) and
the Data Manager of the whole project stays empty for everybody. Columns of other tables (`predictions__mislabeling`)
are refused by the API. So tasks are named here by the ids of their annotations, in the page's own filter.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from backend.labelstudio import LabelStudioApi

_PATH = "/api/dm/views/"
# What says nothing of a photo to look at; a person can show it again.
_HIDDEN = (
    *("inner_id", "cancelled_annotations", "total_predictions", "annotations_ids", "annotations_results"),
    *("predictions_score", "predictions_model_versions", "predictions_results", "file_upload", "storage_filename"),
    *("created_at", "updated_at", "updated_by", "avg_lead_time", "draft_exists"),
)


@dataclass(frozen=True)
class Tab:
    """A tab: its id, its title, and all that Label Studio keeps of it."""

    id: int
    title: str
    data: dict[str, Any]


def read_tabs(api: LabelStudioApi, project_id: int) -> list[Tab]:
    """The tabs of a project, in order."""
    rows = api.request("GET", _PATH, params={"project": project_id})
    return [Tab(int(row["id"]), str((row["data"] or {}).get("title") or ""), row["data"] or {}) for row in rows]


def put_tab(api: LabelStudioApi, project_id: int, title: str, annotation_ids: Sequence[int], until: str) -> int:
    """Make a tab, or change the one of that title, and return its id. Columns that people arranged stay as they are.

    Args:
        api: the way to Label Studio.
        project_id: whose tab.
        title: by which it is found again.
        annotation_ids: the tab shows their tasks, those that changed last first.
        until: latest `updated_at` of these tasks; one that changes later leaves the tab.
    """
    these = {"filter": "filter:tasks:annotations_ids", "operator": "contains", "type": "String"}
    unchanged = {"filter": "filter:tasks:updated_at", "operator": "less", "type": "Datetime"}
    items = [these | {"value": " ".join(map(str, annotation_ids))}, unchanged | {"value": _after(until)}]
    content = {
        "title": title,
        "filters": {"conjunction": "and", "items": items},
        "ordering": ["-tasks:updated_at"],
    }
    tabs = read_tabs(api, project_id)
    for tab in tabs:
        if tab.title == title:
            api.request("PATCH", f"{_PATH}{tab.id}/", json={"project": project_id, "data": tab.data | content})
            return tab.id
    if not tabs:  # the page makes its first tab only where there is none
        api.request("POST", _PATH, json={"project": project_id, "data": {"title": "Default"}})
    hidden = [f"tasks:{name}" for name in _HIDDEN]
    data = content | {"hiddenColumns": {"explore": hidden, "labeling": hidden}}
    return int(api.request("POST", _PATH, json={"project": project_id, "data": data})["id"])


def remove_tab(api: LabelStudioApi, project_id: int, title: str) -> bool:
    """Remove the tabs of a title. Returns whether there was one."""
    found = [tab for tab in read_tabs(api, project_id) if tab.title == title]
    for tab in found:
        api.request("DELETE", f"{_PATH}{tab.id}/")
    return bool(found)


def _after(stamp: str) -> str:
    """The next full second: the page rounds moments down to a millisecond, and Label Studio wants a fraction."""
    moment = datetime.fromisoformat(stamp).astimezone(UTC) + timedelta(seconds=1)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.000000Z")
