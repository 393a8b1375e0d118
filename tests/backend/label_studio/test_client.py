import json
import time
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from backend.label_studio.client import PAGE_SIZE, LabelStudioApi, PredictionDraft, StoredPrediction
from carcond.errors import LabelStudioError
from carcond.settings import Settings
from tests.backend.http_server import HttpServer, Reply, Request, free_port

LEGACY = "0123456789abcdef0123456789abcdef01234567"


def json_reply(content: Any, status: int = 200) -> Reply:
    return Reply(json.dumps(content).encode(), status, {"Content-Type": "application/json"})


@pytest.fixture(autouse=True)
def no_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("backend.label_studio.client._RETRY_WAITS_S", (0.0, 0.0))


@pytest.fixture
def api(server: HttpServer) -> Iterator[LabelStudioApi]:
    made = LabelStudioApi(server.url, LEGACY, timeout_s=5)
    yield made
    made.close()


def test_a_refusal_carries_its_status_and_label_studios_reason(api: LabelStudioApi, server: HttpServer) -> None:
    server.answers["/api/projects/1/"] = json_reply({"validation_errors": {"model_version": ["does not exist"]}}, 400)
    with pytest.raises(LabelStudioError, match=r"HTTP 400 to PATCH /api/projects/1/.*does not exist") as caught:
        api.update_project(1, model_version="v")
    assert caught.value.status == 400


@pytest.mark.parametrize("body", [b"", b"<html>Server Error</html>", b'["a list"]', b'{"detail": "gone"}', b"\xff"])
def test_a_refusal_of_any_form_is_one_error(api: LabelStudioApi, server: HttpServer, body: bytes) -> None:
    server.answers["/api/projects/1/"] = Reply(body, 500)
    with pytest.raises(LabelStudioError, match="HTTP 500") as caught:
        api.project(1)
    assert caught.value.status == 500


@pytest.mark.parametrize(("failures", "succeeds"), [(1, True), (2, True), (3, False)])
def test_a_server_error_is_asked_for_again_twice(
    api: LabelStudioApi, server: HttpServer, failures: int, succeeds: bool
) -> None:
    def answer(_: Request) -> Reply:
        return Reply(status=500) if len(server.requests) <= failures else json_reply({"release": "1.23.2"})

    server.answers["/api/version"] = answer
    if succeeds:
        assert api.request("GET", "/api/version") == {"release": "1.23.2"}
    else:
        with pytest.raises(LabelStudioError, match="HTTP 500"):
            api.request("GET", "/api/version")
    assert len(server.requests) == min(failures + 1, 3)


def test_a_refusal_is_not_asked_for_again(api: LabelStudioApi, server: HttpServer) -> None:
    server.answers["/api/version"] = Reply(status=400)
    with pytest.raises(LabelStudioError):
        api.request("GET", "/api/version")
    assert len(server.requests) == 1


def test_nobody_there_is_an_error_without_a_status() -> None:
    api = LabelStudioApi(f"http://127.0.0.1:{free_port()}", LEGACY)
    with pytest.raises(LabelStudioError, match="Is it running") as caught:
        api.project(1)
    api.close()
    assert caught.value.status is None


def test_a_page_instead_of_json_is_an_error(api: LabelStudioApi, server: HttpServer) -> None:
    server.answers["/api/projects/1/"] = Reply(b"<html>Log in</html>", headers={"Content-Type": "text/html"})
    with pytest.raises(LabelStudioError, match="expected JSON from Label Studio, got text/html"):
        api.project(1)


def test_an_answer_that_ends_half_way_or_never_comes_is_an_error(server: HttpServer) -> None:
    def stall(write: Callable[[bytes], Any]) -> None:
        write(b'{"id": 1, ')
        time.sleep(5)

    server.answers["/api/projects/1/"] = Reply(b'{"id": 1, ', headers={"Content-Length": "500"}, with_length=False)
    server.answers["/api/projects/2/"] = Reply(headers={"Content-Length": "500"}, stream=stall)
    api = LabelStudioApi(server.url, "0" * 40, timeout_s=0.3)
    for project in (1, 2):
        began = time.monotonic()
        with pytest.raises(LabelStudioError, match="could not be reached") as caught:
            api.project(project)
        assert caught.value.status is None
        assert time.monotonic() - began < 4
    api.close()


def test_no_token_stands_in_any_error(api: LabelStudioApi, server: HttpServer) -> None:
    server.answers["/api/projects/1/"] = json_reply({"detail": "no"}, 401)
    with pytest.raises(LabelStudioError) as caught:
        api.project(1)
    assert LEGACY not in str(caught.value)


