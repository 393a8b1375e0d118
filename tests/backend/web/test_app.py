import json
import logging
import tracemalloc
from base64 import b64encode
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient
from sqlalchemy import text
from werkzeug.test import TestResponse

from backend.jobs.queue import get_job_queue
from backend.services import Services, get_services
from backend.web.app import create_app
from tests.backend import label_configs
from tests.backend.conftest import MakeSettings
from tests.backend.drawings import draw_photo
from tests.backend.garage import Garage
from tests.backend.http_server import HttpServer, Reply

CAPTURED: list[dict[str, Any]] = json.loads((Path(__file__).parents[1] / "payloads.json").read_text(encoding="utf-8"))
WEBHOOKS = {c["body"]["action"]: c["body"] for c in CAPTURED if c["request"] == "POST /webhook"}
NEWS = sorted(WEBHOOKS.keys() - {"PROJECT_UPDATED"})
SETUP = next(c["body"] for c in CAPTURED if c["request"] == "POST /setup")
PREDICT = next(c["body"] for c in CAPTURED if c["request"] == "POST /predict")

PROJECT = 1
PASSWORD = "basic-password-never-to-be-logged"
SECRETS = (
    PASSWORD,
    SETUP["access_token"],
    WEBHOOKS["PROJECT_UPDATED"]["project"]["token"],
    "0123456789abcdef0123456789abcdef01234567",
)

MakeClient = Callable[..., FlaskClient]


@pytest.fixture
def make_client(server: HttpServer, make_settings: MakeSettings) -> Iterator[MakeClient]:
    """Call with environment variables; without any there is no Redis and no password."""

    def make(**variables: str) -> FlaskClient:
        make_settings(**({"LABEL_STUDIO_URL": server.url} | variables))
        return create_app().test_client()

    yield make
    opened = vars(get_services())
    for part in {"store", "photos"} & opened.keys():
        opened[part].close()


@pytest.fixture
def client(make_client: MakeClient, redis_url: str) -> FlaskClient:
    """The application with a Redis."""
    return make_client(REDIS_URL=redis_url)


@pytest.fixture
def connected_client(client: FlaskClient) -> FlaskClient:
    """The application with a Redis and two projects."""
    for project_id in (PROJECT, PROJECT + 1):
        get_services().store.add_project(project_id)
    return client


@pytest.fixture
def trained_client(trained: tuple[Garage, list[int]]) -> FlaskClient:
    """The application of a project with a version, and without a Redis."""
    garage, _ = trained
    return create_app(garage.services).test_client()


def waiting_turns() -> int:
    return len(get_job_queue().queues()[0])


def message(response: TestResponse) -> str:
    """The sentence of an error, which is all that its body holds."""
    body = response.get_json()
    assert set(body) == {"error"}
    assert "Traceback" not in body["error"]
    assert 'File "' not in body["error"]
    return str(body["error"])


# Health, setup, versions


@pytest.mark.parametrize("path", ["/", "/health"])
def test_health_looks_at_nothing_else(make_client: MakeClient, path: str) -> None:
    response = make_client(DATABASE_URL="postgresql://nowhere.invalid/none").get(path)
    assert (response.status_code, response.get_json()) == (200, {"status": "UP", "model_class": "CarConditionModel"})


def test_setup_tells_a_version_from_the_beginning(client: FlaskClient) -> None:
    response = client.post("/setup", json=SETUP)
    assert (response.status_code, response.get_json()) == (200, {"model_version": "carcond-0000"})


def test_setup_has_a_worker_look_at_new_projects_and_at_all_of_them_once(client: FlaskClient) -> None:
    for project in (1, 2, 3):
        for _ in range(3):
            client.post("/setup", json={**SETUP, "project": f"{project}.1795378294"})
    (job,) = get_job_queue().queues()[0].jobs
    assert job.func_name == "backend.worker.jobs.run_admissions"
    assert sorted(get_job_queue().begin_admissions()) == [1, 2, 3]
    assert get_services().store.project_ids() == []


def test_setup_of_a_project_that_is_served_makes_no_job(connected_client: FlaskClient) -> None:
    connected_client.post("/setup", json=SETUP)
    assert waiting_turns() == 0


def test_setup_without_redis_still_tells_the_version(trained_client: FlaskClient) -> None:
    response = trained_client.post("/setup", json={**SETUP, "project": "2.1795378294"})
    assert (response.status_code, response.get_json()) == (200, {"model_version": "carcond-0000"})
    assert trained_client.post("/setup", json=SETUP).get_json() == {"model_version": "carcond-0001"}


