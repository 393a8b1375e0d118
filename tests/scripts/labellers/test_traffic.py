"""The traffic of a page, with responses as Label Studio 1.23.2 gives them."""

import json
from collections.abc import Callable
from typing import Any, cast

from playwright.sync_api import Page

from backend.label_studio.label_config import SHOWN_TAG
from scripts.labellers.traffic import OpenedTask, Traffic

NEXT = "/api/dm/actions?id=next_task&tabID=1&project=1"
ROW = {
    "id": 65,
    "data": {"image": "/data/local-files/?d=cars/car_0001.jpg"},
    "queue": "Task lock",
    "drafts": [],
    "annotations": [],
    "predictions": [{"id": 3, "model_version": "carcond-0002", "cluster": 7, "result": [{"type": "choices"}]}],
}


class FakeRequest:
    def __init__(self, method: str) -> None:
        self.method, self.post_data = method, "{}"


class FakeResponse:
    def __init__(self, method: str, path: str, status: int = 200, body: Any = None) -> None:
        self.request, self.url, self.status, self.body = FakeRequest(method), f"http://127.0.0.1{path}", status, body

    def json(self) -> Any:
        return self.body

    def text(self) -> str:
        return json.dumps(self.body)


class FakePage:
    """Passes events to whoever listens."""

    def __init__(self) -> None:
        self.listeners: dict[str, Callable[[Any], None]] = {}
        self.served: list[OpenedTask] = []
        self.errors: list[str] = []
        self.saved = 0
        self.traffic = Traffic(cast(Page, self), self.served.append, self._save, self.errors.append)

    def _save(self) -> None:
        self.saved += 1

    def on(self, event: str, listener: Callable[[Any], None]) -> None:
        self.listeners[event] = listener

    def answer(self, method: str, path: str, status: int = 200, body: Any = None) -> None:
        self.listeners["response"](FakeResponse(method, path, status, body))


def test_a_served_photo_is_read_with_the_slot_and_version_of_its_prediction() -> None:
    page = FakePage()
    page.answer("POST", NEXT, 200, ROW)
    assert page.served == [
        OpenedTask(65, ROW["data"], "Task lock", "carcond-0002", 7, has_answers=True, has_line=False, is_fresh=True)  # type: ignore[arg-type]
    ]
    assert page.traffic.opened == page.served[0]


def test_a_photo_with_a_draft_is_not_fresh_and_one_without_a_prediction_has_no_answers() -> None:
    page = FakePage()
    page.answer("POST", NEXT, 200, ROW | {"drafts": [{"id": 1}]})
    page.answer("POST", NEXT, 200, ROW | {"predictions": []})
    line = [{"type": "textarea"}, {"type": "choices", "from_name": SHOWN_TAG}]
    page.answer("POST", NEXT, 200, ROW | {"predictions": [{"id": 3, "result": line}]})
    assert [(task.is_fresh, task.has_answers, task.has_line, task.slot) for task in page.served] == [
        (False, True, False, 7),
        (True, False, False, None),
        (True, False, True, None),
    ]


def test_a_photo_that_was_asked_for_by_its_id_is_opened_but_not_served() -> None:
    page = FakePage()
    page.answer("GET", "/api/tasks/65?interaction=labelstream&project=1", 200, ROW)
    assert (page.served, page.traffic.reads) == ([], 1)


def test_writes_of_annotations_are_accepted_or_refused_and_drafts_are_neither() -> None:
    page = FakePage()
    page.answer("POST", "/api/tasks/65/annotations?project=1", 201, {})
    page.answer("PATCH", "/api/annotations/3?taskID=65&project=1", 200, {})
    page.answer("POST", "/api/tasks/65/drafts?project=1", 201, {})
    page.answer("POST", "/api/tasks/65/annotations?project=1", 400, {"parent_prediction": ["object does not exist"]})
    assert (page.traffic.accepted, page.saved, len(page.traffic.refused)) == (2, 2, 1)
    assert "object does not exist" in page.traffic.refused[0]
    assert page.errors == []


def test_no_photo_left_is_no_error_but_other_failures_are() -> None:
    page = FakePage()
    page.answer("POST", NEXT, 404, {})
    assert page.traffic.is_out_of_tasks
    assert page.errors == []
    page.answer("POST", NEXT, 500, {})
    page.answer("GET", "/api/tasks/65?project=1", 500, {})
    page.answer("GET", "/data/local-files/?d=cars/car_0001.jpg", 404, {})
    page.answer("GET", "/heidi-tips", 404, {})  # the login page's own
    assert len(page.errors) == 3
