"""The JSON API, in process: what is answered, what is refused, and whether both are as the document says."""

import base64
import hashlib
import json
import logging
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flask.testing import FlaskClient
from jsonschema import Draft202012Validator
from PIL import Image
from werkzeug.datastructures import MultiDict
from werkzeug.test import TestResponse

from backend.services import Services, get_services
from backend.web.api import routes
from backend.web.api.openapi import openapi_document
from backend.web.app import create_app
from carcond.model.encoder import Encoder, find_encoder
from carcond.model.heads import Heads
from tests.backend.conftest import MakeSettings
from tests.backend.versions import write_version
from tests.conftest import MakeEncoder

TOKEN = "token-of-the-shop-never-to-be-logged"
TOKENS = f"shop:{hashlib.sha256(TOKEN.encode()).hexdigest()},yard:{hashlib.sha256(b'yard').hexdigest()}"
BEARER = {"Authorization": f"Bearer {TOKEN}"}

MakeClient = Callable[..., FlaskClient]


@pytest.fixture
def heads(models_dir: Path) -> Heads:
    return write_version(models_dir)


@pytest.fixture
def make_client(make_settings: MakeSettings) -> MakeClient:
    """An application with settings of its own. There is no Redis, and no Label Studio."""

    def make(**variables: str) -> FlaskClient:
        make_settings(**variables)
        return create_app(get_services()).test_client()

    return make


@pytest.fixture
def client(make_client: MakeClient, heads: Heads) -> FlaskClient:
    return make_client()


def send(client: FlaskClient, path: str, *photos: bytes, headers: Any = None, **fields: str) -> TestResponse:
    parts: list[tuple[str, Any]] = [("image", (BytesIO(data), f"{i}.jpg")) for i, data in enumerate(photos)]
    return client.post(path, data=MultiDict([*parts, *fields.items()]), headers=headers)


def problem(response: TestResponse, status: int) -> str:
    """The sentence of a problem, which is as the document says."""
    assert response.status_code == status
    assert response.content_type == "application/problem+json"
    body = response.get_json()
    check_schema("Problem", body)
    assert body["status"] == status
    assert "Traceback" not in body["detail"]
    return str(body["detail"])


def check_schema(name: str, body: Any) -> None:
    document = openapi_document()
    schema = {"$ref": f"#/components/schemas/{name}", "components": document["components"]}
    Draft202012Validator(schema).validate(body)


def dark_photo() -> bytes:
    file = BytesIO()
    Image.new("RGB", (640, 480), (5, 5, 5)).save(file, "JPEG")
    return file.getvalue()


# Answers


def test_the_original_form_of_the_answer(client: FlaskClient, heads: Heads, drawn_cars: list[bytes]) -> None:
    body = send(client, "/predict", drawn_cars[0]).get_json()
    assert set(body) == {"cleanliness", "damage", "confidence"}
    check_schema("ShortAnswer", body)
    encoder = get_services().encoder(heads.encoder_id)
    for key, expected in heads.probabilities(encoder.embed_photo(drawn_cars[0], 10**8)[np.newaxis]).items():
        assert body[key] == heads.by_task[key].task.class_keys[expected[0].argmax()]
        assert body["confidence"][key] == pytest.approx(float(expected.max()), abs=1e-4)


def test_an_encoder_of_two_views_answers_and_shows_why(
    make_client: MakeClient, models_dir: Path, make_tiny_encoder: MakeEncoder, drawn_cars: list[bytes]
) -> None:
    encoder = Encoder.load(make_tiny_encoder(models_dir, 3, views=(32, 64)))
    heads = write_version(models_dir)
    body = send(make_client(), "/api/v1/condition", drawn_cars[0], overlay="true").get_json()
    for key, expected in heads.probabilities(encoder.embed_photo(drawn_cars[0], 10**8)[np.newaxis]).items():
        wanted = dict(zip(heads.by_task[key].task.class_keys, expected[0].tolist(), strict=True))
        assert body["tasks"][key]["probabilities"] == pytest.approx(wanted, abs=1e-3)
    assert body["photos"][0]["overlay"]


def test_label_studio_still_posts_json_to_the_same_path(client: FlaskClient) -> None:
    body = client.post("/predict", json={"tasks": [], "project": "1.1"}).get_json()
    assert body == {"results": [], "model_version": "carcond-0001"}