def test_versions_need_neither_body_nor_query(trained_client: FlaskClient) -> None:
    assert trained_client.get("/versions").get_json() == {"versions": ["carcond-0001"]}
    assert trained_client.get("/versions?project=1").get_json() == {"versions": ["carcond-0001"]}
    assert trained_client.get("/versions?project=2").get_json() == {"versions": ["carcond-0000"]}


def test_before_the_first_version_there_is_the_cold_start(client: FlaskClient) -> None:
    assert client.get("/versions").get_json() == {"versions": ["carcond-0000"]}


# Predict


def test_a_captured_request_is_predicted_without_redis(
    trained_client: FlaskClient, trained: tuple[Garage, list[int]]
) -> None:
    garage, _ = trained
    task = {**PREDICT["tasks"][0], "id": 9999}
    garage.server.answers["/data/upload/1/d721ce94-car4.jpg"] = Reply(draw_photo(777))
    body = trained_client.post("/predict", json={**PREDICT, "tasks": [task]}).get_json()
    (prediction,) = body["results"]
    assert body["model_version"] == prediction["model_version"] == "carcond-0001"
    assert {region["from_name"] for region in prediction["result"]} == {"cleanliness", "damage"}
    assert 0 < prediction["score"] <= 1
    assert label_configs.prediction_errors(PREDICT["label_config"], prediction) == []


def test_before_the_first_version_results_are_empty_and_the_version_is_a_text(client: FlaskClient) -> None:
    response = client.post("/predict", json=PREDICT)
    assert response.status_code == 200
    assert response.get_json() == {
        "results": [{"result": [], "score": 0.0, "model_version": "carcond-0000"}],
        "model_version": "carcond-0000",
    }


def test_a_mixed_batch_gives_a_result_for_each_task_in_order(trained_client: FlaskClient) -> None:
    good = {"id": 20, "data": {"image": "/data/19.jpg"}}
    tasks = [
        {"id": 900, "data": {"image": "/data/none.jpg"}},
        good,
        {"id": 901, "data": {}},
        {},
        {"data": {"image": "/data/3.jpg"}},
    ]
    body = trained_client.post("/predict", json={**PREDICT, "tasks": tasks}).get_json()
    assert [bool(item["result"]) for item in body["results"]] == [False, True, False, False, True]
    assert {item["model_version"] for item in body["results"]} == {"carcond-0001"}
    assert all(isinstance(item["score"], float) for item in body["results"])


def test_an_empty_batch_gives_no_results(trained_client: FlaskClient) -> None:
    body = trained_client.post("/predict", json={**PREDICT, "tasks": []}).get_json()
    assert body == {"results": [], "model_version": "carcond-0001"}


@pytest.mark.parametrize("name", label_configs.ALL)
def test_predictions_speak_the_language_of_the_requests_config(
    trained_client: FlaskClient, trained: tuple[Garage, list[int]], name: str
) -> None:
    garage, ids = trained
    label_config = label_configs.ALL[name]
    key = "picture" if name == "renamed" else "image"
    tasks = [{"id": task_id, "data": {key: f"/data/{i}.jpg"}} for i, task_id in enumerate(ids)]
    body = {**PREDICT, "tasks": tasks, "label_config": label_config}
    results = trained_client.post("/predict", json=body).get_json()["results"]
    assert len(results) == len(tasks)
    for task_id, prediction in zip(ids, results, strict=True):
        assert len(prediction["result"]) == (0 if garage.opens_blank(task_id) else 2)
        assert label_configs.prediction_errors(label_config, prediction) == []


@pytest.mark.parametrize("project", [None, "", "x", 0, [], {}, "17.1", "9" * 40, "²", True])
@pytest.mark.parametrize("label_config", [None, "", "<View>", 5, PREDICT["label_config"]])
def test_odd_projects_and_configs_get_empty_results(client: FlaskClient, project: Any, label_config: Any) -> None:
    body = {"tasks": PREDICT["tasks"], "project": project, "label_config": label_config}
    response = client.post("/predict", json=body)
    assert response.status_code == 200
    assert response.get_json()["results"] == [{"result": [], "score": 0.0, "model_version": "carcond-0000"}]
    assert response.get_json()["model_version"] == "carcond-0000"


@pytest.mark.parametrize("tasks", [None, {}, "text", 5, [1], [None], [[]], [{}, "x"]])
def test_tasks_that_are_no_list_of_objects_are_refused(client: FlaskClient, tasks: Any) -> None:
    response = client.post("/predict", json={**PREDICT, "tasks": tasks})
    assert response.status_code == 400
    assert "expected 'tasks' to be a list of objects" in message(response)


# Webhook


@pytest.mark.parametrize("action", NEWS)
def test_every_event_that_brings_news_makes_one_turn_wait(connected_client: FlaskClient, action: str) -> None:
    response = connected_client.post("/webhook", json=WEBHOOKS[action])
    assert (response.status_code, response.get_json()) == (201, {"status": "ok", "action": action, "enqueued": True})
    assert connected_client.post("/webhook", json=WEBHOOKS[action]).get_json()["enqueued"] is False
    assert waiting_turns() == 1


