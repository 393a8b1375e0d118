from base64 import b64decode, b64encode

import pytest
from flask import Flask, request
from pydantic import SecretStr

from backend.label_studio.backend_address import BackendAddress
from backend.web.basic_auth import is_allowed
from carcond.settings import Settings

OPEN = Settings()
GUARDED = Settings(basic_auth_user="label-studio", basic_auth_password=SecretStr("пароль: s3cret"))


def allowed(settings: Settings, header: str | None, path: str = "/predict") -> bool:
    headers = {} if header is None else {"Authorization": header}
    with Flask(__name__).test_request_context(path, headers=headers):
        return is_allowed(request, settings)


def basic(user: str, password: str) -> str:
    return "Basic " + b64encode(f"{user}:{password}".encode()).decode()


@pytest.mark.parametrize("header", [None, "Basic x", basic("any", "body")])
def test_everybody_is_allowed_when_no_password_is_configured(header: str | None) -> None:
    assert allowed(OPEN, header)


def test_the_configured_user_and_password_are_allowed() -> None:
    assert allowed(GUARDED, basic("label-studio", "пароль: s3cret"))


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "Basic",
        "Basic !!!",
        "Basic " + b64encode(b"\xff\xfe:\xff").decode(),
        "Basic " + b64encode(b"label-studio").decode(),
        "Bearer пароль".encode().decode("latin-1"),
        "Digest username=label-studio",
        basic("", ""),
        basic("label-studio", ""),
        basic("label-studio", "wrong"),
        basic("Label-Studio", "пароль: s3cret"),
        basic("", "пароль: s3cret"),
    ],
)
def test_anything_else_is_not_allowed(header: str | None) -> None:
    assert not allowed(GUARDED, header)


def test_the_webhooks_password_opens_the_webhook_and_nothing_else() -> None:
    header = BackendAddress.of("http://127.0.0.1:9090", GUARDED).webhook_headers["Authorization"]
    assert allowed(GUARDED, header, "/webhook")
    for path in ("/predict", "/setup", "/versions", "/metrics", "/webhook/", "/"):
        assert not allowed(GUARDED, header, path)


def test_the_webhooks_password_does_not_contain_the_backends() -> None:
    header = BackendAddress.of("http://127.0.0.1:9090", GUARDED).webhook_headers["Authorization"]
    assert "s3cret" not in b64decode(header.removeprefix("Basic ")).decode()


def test_a_webhook_of_the_last_release_still_comes_through() -> None:
    assert allowed(GUARDED, basic("label-studio", "пароль: s3cret"), "/webhook")
    assert not allowed(GUARDED, basic("label-studio", "wrong"), "/webhook")