def test_one_photo_gets_probabilities_version_and_the_mobile_form(client: FlaskClient, drawn_cars: list[bytes]) -> None:
    body = send(client, "/api/v1/condition", drawn_cars[0]).get_json()
    check_schema("ConditionAnswer", body)
    assert (body["project"], body["version"], body["faults"], body["messages"]) == (1, "carcond-0001", [], [])
    for key in ("cleanliness", "damage"):
        task = body["tasks"][key]
        assert sum(task["probabilities"].values()) == pytest.approx(1, abs=1e-3)
        assert task["probabilities"][task["status"]] == task["confidence"] == max(task["probabilities"].values())
        assert body["car_condition"][key]["status"] == task["status"]
        assert body["car_condition"][key]["confidence"] == task["confidence"]
    (photo,) = body["photos"]
    assert (photo["file"], photo["width"], photo["height"], photo["overlay"]) == ("0.jpg", 640, 480, None)
    assert photo["tasks"] == body["tasks"]


def test_several_photos_get_one_condition_and_each_its_own(client: FlaskClient, drawn_cars: list[bytes]) -> None:
    body = send(client, "/api/v1/condition", *drawn_cars[:3]).get_json()
    check_schema("ConditionAnswer", body)
    assert [photo["file"] for photo in body["photos"]] == ["0.jpg", "1.jpg", "2.jpg"]
    damaged = [photo["tasks"]["damage"]["probabilities"]["damaged"] for photo in body["photos"]]
    assert body["tasks"]["damage"]["probabilities"]["damaged"] == max(damaged)


def test_messages_are_in_the_language_asked_for(client: FlaskClient, drawn_cars: list[bytes]) -> None:
    texts = []
    for language in ("en", "ru"):
        body = send(client, "/api/v1/condition", drawn_cars[0], language=language).get_json()
        texts.append(body["car_condition"]["cleanliness"]["display_message"])
    assert texts[0].isascii()
    assert not texts[1].isascii()


def test_the_overlay_is_a_png_and_comes_on_request(client: FlaskClient, drawn_cars: list[bytes]) -> None:
    body = send(client, "/api/v1/condition", drawn_cars[0], dark_photo(), overlay="true").get_json()
    check_schema("ConditionAnswer", body)
    picture = Image.open(BytesIO(base64.b64decode(body["photos"][0]["overlay"])))
    assert picture.format == "PNG"
    assert picture.width > picture.height
    assert body["photos"][1]["overlay"] is None


def test_a_photo_with_a_fault_gets_an_answer_and_no_guess(client: FlaskClient) -> None:
    short = send(client, "/predict", dark_photo()).get_json()
    check_schema("ShortAnswer", short)
    assert (short["cleanliness"], short["damage"]) == ("unknown", "unknown")
    assert short["confidence"] == {"cleanliness": 0, "damage": 0}
    assert short["faults"] == ["too_dark", "too_blurred"]
    body = send(client, "/api/v1/condition", dark_photo(), language="ru").get_json()
    check_schema("ConditionAnswer", body)
    assert body["tasks"] == body["photos"][0]["tasks"] == {}
    assert len(body["messages"]) == 2
    assert body["car_condition"]["cleanliness"]["display_message"] == body["messages"][0]


@pytest.mark.parametrize(("side", "status"), [(200, 2), (140, 0)])
def test_a_small_photo_is_judged_with_a_remark_and_a_tiny_one_is_not(
    client: FlaskClient, drawn_cars: list[bytes], side: int, status: int
) -> None:
    photo, file = Image.open(BytesIO(drawn_cars[0])).convert("RGB"), BytesIO()
    photo.resize((side * 2, side)).save(file, "PNG")
    short = send(client, "/predict", file.getvalue()).get_json()
    check_schema("ShortAnswer", short)
    assert [short[task] != "unknown" for task in ("cleanliness", "damage")].count(True) == status
    assert (short.get("remarks"), short.get("faults")) == ((["small"], None) if status else (None, ["too_small"]))
    body = send(client, "/api/v1/condition", file.getvalue()).get_json()
    check_schema("ConditionAnswer", body)
    assert len(body["tasks"]) == len(body["photos"][0]["tasks"]) == status
    assert body["remarks"] == body["photos"][0]["remarks"] == (["small"] if status else [])
    (message,) = body["messages"]
    assert "small" in message.lower()


# Projects


def test_without_a_version_there_is_no_answer_yet(make_client: MakeClient, drawn_cars: list[bytes]) -> None:
    client = make_client()
    get_services().store.add_project(7)
    for fields, words in (({}, "no model version yet"), ({"project": "7"}, "in project 7 yet")):
        response = send(client, "/api/v1/condition", drawn_cars[0], **fields)
        assert words in problem(response, 503)
        assert int(response.headers["Retry-After"]) >= 1
    assert "no model version yet" in problem(send(client, "/predict", drawn_cars[0]), 503)