def test_a_changed_setting_is_no_news_and_a_changed_config_is(connected_client: FlaskClient) -> None:
    updated = WEBHOOKS["PROJECT_UPDATED"]
    connected_client.post("/webhook", json=updated)
    get_job_queue().redis.flushall()
    retitled = {**updated, "project": {**updated["project"], "title": "vans", "model_version": "carcond-0001"}}
    response = connected_client.post("/webhook", json=retitled)
    assert (response.status_code, response.get_json()) == (200, {"status": "ignored", "action": "PROJECT_UPDATED"})
    assert waiting_turns() == 0
    translated = {**updated, "project": {**updated["project"], "label_config": label_configs.RUSSIAN}}
    assert connected_client.post("/webhook", json=translated).status_code == 201
    assert waiting_turns() == 1


def test_configs_of_two_projects_are_told_apart(connected_client: FlaskClient) -> None:
    updated = WEBHOOKS["PROJECT_UPDATED"]
    other = {**updated, "project": {**updated["project"], "id": 2}}
    assert [connected_client.post("/webhook", json=body).status_code for body in (updated, other, updated, other)] == [
        201, 201, 200, 200,
    ]  # fmt: skip


@pytest.mark.parametrize("action", ["PROJECT_CREATED", "LABEL_LINK_CREATED", "", None, 5, ["x"], "annotation_created"])
def test_other_events_are_ignored(client: FlaskClient, action: Any) -> None:
    response = client.post("/webhook", json={"action": action, "project": {"id": 1}})
    assert (response.status_code, response.get_json()["status"]) == (200, "ignored")
    assert waiting_turns() == 0


@pytest.mark.parametrize("project", [None, {}, {"id": None}, {"id": "x"}, [], "x", 0, {"id": -1}, {"id": {"id": 1}}])
@pytest.mark.parametrize("action", ["ANNOTATION_CREATED", "PROJECT_UPDATED"])
def test_an_event_without_a_project_is_refused(client: FlaskClient, action: str, project: Any) -> None:
    response = client.post("/webhook", json={"action": action, "project": project})
    assert response.status_code == 400
    assert message(response) == "expected 'project' with an id"


@pytest.mark.parametrize("action", ["ANNOTATION_CREATED", "PROJECT_UPDATED"])
def test_a_project_may_be_given_by_its_number_alone(connected_client: FlaskClient, action: str) -> None:
    assert connected_client.post("/webhook", json={"action": action, "project": 1}).status_code == 201


def test_without_redis_a_webhook_is_503_and_says_why(make_client: MakeClient) -> None:
    client = make_client()
    get_services().store.add_project(PROJECT)
    response = client.post("/webhook", json=WEBHOOKS["ANNOTATION_CREATED"])
    assert response.status_code == 503
    assert "REDIS_URL" in message(response)


@pytest.mark.parametrize("action", ["ANNOTATION_CREATED", "PROJECT_UPDATED", "START_TRAINING"])
def test_a_webhook_alone_has_no_project_served(client: FlaskClient, action: str) -> None:
    response = client.post("/webhook", json=WEBHOOKS[action])
    assert (response.status_code, response.get_json()) == (
        200,
        {"status": "ignored", "action": action, "reason": "the project is not connected to this backend"},
    )
    assert waiting_turns() == 0


def test_a_project_that_seemed_deleted_is_served_again_with_its_next_label(
    trained: tuple[Garage, list[int]], redis_url: str, make_client: MakeClient
) -> None:
    trained[0].services.store.retire_project(PROJECT)
    client = make_client(REDIS_URL=redis_url)
    assert client.post("/webhook", json=WEBHOOKS["ANNOTATION_CREATED"]).status_code == 201
    assert waiting_turns() == 1


def test_a_webhook_is_taken_while_the_store_is_away(make_client: MakeClient, redis_url: str) -> None:
    client = make_client(REDIS_URL=redis_url)
    with get_services().store.session() as session:
        session.execute(text("ALTER TABLE project RENAME TO away"))
    assert client.post("/webhook", json=WEBHOOKS["ANNOTATION_CREATED"]).status_code == 201
    assert waiting_turns() == 1


# Malformed requests


@pytest.mark.parametrize("path", ["/setup", "/predict", "/webhook"])
@pytest.mark.parametrize(
    "body",
    [b"", b"null", b"[]", b'"text"', b"5", b"{", b"\xff\xfe", b"a=b", b'{"tasks": [}', b'{"a":' + b"[" * 100_000],
    ids=lambda body: body[:10].decode(errors="replace"),
)
def test_a_body_that_is_no_json_object_is_refused_in_json(client: FlaskClient, path: str, body: bytes) -> None:
    response = client.post(path, data=body, content_type="application/json")
    assert response.status_code in (400, 500)
    assert message(response)