def test_settings_name_the_label_studio(server: HttpServer) -> None:
    server.answers["/api/version"] = json_reply({})
    settings = Settings(label_studio_url=f"{server.url}/", label_studio_api_key=LEGACY)
    api = LabelStudioApi.from_settings(settings)
    api.request("GET", "/api/version")
    api.close()
    assert server.tokens == [f"Token {LEGACY}"]


def test_a_project_is_read_whatever_is_not_set(api: LabelStudioApi, server: HttpServer) -> None:
    server.answers["/api/projects/7/"] = json_reply(
        {"id": 7, "title": "cars", "label_config": None, "model_version": None, "sampling": "x", "task_number": None}
    )
    project = api.project(7)
    assert (project.id, project.label_config, project.model_version, project.task_count) == (7, "", "", 0)


def test_a_projects_raw_columns_are_not_in_its_text(api: LabelStudioApi, server: HttpServer) -> None:
    """They hold the project's token."""
    server.answers["/api/projects/7/"] = json_reply({"id": 7, "title": "cars", "token": "secret-of-project"})
    assert "secret-of-project" not in repr(api.project(7))


class TaskPages:
    """GET /api/tasks/ as Label Studio answers it: of the tasks behind an id, the first ones."""

    def __init__(self, server: HttpServer, count: int, max_page_size: int = 10_000) -> None:
        self.rows = [{"id": i, "data": {}, "updated_at": "2026-01-01T00:00:00Z"} for i in range(1, count + 1)]
        self.max_page_size = max_page_size
        self.broken: set[int] = set()
        self.queries: list[dict[str, str]] = []
        server.answers["/api/tasks/"] = self.answer

    def answer(self, request: Request) -> Reply:
        query = {key: values[0] for key, values in parse_qs(urlsplit(request.path).query).items()}
        self.queries.append(query)
        size = min(int(query["page_size"]), self.max_page_size)
        asked = json.loads(query["query"])
        assert asked["ordering"] == ["tasks:id"]
        after = next(item["value"] for item in asked["filters"]["items"] if item["filter"] == "filter:tasks:id")
        rows = [row for row in self.rows if row["id"] > after]
        if query["include"] != "id" and any(row["id"] in self.broken for row in rows[:size]):
            return json_reply({"detail": "'utf-8' codec can't encode character"}, 500)
        return json_reply({"tasks": rows[:size], "total": len(rows)})


@pytest.mark.parametrize("count", [0, 1, PAGE_SIZE - 1, PAGE_SIZE, PAGE_SIZE + 1, 2 * PAGE_SIZE])
def test_all_pages_are_read_and_none_after_the_last(api: LabelStudioApi, server: HttpServer, count: int) -> None:
    TaskPages(server, count)
    assert api.task_ids(1) == set(range(1, count + 1))


def test_pages_shorter_than_asked_for_lose_nothing(api: LabelStudioApi, server: HttpServer) -> None:
    """Label Studio can be set up with a greatest page size."""
    TaskPages(server, 250, max_page_size=100)
    assert [task.id for task in api.tasks(1)] == list(range(1, 251))


@pytest.mark.parametrize("broken", [{1}, {250}, {3, 4}, {7, 199}])
def test_a_task_that_label_studio_cannot_show_is_left_out_and_named(
    api: LabelStudioApi, server: HttpServer, caplog: pytest.LogCaptureFixture, broken: set[int]
) -> None:
    TaskPages(server, 250).broken = broken
    for task_id in broken:
        server.answers[f"/api/tasks/{task_id}/"] = json_reply({"detail": "cannot encode"}, 500)
    assert [task.id for task in api.tasks(1)] == [i for i in range(1, 251) if i not in broken]
    for task_id in broken:
        assert f"task {task_id} is left out" in caplog.text


@pytest.mark.parametrize("shown", [True, False])
def test_a_label_studio_that_is_merely_busy_is_an_error_and_no_task_is_left_out(
    api: LabelStudioApi, server: HttpServer, shown: bool
) -> None:
    TaskPages(server, 20).broken = {5}
    if shown:
        server.answers["/api/tasks/5/"] = json_reply({"id": 5})
    else:
        server.answers["/api/tasks/"] = json_reply({"detail": "busy"}, 503)
    with pytest.raises(LabelStudioError) as caught:
        list(api.tasks(1))
    assert caught.value.status in (500, 503)


def test_tasks_deleted_while_pages_are_read_make_none_pass_by(api: LabelStudioApi, server: HttpServer) -> None:
    pages = TaskPages(server, 250, max_page_size=100)
    read = []
    for task in api.tasks(1):
        read.append(task.id)
        if task.id == 100:
            pages.rows = [row for row in pages.rows if row["id"] not in (3, 4, 5)]
    assert read == list(range(1, 251))