def test_with_several_projects_one_has_to_be_named(
    client: FlaskClient, models_dir: Path, drawn_cars: list[bytes]
) -> None:
    write_version(models_dir, 12)
    assert "one of 1, 12" in problem(send(client, "/api/v1/condition", drawn_cars[0]), 422)
    assert send(client, "/api/v1/condition", drawn_cars[0], project="12").get_json()["project"] == 12


def test_the_short_answer_is_that_of_the_project_which_is_named(
    client: FlaskClient, models_dir: Path, drawn_cars: list[bytes]
) -> None:
    write_version(models_dir, 12)
    assert "one of 1, 12" in problem(send(client, "/predict", drawn_cars[0]), 422)
    for project in ("1", "12"):
        short = send(client, "/predict", drawn_cars[0], project=project).get_json()
        check_schema("ShortAnswer", short)
        tasks = send(client, "/api/v1/condition", drawn_cars[0], project=project).get_json()["tasks"]
        assert short["confidence"] == {key: task["confidence"] for key, task in tasks.items()}


@pytest.mark.parametrize("path", ["/predict", "/api/v1/condition"])
def test_a_project_that_is_not_served_is_not_found(client: FlaskClient, drawn_cars: list[bytes], path: str) -> None:
    assert "no project 7 that" in problem(send(client, path, drawn_cars[0], project="7"), 404)
    assert "project" in problem(send(client, path, drawn_cars[0], project=str(10**30)), 422)
    get_services().store.add_project(7)
    assert "in project 7 yet" in problem(send(client, path, drawn_cars[0], project="7"), 503)


def test_a_missing_encoder_is_said_without_its_place(
    client: FlaskClient, models_dir: Path, drawn_cars: list[bytes]
) -> None:
    (find_encoder(models_dir) / "encoder.onnx").unlink()
    detail = problem(send(client, "/api/v1/condition", drawn_cars[0]), 503)
    assert "encoder of carcond-0001" in detail
    assert str(models_dir) not in detail


# What is refused


@pytest.mark.parametrize("path", ["/predict", "/api/v1/condition"])
def test_a_request_without_a_photo_is_refused(client: FlaskClient, path: str) -> None:
    response = client.post(path, data={"other": "1"}, content_type="multipart/form-data")
    assert "parts 'image'" in problem(response, 422)


def test_what_is_no_photo_is_named(client: FlaskClient, drawn_cars: list[bytes]) -> None:
    detail = problem(send(client, "/api/v1/condition", drawn_cars[0], b"no photo"), 422)
    assert "'1.jpg'" in detail
    assert "expected a JPEG" in detail


def test_the_short_answer_is_for_one_photo(client: FlaskClient, drawn_cars: list[bytes]) -> None:
    assert "got 2" in problem(send(client, "/predict", *drawn_cars[:2]), 422)


def test_too_many_photos_are_refused(client: FlaskClient) -> None:
    assert "got 11" in problem(send(client, "/api/v1/condition", *[b"small"] * 11), 422)


@pytest.mark.parametrize(
    "fields", [{"language": "de"}, {"project": "one"}, {"project": "-1"}, {"overlay": "maybe"}, {"langauge": "ru"}]
)
def test_a_malformed_field_is_named(client: FlaskClient, drawn_cars: list[bytes], fields: dict[str, str]) -> None:
    (name,) = fields
    for path in ("/predict", "/api/v1/condition"):
        assert name in problem(send(client, path, drawn_cars[0], **fields), 422)


@pytest.mark.parametrize("path", ["/predict", "/api/v1/condition"])
@pytest.mark.parametrize("name", ["mask", "project"])
def test_a_file_that_nobody_asked_for_is_named(
    client: FlaskClient, drawn_cars: list[bytes], path: str, name: str
) -> None:
    parts = {"image": (BytesIO(drawn_cars[0]), "a.jpg"), name: (BytesIO(b"1"), "b.jpg")}
    assert problem(client.post(path, data=parts), 422).startswith(f"{name}: ")


def test_the_short_answer_takes_no_field_that_it_does_not_need(client: FlaskClient, drawn_cars: list[bytes]) -> None:
    assert "language" in problem(send(client, "/predict", drawn_cars[0], language="ru"), 422)