def test_another_content_type_is_refused(client: FlaskClient) -> None:
    response = client.post("/predict", data=json.dumps(PREDICT), content_type="text/plain")
    assert response.status_code == 400
    assert "JSON object" in message(response)


def test_unknown_paths_and_methods_are_answered_in_json(client: FlaskClient) -> None:
    assert (client.get("/none").status_code, bool(message(client.get("/none")))) == (404, True)
    assert (client.get("/predict").status_code, bool(message(client.get("/predict")))) == (405, True)


def test_an_unexpected_error_stays_in_the_log(
    client: FlaskClient, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("inner secret")

    monkeypatch.setattr(Services, "registry", fail)
    response = client.post("/predict", json=PREDICT)
    assert response.status_code == 500
    assert message(response) == "an unexpected error; see the backend's log"
    assert "inner secret" in caplog.text


# Who may call

ROUTES = [
    ("POST", "/setup", SETUP),
    ("POST", "/predict", PREDICT),
    ("GET", "/versions", None),
    ("POST", "/webhook", WEBHOOKS["ANNOTATION_CREATED"]),
    ("POST", "/webhook", WEBHOOKS["START_TRAINING"]),
    ("OPTIONS", "/predict", None),
    ("GET", "/none", None),
]


@pytest.fixture
def guarded_client(make_client: MakeClient, redis_url: str) -> FlaskClient:
    client = make_client(REDIS_URL=redis_url, CARCOND_BASIC_AUTH_USER="ls", CARCOND_BASIC_AUTH_PASSWORD=PASSWORD)
    get_services().store.add_project(PROJECT)
    return client


def credentials(user: str, password: str) -> dict[str, str]:
    return {"Authorization": "Basic " + b64encode(f"{user}:{password}".encode()).decode()}


@pytest.mark.parametrize(("method", "path", "body"), ROUTES)
@pytest.mark.parametrize("headers", [{}, credentials("ls", "wrong"), credentials("", ""), {"Authorization": "Basic ?"}])
def test_with_a_password_no_route_but_health_answers_a_stranger(
    guarded_client: FlaskClient, method: str, path: str, body: Any, headers: dict[str, str]
) -> None:
    response = guarded_client.open(path, method=method, json=body, headers=headers)
    assert response.status_code == 401
    assert response.headers["WWW-Authenticate"] == 'Basic realm="carcond"'
    assert "basic authentication" in message(response)
    assert waiting_turns() == 0


@pytest.mark.parametrize(("method", "path", "body"), ROUTES)
def test_with_the_password_every_route_answers(guarded_client: FlaskClient, method: str, path: str, body: Any) -> None:
    response = guarded_client.open(path, method=method, json=body, headers=credentials("ls", PASSWORD))
    assert response.status_code == (404 if path == "/none" else 201 if path == "/webhook" else 200)


def test_health_is_open(guarded_client: FlaskClient) -> None:
    assert guarded_client.get("/health").status_code == guarded_client.get("/").status_code == 200


@pytest.mark.parametrize(("method", "path", "body"), ROUTES)
def test_without_a_password_any_caller_is_answered(client: FlaskClient, method: str, path: str, body: Any) -> None:
    assert client.open(path, method=method, json=body).status_code != 401


def test_no_secret_reaches_a_log_or_a_reply(
    make_client: MakeClient, redis_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    replies = []
    for variables in ({"REDIS_URL": redis_url}, {}):
        client = make_client(CARCOND_BASIC_AUTH_USER="ls", CARCOND_BASIC_AUTH_PASSWORD=PASSWORD, **variables)
        for headers in ({}, credentials("ls", PASSWORD), credentials("ls", PASSWORD + "?")):
            for method, path, body in [*ROUTES, *(("POST", "/webhook", body) for body in WEBHOOKS.values())]:
                replies.append(client.open(path, method=method, json=body, headers=headers).get_data(as_text=True))
    for secret in SECRETS:
        assert secret not in caplog.text
        assert secret not in "".join(replies)
    assert b64encode(f"ls:{PASSWORD}".encode()).decode() not in caplog.text


def test_a_body_that_would_grow_a_thirtyfold_in_memory_is_refused_unparsed(client: FlaskClient) -> None:
    body = b'{"tasks": [' + b"[]," * 2_000_000 + b"[]]}"
    tracemalloc.start()
    response = client.post("/predict", data=body, content_type="application/json")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert response.status_code == 400
    assert "at most 2000000 objects and lists" in response.get_json()["error"]
    assert peak < 3 * len(body)
