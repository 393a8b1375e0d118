import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from backend.labelstudio import PAGE_SIZE, LabelStudioApi, PredictionDraft, StoredPrediction, origin
from carcond.errors import LabelStudioError
from carcond.settings import Settings
from tests.backend.http_server import HttpServer, Reply, Request, free_port

LEGACY = "0123456789abcdef0123456789abcdef01234567"
PERSONAL = "header.payload.signature"


def json_reply(content: Any, status: int = 200) -> Reply:
    return Reply(json.dumps(content).encode(), status, {"Content-Type": "application/json"})


@pytest.fixture(autouse=True)
def no_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("backend.labelstudio._RETRY_WAITS_S", (0.0, 0.0))


@pytest.fixture
def api(server: HttpServer) -> Iterator[LabelStudioApi]:
    made = LabelStudioApi(server.url, LEGACY, timeout_s=5)
    yield made
    made.close()


@pytest.fixture
def personal_api(server: HttpServer) -> Iterator[LabelStudioApi]:
    made = LabelStudioApi(server.url, PERSONAL, timeout_s=5)
    yield made
    made.close()


class AccessTokens:
    """Label Studio's exchange of a personal token: hands out access-1, access-2, ...; the newest is valid."""

    def __init__(self, server: HttpServer) -> None:
        self.count = 0
        self.valid = ""
        server.answers["/api/token/refresh/"] = self.refresh
        server.answers["/api/version"] = self.guarded

    def refresh(self, request: Request) -> Reply:
        assert json.loads(request.body) == {"refresh": PERSONAL}
        assert "authorization" not in request.headers
        self.count += 1
        self.valid = f"access-{self.count}"
        return json_reply({"access": self.valid})

    def guarded(self, request: Request) -> Reply:
        good = request.headers.get("authorization") == f"Bearer {self.valid}"
        return json_reply({"release": "1.23.2"}) if good else Reply(status=401)


def test_a_legacy_token_is_sent_as_it_is(api: LabelStudioApi, server: HttpServer) -> None:
    server.answers["/api/version"] = json_reply({"release": "1.23.2"})
    assert api.request("GET", "/api/version") == {"release": "1.23.2"}
    assert server.tokens == [f"Token {LEGACY}"]


def test_a_personal_token_is_traded_once_for_an_access_token(personal_api: LabelStudioApi, server: HttpServer) -> None:
    tokens = AccessTokens(server)
    for _ in range(3):
        assert personal_api.request("GET", "/api/version") == {"release": "1.23.2"}
    assert tokens.count == 1


def test_an_access_token_that_ran_out_is_renewed(personal_api: LabelStudioApi, server: HttpServer) -> None:
    tokens = AccessTokens(server)
    personal_api.request("GET", "/api/version")
    tokens.valid = "another"
    assert personal_api.request("GET", "/api/version") == {"release": "1.23.2"}
    assert tokens.count == 2


def test_a_renewed_access_token_that_is_refused_too_is_an_error(
    personal_api: LabelStudioApi, server: HttpServer
) -> None:
    AccessTokens(server)
    server.answers["/api/version"] = Reply(status=401)
    with pytest.raises(LabelStudioError, match="LABEL_STUDIO_API_KEY") as caught:
        personal_api.request("GET", "/api/version")
    assert caught.value.status == 401


def test_a_personal_token_that_is_refused_says_what_to_do(personal_api: LabelStudioApi, server: HttpServer) -> None:
    server.answers["/api/token/refresh/"] = Reply(status=401)
    with pytest.raises(LabelStudioError, match="make a new one") as caught:
        personal_api.request("GET", "/api/version")
    assert caught.value.status == 401
    assert PERSONAL not in str(caught.value)


@pytest.mark.parametrize("body", [b"<html>", b"[]", b"{}", b'"text"'])
def test_an_exchange_that_gives_no_token_is_an_error(
    personal_api: LabelStudioApi, server: HttpServer, body: bytes
) -> None:
    server.answers["/api/token/refresh/"] = Reply(body)
    with pytest.raises(LabelStudioError, match="LABEL_STUDIO_URL"):
        personal_api.request("GET", "/api/version")