@pytest.mark.parametrize("content_type", ["application/json", "image/jpeg", "application/x-www-form-urlencoded", ""])
def test_another_type_of_body_is_refused(client: FlaskClient, content_type: str) -> None:
    response = client.post("/api/v1/condition", data=b"{}", content_type=content_type)
    assert "multipart/form-data" in problem(response, 415)


def test_a_photo_that_is_sent_as_it_is_says_to_those_with_a_token_what_to_send(
    make_client: MakeClient, heads: Heads, drawn_cars: list[bytes]
) -> None:
    protected = {"CARCOND_BASIC_AUTH_USER": "studio", "CARCOND_BASIC_AUTH_PASSWORD": "password"}
    client = make_client(**protected, CARCOND_API_TOKENS=TOKENS)
    sent = {"data": drawn_cars[0], "content_type": "image/jpeg"}
    detail = problem(client.post("/predict", **sent, headers=BEARER), 415)
    assert detail == "expected multipart/form-data with a part 'image', got 'image/jpeg'"
    wrong = client.post("/predict", **sent, headers={"Authorization": "Bearer wrong"})
    assert "expected a token" in problem(wrong, 401)
    assert client.post("/predict", **sent).status_code == 401


def test_a_body_that_is_not_what_it_says_is_refused(client: FlaskClient) -> None:
    response = client.post("/api/v1/condition", data=b"--", content_type="multipart/form-data; boundary=x")
    problem(response, 422)


def test_a_large_photo_is_refused(make_client: MakeClient, heads: Heads, drawn_cars: list[bytes]) -> None:
    photo = drawn_cars[0]
    limit = len(photo) + 100
    client, too_large = make_client(CARCOND_MAX_PHOTO_BYTES=str(limit)), photo + bytes(200)
    assert f"more than the limit of {limit}" in problem(send(client, "/api/v1/condition", too_large), 413)
    assert "together larger" in problem(send(client, "/api/v1/condition", too_large, too_large), 413)


def test_a_photo_of_many_pixels_is_refused(make_client: MakeClient, heads: Heads, drawn_cars: list[bytes]) -> None:
    client = make_client(CARCOND_MAX_PHOTO_PIXELS="10000")
    assert "more than the limit of 10000" in problem(send(client, "/predict", drawn_cars[0]), 422)


def test_an_unknown_path_and_a_wrong_method_are_problems_too(client: FlaskClient) -> None:
    problem(client.get("/api/v1/nothing"), 404)
    response = client.get("/api/v1/condition")
    problem(response, 405)
    assert "POST" in response.headers["Allow"]


