import json
from collections.abc import Iterator

import pytest

from backend.label_studio.client import LabelStudioApi
from backend.label_studio.token_auth import origin
from carcond.errors import LabelStudioError
from tests.backend.http_server import HttpServer, Reply, Request
from tests.backend.label_studio.test_client import LEGACY, json_reply

PERSONAL = "header.payload.signature"


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
