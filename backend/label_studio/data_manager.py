"""Tabs of Label Studio's Data Manager, which its API calls views.

A filter must be one that the page knows too: a single unknown operator (`in_list`, for one, which the API takes) and
the Data Manager of the whole project stays empty for everybody. Columns of other tables (`predictions__mislabeling`)
are refused by the API. So labelled tasks are named here by the ids of their annotations, in the page's own filter.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from backend.label_studio.answers import read_id, read_object, read_objects, read_text
from backend.label_studio.client import LabelStudioApi, task_filter

DEFAULT = "Default"
"""Title of the tab that the page makes itself when there is none: it shows all photos."""
_PATH = "/api/dm/views/"
# Wide enough for a doubt in a line or two.
_DOUBT_WIDTH = 360
_COLUMNS = (
    *("id", "inner_id", "completed_at", "total_annotations", "cancelled_annotations", "total_predictions"),
    *("annotators", "annotations_results", "annotations_ids", "predictions_score", "predictions_model_versions"),
    *("predictions_results", "file_upload", "storage_filename", "created_at", "updated_at", "updated_by"),
    *("avg_lead_time", "draft_exists"),
)
# As the page makes its own first tab.
_SHOWN_BY_DEFAULT = frozenset(
    {"id", "completed_at", "total_annotations", "cancelled_annotations", "total_predictions", "annotators"}
)


@dataclass(frozen=True)
class Tab:
    """A tab: its id, its title, and all that Label Studio keeps of it."""

    id: int
    title: str
    data: dict[str, Any]


@dataclass(frozen=True)
class TabContent:
    """Content of a tab of ours.

    Attributes:
        title: identifies the tab.
        filters: the tasks that it shows fulfil all of them.
        ordering: column that orders them, with a leading minus for the greatest first.
        columns: shown beside the photo when the tab is made; a person can show others.
        widths: of columns, in pixels, when the tab is made.
    """

    title: str
    filters: Sequence[dict[str, Any]]
    ordering: str
    columns: frozenset[str]
    widths: Mapping[str, int] = field(default_factory=dict)

    def data(self) -> dict[str, Any]:
        """Label Studio's JSON of the tab, without columns."""
        return {
            "title": self.title,
            "filters": {"conjunction": "and", "items": list(self.filters)},
            "ordering": [self.ordering],
        }


NEXT_TO_LABEL = TabContent(
    "Next to label",
    [task_filter("completed_at", "empty", True, "Datetime")],
    # A task without a prediction of the project's version comes last, on SQLite and PostgreSQL alike.
    "tasks:predictions_score",
    frozenset({"predictions_score", "predictions_model_versions"}),
)
"""The unlabelled photos, least certain first. As a project's first tab it is what opens, and its order is served
wherever people have not clicked Label Studio's *Label All Tasks*. A skipped photo stays in it for others: Label Studio
does not serve it again to who has skipped it."""


def unchanged_tasks(title: str, annotation_ids: Sequence[int], until: str) -> TabContent:
    """A tab with the tasks of some annotations, those that changed last first.

    Args:
        title: of the tab.
        annotation_ids: of the tasks.
        until: latest `updated_at` of these tasks; one that changes later leaves the tab.
    """
    these = task_filter("annotations_ids", "contains", " ".join(map(str, annotation_ids)), "String")
    unchanged = task_filter("updated_at", "less", _after(until), "Datetime")
    doubt = "predictions_model_versions"  # see `backend.project.label_review`: a doubt is a version's name
    columns = frozenset({"id", "completed_at", "total_annotations", "annotators", doubt})
    return TabContent(title, [these, unchanged], "-tasks:updated_at", columns, {doubt: _DOUBT_WIDTH})


def read_tabs(api: LabelStudioApi, project_id: int) -> list[Tab]:
    """The tabs of a project, in order."""
    rows = read_objects(api.request("GET", _PATH, params={"project": project_id}), "tabs")
    data = [read_object(row.get("data") or {}, "a tab's data") for row in rows]
    return [Tab(read_id(row), read_text(each, "title"), each) for row, each in zip(rows, data, strict=True)]


def put_tab(api: LabelStudioApi, project_id: int, content: TabContent) -> int:
    """Make a tab, or change the one of that title, and return its id. Columns that people arranged stay as they are."""
    wanted = content.data()
    tabs = read_tabs(api, project_id)
    for tab in tabs:
        if tab.title == content.title:
            if any(tab.data.get(name) != value for name, value in wanted.items()):
                api.request("PATCH", f"{_PATH}{tab.id}/", json={"project": project_id, "data": tab.data | wanted})
            return tab.id
    if not tabs:  # the page makes its first tab only where there is none
        _make_tab(api, project_id, {"title": DEFAULT}, _SHOWN_BY_DEFAULT, {})
    return _make_tab(api, project_id, wanted, content.columns, content.widths)


def put_first_tab(api: LabelStudioApi, project_id: int, content: TabContent) -> bool:
    """Make a tab and put it before all others, so that it is the one that opens. Returns whether it is new.

    One that is there already stays where it is, since somebody may have moved it.
    """
    before = [tab.id for tab in read_tabs(api, project_id)]
    made = put_tab(api, project_id, content)
    if made in before:
        return False
    others = [tab.id for tab in read_tabs(api, project_id) if tab.id != made]
    order_tabs(api, project_id, [made, *others])
    return True


def order_tabs(api: LabelStudioApi, project_id: int, ids: Sequence[int]) -> None:
    """Put the tabs of a project into an order, and number them by it."""
    api.request("POST", f"{_PATH}order/", json={"project": project_id, "ids": list(ids)})


def _make_tab(
    api: LabelStudioApi, project_id: int, data: dict[str, Any], columns: frozenset[str], widths: Mapping[str, int]
) -> int:
    hidden = [f"tasks:{name}" for name in _COLUMNS if name not in columns]
    data = data | {"hiddenColumns": {"explore": hidden, "labeling": hidden}}
    if widths:
        data["columnsWidth"] = {f"tasks:{name}": width for name, width in widths.items()}
    return read_id(read_object(api.request("POST", _PATH, json={"project": project_id, "data": data}), "a tab"))


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
