from collections.abc import Callable

import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route, WebSocketRoute
from starlette.testclient import TestClient
from starlette.websockets import WebSocket, WebSocketDisconnect

from backend.dashboard.access import AskWho
from carcond.settings import Settings

Browser = Callable[..., TestClient]

OWN_MACHINE = ("127.0.0.1", 50_000)
ELSEWHERE = ("192.168.1.20", 50_000)
PASSWORD = ("demo", "über-secret")


async def page(_request: Request) -> PlainTextResponse:
    return PlainTextResponse("a page")


async def talk(websocket: WebSocket) -> None:
    await websocket.accept()
    await websocket.send_text("news")
    await websocket.close()


@pytest.fixture
def browser() -> Browser:
    """Call with a password or none, where the browser runs, and the host in its address."""

    def make(
        password: tuple[str, str] = ("", ""), client: tuple[str, int] = OWN_MACHINE, host: str = "127.0.0.1:8501"
    ) -> TestClient:
        settings = Settings(basic_auth_user=password[0], basic_auth_password=password[1])
        routes = [Route(path, page) for path in ("/", "/media/a.jpg", "/health", "/_stcore/health")]
        routes_and_stream = [*routes, WebSocketRoute("/_stcore/stream", talk)]
        app = Starlette(routes=routes_and_stream, middleware=[Middleware(AskWho, settings=settings)])
        return TestClient(app, base_url=f"http://{host}", client=client)

    return make


def hear(client: TestClient, headers: dict[str, str] | None = None) -> str:
    with client.websocket_connect("/_stcore/stream", headers=headers or {}) as websocket:
        return str(websocket.receive_text())


def test_with_a_password_every_path_and_the_websocket_ask_for_it(browser: Browser) -> None:
    client = browser(PASSWORD)
    for path in ("/", "/media/a.jpg"):
        refused = client.get(path)
        assert (refused.status_code, refused.headers["www-authenticate"]) == (401, 'Basic realm="carcond"')
        assert "page" not in refused.text
    with pytest.raises(WebSocketDisconnect):
        hear(client)


def test_who_gave_the_password_gets_a_cookie_that_opens_the_websocket(browser: Browser) -> None:
    client = browser(PASSWORD, ELSEWHERE)
    answered = client.get("/", auth=PASSWORD)
    assert (answered.status_code, answered.text) == (200, "a page")
    cookie = answered.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=Strict" in cookie
    assert PASSWORD[1] not in cookie
    carried = {"Cookie": cookie.partition(";")[0]}
    assert hear(client, carried) == "news"
    assert client.get("/media/a.jpg", headers=carried).status_code == 200


@pytest.mark.parametrize(
    "header",
    ["Basic", "Basic !", "Basic ZGVtbzp3cm9uZw==", "Bearer ZGVtbzrDvGJlci1zZWNyZXQ=", "Basic \xff", "nonsense"],
)
def test_a_wrong_password_is_refused(browser: Browser, header: str) -> None:
    assert browser(PASSWORD).get("/", headers={b"Authorization": header.encode("latin-1")}).status_code == 401


@pytest.mark.parametrize("cookie", ["carcond_demo=", "carcond_demo=0", "carcond_demo=ü", "other=1", "=;=;"])
def test_a_wrong_cookie_is_refused(browser: Browser, cookie: str) -> None:
    assert browser(PASSWORD).get("/", headers={b"Cookie": cookie.encode("latin-1")}).status_code == 401


def test_the_cookie_of_another_password_is_refused(browser: Browser) -> None:
    cookie = browser(("demo", "other")).get("/", auth=("demo", "other")).headers["set-cookie"].partition(";")[0]
    assert browser(PASSWORD).get("/", headers={"Cookie": cookie}).status_code == 401


@pytest.mark.parametrize("path", ["/health", "/_stcore/health"])
def test_health_is_told_to_everybody(browser: Browser, path: str) -> None:
    assert browser(PASSWORD, ELSEWHERE).get(path).status_code == 200
    assert browser(client=ELSEWHERE).get(path).status_code == 200


@pytest.mark.parametrize("host", ["127.0.0.1:8501", "localhost", "LOCALHOST:8501", "[::1]:8501", "[::1]"])
def test_without_a_password_the_own_machine_is_answered(browser: Browser, host: str) -> None:
    assert browser(host=host).get("/").status_code == 200


def test_without_a_password_other_machines_are_refused(browser: Browser) -> None:
    client = browser(client=ELSEWHERE)
    refused = client.get("/")
    assert refused.status_code == 403
    assert "CARCOND_BASIC_AUTH_PASSWORD" in refused.text
    with pytest.raises(WebSocketDisconnect):
        hear(client)


def test_without_a_password_a_name_of_another_site_that_leads_here_is_refused(browser: Browser) -> None:
    assert browser(host="evil.example:8501").get("/").status_code == 403
    assert browser().get("/", headers={"Host": "[localhost"}).status_code == 403