def test_only_changed_tasks_are_asked_for_since_a_moment(api: LabelStudioApi, server: HttpServer) -> None:
    pages = TaskPages(server, 1)
    list(api.tasks(1, changed_since="2026-01-01T00:00:00.5Z"))
    item, _ = json.loads(pages.queries[0]["query"])["filters"]["items"]
    assert item == {
        "filter": "filter:tasks:updated_at",
        "operator": "greater",
        "value": "2026-01-01T00:00:00.5Z",
        "type": "Datetime",
    }
    list(api.tasks(1))
    (item,) = json.loads(pages.queries[1]["query"])["filters"]["items"]
    assert item == {"filter": "filter:tasks:id", "operator": "greater", "value": 0, "type": "Number"}


def test_a_task_comes_with_its_annotations_and_predictions(api: LabelStudioApi, server: HttpServer) -> None:
    result = [{"from_name": "damage", "value": {"choices": ["intact"]}}]
    task = {
        "id": 3,
        "data": {"image": "/data/upload/1/a.jpg"},
        "updated_at": "2026-01-01T00:00:00Z",
        "annotations": [
            {"id": 1, "completed_by": 5, "was_cancelled": False, "updated_at": "t1", "result": result},
            {"id": 2, "completed_by": {"id": 6, "email": "a@b.c"}, "was_cancelled": True, "result": None},
            {"id": 4, "completed_by": None},
        ],
        "predictions": [{"id": 9, "task": 3, "model_version": "carcond-0001", "score": 0.5, "cluster": 0}],
    }
    server.answers["/api/tasks/"] = json_reply({"tasks": [task], "total": 1})
    (read,) = api.tasks(1)
    assert [(a.id, a.annotator, a.cancelled, a.result) for a in read.annotations] == [
        (1, 5, False, result),
        (2, 6, True, []),
        (4, 0, False, []),
    ]
    assert read.predictions == (StoredPrediction(9, 3, "carcond-0001", 0.5, 0),)


def test_a_prediction_is_written_with_its_slot_as_cluster(api: LabelStudioApi, server: HttpServer) -> None:
    row = {"id": 9, "task": 3, "model_version": "carcond-0001", "score": 0.5, "cluster": 4}
    server.answers["/api/predictions/"] = json_reply(row, 201)
    server.answers["/api/predictions/9/"] = json_reply(row)
    hidden = {"damage": ("intact", 0.75)}
    draft = PredictionDraft(task_id=3, result=[], score=0.5, model_version="carcond-0001", slot=4, hidden=hidden)
    assert (
        api.create_prediction(draft)
        == api.update_prediction(9, draft)
        == StoredPrediction(9, 3, "carcond-0001", 0.5, 4)
    )
    assert [request.method for request in server.requests] == ["POST", "PATCH"]
    sent = {"task": 3, "result": [], "score": 0.5, "model_version": "carcond-0001", "cluster": 4}
    sent |= {"neighbors": {"damage": ["intact", 0.75]}}
    assert [json.loads(request.body) for request in server.requests] == [sent, sent]


def test_the_answers_that_a_prediction_hides_are_read_back(api: LabelStudioApi, server: HttpServer) -> None:
    row = {"id": 9, "task": 3, "model_version": "carcond-0001", "result": [{"id": "a"}, 7]}
    odd = {"cleanliness": ["clean", 2], "rust": "none", "size": [1, 2], "colour": ["red"]}
    server.answers["/api/predictions/9/"] = json_reply(row | {"neighbors": odd | {"damage": ["intact", 0.75]}})
    read = api.set_slot(9, 4)
    assert read.result == [{"id": "a"}]
    assert read.hidden == {"damage": ("intact", 0.75)}
    server.answers["/api/predictions/9/"] = json_reply(row | {"neighbors": [3, 4]})
    assert api.set_slot(9, 4).hidden == {}


def test_a_removed_prediction_has_no_reply_to_read(api: LabelStudioApi, server: HttpServer) -> None:
    server.answers["/api/predictions/9/"] = Reply(status=204)
    api.delete_prediction(9)
    assert server.requests[0].method == "DELETE"


def test_tasks_are_found_by_conditions(api: LabelStudioApi, server: HttpServer) -> None:
    row = {"id": 7, "data": {"image": "/a.jpg"}, "updated_at": "2026-01-01T00:00:00Z"}
    server.answers["/api/tasks/"] = json_reply({"total": 12, "tasks": [row]})
    condition = {"filter": "filter:tasks:total_predictions", "operator": "greater", "value": 1, "type": "Number"}
    total, (task,) = api.find_tasks(3, [condition], count=5)
    assert (total, task.id, task.data) == (12, 7, {"image": "/a.jpg"})
    asked = parse_qs(urlsplit(server.requests[0].path).query)
    assert (asked["project"], asked["page_size"]) == (["3"], ["5"])
    assert json.loads(asked["query"][0])["filters"] == {"conjunction": "and", "items": [condition]}