def test_what_goes_wrong_inside_stays_in_the_log(
    client: FlaskClient, drawn_cars: list[bytes], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(routes, "combine", lambda photos: 1 / 0)
    assert "see the backend's log" in problem(send(client, "/api/v1/condition", drawn_cars[0]), 500)
    assert "ZeroDivisionError" in caplog.text


# Tokens


@pytest.mark.parametrize("path", ["/predict", "/api/v1/condition"])
@pytest.mark.parametrize(
    "headers", [{}, {"Authorization": "Bearer wrong"}, {"Authorization": "Bearer "}, {"Authorization": "Basic eDp5"}]
)
def test_without_a_token_nobody_is_answered(
    make_client: MakeClient, heads: Heads, drawn_cars: list[bytes], path: str, headers: dict[str, str]
) -> None:
    response = send(make_client(CARCOND_API_TOKENS=TOKENS), path, drawn_cars[0], headers=headers)
    assert "expected a token" in problem(response, 401)
    assert response.headers["WWW-Authenticate"].startswith("Bearer")


@pytest.mark.parametrize("path", ["/predict", "/api/v1/condition"])
def test_each_token_is_known(make_client: MakeClient, heads: Heads, drawn_cars: list[bytes], path: str) -> None:
    client = make_client(CARCOND_API_TOKENS=TOKENS)
    for token in (TOKEN, "yard"):
        headers = {"Authorization": f"Bearer {token}"}
        assert send(client, path, drawn_cars[0], headers=headers).status_code == 200


def test_label_studios_password_opens_nothing_here_and_a_token_nothing_there(
    make_client: MakeClient, heads: Heads, drawn_cars: list[bytes]
) -> None:
    protected = {"CARCOND_BASIC_AUTH_USER": "studio", "CARCOND_BASIC_AUTH_PASSWORD": "password"}
    client = make_client(**protected, CARCOND_API_TOKENS=TOKENS)
    basic = {"Authorization": "Basic " + base64.b64encode(b"studio:password").decode()}
    problem(send(client, "/api/v1/condition", drawn_cars[0], headers=basic), 401)
    assert client.post("/predict", json={"tasks": []}, headers=basic).status_code == 200
    assert client.post("/predict", json={"tasks": []}, headers=BEARER).status_code == 401
    assert client.get("/metrics", headers=BEARER).status_code == 401


def test_a_protected_backend_without_tokens_keeps_the_api_closed(
    make_client: MakeClient, heads: Heads, drawn_cars: list[bytes]
) -> None:
    client = make_client(CARCOND_BASIC_AUTH_USER="studio", CARCOND_BASIC_AUTH_PASSWORD="password")
    assert "CARCOND_API_TOKENS" in problem(send(client, "/predict", drawn_cars[0]), 401)


def test_tokens_never_reach_the_log(
    make_client: MakeClient, heads: Heads, drawn_cars: list[bytes], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    client = make_client(CARCOND_API_TOKENS=TOKENS)
    send(client, "/api/v1/condition", drawn_cars[0], headers=BEARER)
    send(client, "/api/v1/condition", b"no photo", headers=BEARER)
    send(client, "/api/v1/condition", drawn_cars[0], headers={"Authorization": f"Bearer {TOKEN}x"})
    assert TOKEN not in caplog.text


# Shares


def test_a_caller_that_sends_too_much_has_to_wait_and_others_do_not(
    make_client: MakeClient, heads: Heads, drawn_cars: list[bytes]
) -> None:
    client = make_client(CARCOND_API_TOKENS=TOKENS, CARCOND_API_PHOTOS_PER_MINUTE="3")
    assert send(client, "/api/v1/condition", *drawn_cars[:3], headers=BEARER).status_code == 200
    response = send(client, "/api/v1/condition", drawn_cars[0], headers=BEARER)
    assert "more than 3 photos a minute" in problem(response, 429)
    assert 1 <= int(response.headers["Retry-After"]) <= 60
    other = {"Authorization": "Bearer yard"}
    assert send(client, "/predict", drawn_cars[0], headers=other).status_code == 200


def test_web_processes_share_what_they_counted(
    make_client: MakeClient, heads: Heads, drawn_cars: list[bytes], redis_url: str
) -> None:
    clients = [make_client(REDIS_URL=redis_url, CARCOND_API_PHOTOS_PER_MINUTE="2") for _ in range(2)]
    assert send(clients[0], "/api/v1/condition", *drawn_cars[:2]).status_code == 200
    problem(send(clients[1], "/api/v1/condition", drawn_cars[0]), 429)


def test_a_full_house_asks_to_come_back(
    client: FlaskClient, drawn_cars: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(routes, "SLOTS", 0)
    busy = create_app(get_services()).test_client()
    response = send(busy, "/predict", drawn_cars[0])
    assert "try again" in problem(response, 503)
    assert response.headers["Retry-After"] == "1"
    assert busy.get("/health").status_code == 200


# The document


def test_the_document_is_served_to_everybody_and_describes_the_routes(make_client: MakeClient, heads: Heads) -> None:
    client = make_client(CARCOND_API_TOKENS=TOKENS)
    document = json.loads(client.get("/api/v1/openapi.json").data)
    assert document["openapi"].startswith("3.1")
    served = {str(rule) for rule in client.application.url_map.iter_rules() if str(rule).startswith("/api/")}
    assert served == {"/api/v1/openapi.json", *(path for path in document["paths"] if path != "/predict")}
    for schema in document["components"]["schemas"].values():
        Draft202012Validator.check_schema(schema)


def test_the_document_tells_what_predict_answers_to_neither_photo_nor_tasks(client: FlaskClient) -> None:
    response = client.post("/predict")
    described = openapi_document()["paths"]["/predict"]["post"]["responses"][str(response.status_code)]
    Draft202012Validator(described["content"][response.content_type]["schema"]).validate(response.get_json())


def test_every_reference_of_the_document_leads_somewhere() -> None:
    document = openapi_document()
    named = {f"#/components/schemas/{name}" for name in document["components"]["schemas"]}
    text = json.dumps(document)
    assert {part.split('"')[0] for part in text.split('"$ref": "')[1:]} <= named


def test_services_are_not_asked_for_the_store(make_client: MakeClient, heads: Heads, drawn_cars: list[bytes]) -> None:
    client = make_client(DATABASE_URL="postgresql://nowhere.invalid/none")
    assert send(client, "/predict", drawn_cars[0]).status_code == 200
    assert isinstance(get_services(), Services)
