"""Whatever is sent to whichever route, the backend answers soon, without an error of its own, and tells no secret."""

import hashlib
import time
import tracemalloc
from base64 import b64encode
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient
from hypothesis import HealthCheck, given, settings
from hypothesis.strategies import SearchStrategy

from backend.app import create_app
from backend.jobs.queue import get_job_queue
from backend.services import get_services
from tests.backend.conftest import API_KEY, MakeSettings
from tests.backend.drawings import draw_photo
from tests.backend.http_server import HttpServer, Reply
from tests.backend.versions import write_version
from tests.backend.web.fuzz.odd_requests import FORM_TYPE, form_bodies, json_bodies, requests
from tests.backend.web.test_app import CAPTURED, PASSWORD, PREDICT, SETUP

pytestmark = [
    pytest.mark.slow,
    # Werkzeug leaves the file of a form that breaks off to the garbage collector.
    pytest.mark.filterwarnings("ignore:Unclosed file:ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    # Some bodies are as large as that.
    pytest.mark.filterwarnings("ignore:Generating overly large repr"),
]

MakeClient = Callable[..., FlaskClient]

EXAMPLES = {"long": 5_000}.get(settings.get_current_profile_name(), 100)
TOKEN = "token-of-the-shop-never-to-be-logged"
SECRETS = (PASSWORD, TOKEN, API_KEY)
_SECONDS = 5.0
# Kept for ever by our own code, in bytes a request; what Python, Flask and Hypothesis keep is not counted.
_KEPT = 50

_BASIC = f"Basic {b64encode(f'carcond:{PASSWORD}'.encode()).decode()}"
_BEARER = f"Bearer {TOKEN}"
_WEBHOOKS = [each["body"] for each in CAPTURED if each["request"] == "POST /webhook"]
_PHOTO = draw_photo(0)


def _request(path: str, method: str, *captured: Any) -> SearchStrategy[dict[str, Any]]:
    return requests(path, method, json_bodies(*captured or [{}]), "application/json", (_BASIC,))


def _form(path: str) -> SearchStrategy[dict[str, Any]]:
    return requests(path, "POST", form_bodies(_PHOTO), FORM_TYPE, (_BEARER,))


STRATEGIES = {
    "/": _request("/", "GET"),
    "/health": _request("/health", "GET"),
    "/ready": _request("/ready", "GET"),
    "/setup": _request("/setup", "POST", SETUP),
    "/predict": _request("/predict", "POST", PREDICT) | _form("/predict"),
    "/versions": _request("/versions", "GET"),
    "/webhook": _request("/webhook", "POST", *_WEBHOOKS),
    "/metrics": _request("/metrics", "GET"),
    "/api/v1/condition": _form("/api/v1/condition"),
    "/api/v1/openapi.json": _request("/api/v1/openapi.json", "GET"),
    "/static/<path:filename>": _request("/static/..%2f..%2fetc/passwd", "GET"),
}


@pytest.fixture
def make_client(
    server: HttpServer, make_settings: MakeSettings, models_dir: Path
) -> Iterator[Callable[..., FlaskClient]]:
    """The application with a version, a password and a token."""
    write_version(models_dir)
    server.answers["/data/upload/1/d721ce94-car4.jpg"] = Reply(_PHOTO)

    def make(**variables: str) -> FlaskClient:
        make_settings(
            LABEL_STUDIO_URL=server.url,
            CARCOND_BASIC_AUTH_USER="carcond",
            CARCOND_BASIC_AUTH_PASSWORD=PASSWORD,
            CARCOND_API_TOKENS=f"shop:{hashlib.sha256(TOKEN.encode()).hexdigest()}",
            CARCOND_API_PHOTOS_PER_MINUTE="1000000",
            **variables,
        )
        return create_app(get_services()).test_client()

    yield make
    get_services().store.close()
    get_services().photos.close()


def check(client: FlaskClient, request: dict[str, Any], *, may_refuse: bool = False) -> None:
    """Send a request, and look at its answer."""
    began = time.monotonic()
    response = client.open(**request)
    assert time.monotonic() - began < _SECONDS
    text = response.get_data(as_text=True)
    assert response.status_code < 500 or (may_refuse and response.status_code == 503), text
    assert "Traceback" not in text
    assert 'File "' not in text
    for secret in SECRETS:
        assert secret not in text


def test_each_route_of_the_application_has_requests_here(make_client: MakeClient) -> None:
    rules = make_client().application.url_map.iter_rules()
    assert {rule.rule for rule in rules} == STRATEGIES.keys()


@pytest.mark.parametrize("route", STRATEGIES)
def test_a_route_answers_whatever_is_sent(
    route: str, make_client: MakeClient, redis_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    client = make_client(REDIS_URL=redis_url)
    caplog.set_level("ERROR")  # else all the lines of all requests are kept

    @settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
    @given(STRATEGIES[route])
    def answers(request: dict[str, Any]) -> None:
        check(client, request, may_refuse=route == "/ready")  # no worker runs

    answers()
    get_job_queue().redis.flushall()


def test_without_redis_a_route_answers_whatever_is_sent_or_says_that_it_is_unavailable(
    make_client: MakeClient, caplog: pytest.LogCaptureFixture
) -> None:
    client = make_client()
    caplog.set_level("ERROR")

    @settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
    @given(STRATEGIES["/webhook"] | STRATEGIES["/setup"] | STRATEGIES["/metrics"] | STRATEGIES["/api/v1/condition"])
    def answers(request: dict[str, Any]) -> None:
        check(client, request, may_refuse=True)

    answers()


def test_requests_leave_nothing_behind_in_memory(
    make_client: MakeClient, redis_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    client = make_client(REDIS_URL=redis_url)
    caplog.set_level("ERROR")
    headers = {"Authorization": _BASIC}

    def ask(projects: range) -> None:
        for number in projects:
            client.post("/setup", headers=headers, json={**SETUP, "project": f"{number}.1"})
            client.post("/predict", headers=headers, json={**PREDICT, "project": f"{number}.1"})
            client.get(f"/versions?project={number}", headers=headers)
            client.post("/webhook", headers=headers, json={"action": "ANNOTATION_CREATED", "project": {"id": number}})

    ask(range(2, 20))
    ours = [tracemalloc.Filter(True, f"*/{package}/*") for package in ("backend", "carcond")]
    tracemalloc.start()
    try:
        ask(range(20, 40))
        before = tracemalloc.take_snapshot().filter_traces(ours)
        ask(range(40, 140))
        after = tracemalloc.take_snapshot().filter_traces(ours)
    finally:
        tracemalloc.stop()
    grown = [each for each in after.compare_to(before, "lineno") if each.size_diff > 100 * _KEPT]
    assert grown == []