@pytest.mark.parametrize("key", [LEGACY, PERSONAL])
def test_the_token_goes_to_label_studios_origin_only(server: HttpServer, other_server: HttpServer, key: str) -> None:
    AccessTokens(server)
    other_server.answers["/api/version"] = json_reply({})
    api = LabelStudioApi(server.url, key)
    api.request("GET", f"{other_server.url}/api/version")
    api.close()
    assert other_server.tokens == [None]
    assert server.requests == []


def test_a_redirect_is_not_followed_with_the_token(
    api: LabelStudioApi, server: HttpServer, other_server: HttpServer
) -> None:
    server.answers["/api/version"] = Reply(status=302, headers={"Location": f"{other_server.url}/api/version"})
    with pytest.raises(LabelStudioError, match="set LABEL_STUDIO_URL to where"):
        api.request("GET", "/api/version")
    assert other_server.requests == []


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://LS.example.com/a?b", ("http", "ls.example.com", 80)),
        ("https://ls.example.com", ("https", "ls.example.com", 443)),
        ("http://ls.example.com:8080/", ("http", "ls.example.com", 8080)),
        ("http://user:password@ls.example.com", ("http", "ls.example.com", 80)),
    ],
)
def test_an_origin_is_scheme_host_and_port(url: str, expected: tuple[str, str, int]) -> None:
    assert origin(url) == expected


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
    """GET /api/tasks/ as Label Studio answers it: a page after the last one is a 404."""

    def __init__(self, server: HttpServer, count: int, max_page_size: int = 10_000) -> None:
        self.rows = [{"id": i, "data": {}, "updated_at": "2026-01-01T00:00:00Z"} for i in range(1, count + 1)]
        self.max_page_size = max_page_size
        self.queries: list[dict[str, str]] = []
        server.answers["/api/tasks/"] = self.answer

    def answer(self, request: Request) -> Reply:
        query = {key: values[0] for key, values in parse_qs(urlsplit(request.path).query).items()}
        self.queries.append(query)
        size = min(int(query["page_size"]), self.max_page_size)
        start = (int(query["page"]) - 1) * size
        if start >= len(self.rows) and start:
            return json_reply({"detail": "Invalid page."}, 404)
        return json_reply({"tasks": self.rows[start : start + size], "total": len(self.rows)})


@pytest.mark.parametrize("count", [0, 1, PAGE_SIZE - 1, PAGE_SIZE, PAGE_SIZE + 1, 2 * PAGE_SIZE])
def test_all_pages_are_read_and_none_after_the_last(api: LabelStudioApi, server: HttpServer, count: int) -> None:
    TaskPages(server, count)
    assert api.task_ids(1) == set(range(1, count + 1))


def test_pages_shorter_than_asked_for_lose_nothing(api: LabelStudioApi, server: HttpServer) -> None:
    """Label Studio can be set up with a greatest page size."""
    TaskPages(server, 250, max_page_size=100)
    assert [task.id for task in api.tasks(1)] == list(range(1, 251))


def test_only_changed_tasks_are_asked_for_since_a_moment(api: LabelStudioApi, server: HttpServer) -> None:
    pages = TaskPages(server, 1)
    list(api.tasks(1, changed_since="2026-01-01T00:00:00.5Z"))
    (item,) = json.loads(pages.queries[0]["query"])["filters"]["items"]
    assert item == {
        "filter": "filter:tasks:updated_at",
        "operator": "greater",
        "value": "2026-01-01T00:00:00.5Z",
        "type": "Datetime",
    }
    list(api.tasks(1))
    assert "query" not in pages.queries[1]


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
    draft = PredictionDraft(task_id=3, result=[], score=0.5, model_version="carcond-0001", slot=4)
    assert (
        api.create_prediction(draft)
        == api.update_prediction(9, draft)
        == StoredPrediction(9, 3, "carcond-0001", 0.5, 4)
    )
    assert [request.method for request in server.requests] == ["POST", "PATCH"]
    sent = {"task": 3, "result": [], "score": 0.5, "model_version": "carcond-0001", "cluster": 4}
    assert [json.loads(request.body) for request in server.requests] == [sent, sent]


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
