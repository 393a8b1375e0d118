import hashlib
import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from carcond.settings import load_settings
from scripts.credentials import SECRETS_NAME, load_credentials
from scripts.label_studio_server import environment
from scripts.preflight import StackError
from scripts.reach import EVERYWHERE
from scripts.stack import Stack, StackOptions, with_demo_token


def digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


@pytest.mark.parametrize("named", ["", f"shop:{'a' * 64}", f"demo:{'b' * 64}, shop:{'a' * 64},"])
def test_the_demo_is_named_once_beside_the_applications_of_the_environment(
    named: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CARCOND_API_TOKENS", with_demo_token(named, "token"))
    shop = {"shop": "a" * 64} if "shop" in named else {}
    assert load_settings().api_tokens == {"demo": digest("token")} | shop


def test_a_shell_that_has_read_the_settings_of_a_stack_can_start_it_again() -> None:
    once = with_demo_token("", "token")
    assert with_demo_token(once, "token") == once


def test_a_shell_that_names_the_own_redis_of_a_stack_does_not_keep_it_from_starting_that(tmp_path: Path) -> None:
    first = Stack(StackOptions(tmp_path, redis_port=6390))
    first.stop()
    again = Stack(StackOptions(tmp_path, redis_port=6391, redis_url=first.redis_url))
    again.stop()
    assert again.redis_url == first.redis_url.replace(":6390/", ":6391/")


def test_a_redis_of_somebody_else_is_used_as_it_is_named(tmp_path: Path) -> None:
    named = "redis://:theirs@127.0.0.1:6390/0"
    stack = Stack(StackOptions(tmp_path, redis_url=named))
    stack.stop()
    assert stack.redis_url == named


def test_an_address_of_redis_that_is_none_is_refused_without_being_shown(tmp_path: Path) -> None:
    with pytest.raises(StackError, match="REDIS_URL: expected an address like redis://") as caught:
        Stack(StackOptions(tmp_path, redis_url="hunter2@localhost:6379"))
    assert "hunter2" not in str(caught.value)


def test_the_settings_of_a_stack_hold_what_it_was_started_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CARCOND_PHOTO_HOSTS", "photos.example.com")
    monkeypatch.setenv("CARCOND_BIND", "0.0.0.0:1")
    monkeypatch.setenv("CARCOND_GATE_MARGIN", "")
    monkeypatch.setenv("CARCOND_NO_SUCH_SETTING", "1")
    stack = Stack(StackOptions(tmp_path, backend_port=9191))
    stack.stop()
    assert stack.settings["CARCOND_PHOTO_HOSTS"] == "photos.example.com"
    assert stack.settings["CARCOND_BIND"] == "127.90.90.1:9191,127.0.0.1:9191"
    assert {"CARCOND_GATE_MARGIN", "CARCOND_NO_SUCH_SETTING"} & set(stack.settings) == set()


def test_several_predictions_at_a_time_are_written_to_a_label_studio_on_postgresql(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CARCOND_PUBLISH_CONNECTIONS", raising=False)
    assert "CARCOND_PUBLISH_CONNECTIONS" not in Stack(StackOptions(tmp_path / "sqlite")).settings
    options = StackOptions(tmp_path / "postgres", label_studio_postgres="postgresql://carcond@127.0.0.1/labels")
    assert Stack(options).settings["CARCOND_PUBLISH_CONNECTIONS"] == "4"
    monkeypatch.setenv("CARCOND_PUBLISH_CONNECTIONS", "2")
    options = StackOptions(tmp_path / "named", label_studio_postgres="postgresql://carcond@127.0.0.1/labels")
    assert Stack(options).settings["CARCOND_PUBLISH_CONNECTIONS"] == "2"


def test_a_stack_is_for_this_machine_alone_unless_it_is_told_otherwise(tmp_path: Path) -> None:
    stack = Stack(StackOptions(tmp_path, label_studio_port=8181))
    stack.stop()
    assert stack.label_studio_url == stack.browser_url == "http://127.0.0.1:8181"


@pytest.mark.parametrize(
    ("address", "inside"), [("192.0.2.7", "http://192.0.2.7:8181"), (EVERYWHERE, "http://127.0.0.1:8181")]
)
def test_others_get_label_studios_address_by_its_host_and_all_else_stays_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, address: str, inside: str
) -> None:
    monkeypatch.setattr("scripts.stack.listening_address", lambda host: address)
    stack = Stack(StackOptions(tmp_path, label_studio_port=8181, backend_port=9191, host="desk.example.com"))
    stack.stop()
    assert stack.browser_url == stack.settings["LABEL_STUDIO_HOST"] == "http://desk.example.com:8181"
    assert stack.label_studio_url == stack.settings["LABEL_STUDIO_URL"] == inside
    assert stack.settings["CARCOND_BIND"] == "127.90.90.1:9191,127.0.0.1:9191"
    assert "@127.0.0.1:" in stack.redis_url


def test_an_easy_password_keeps_label_studio_from_being_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scripts.stack.listening_address", lambda host: "192.0.2.7")
    kept = asdict(replace(load_credentials(tmp_path), label_studio_password="secret"))
    (tmp_path / SECRETS_NAME).write_text(json.dumps(kept))
    with pytest.raises(StackError, match="too easy to guess for --host"):
        Stack(StackOptions(tmp_path, host="desk.example.com")).start()


def test_nobody_makes_an_account_in_label_studio_without_an_invitation(tmp_path: Path) -> None:
    variables = environment(tmp_path, tmp_path, "http://127.0.0.1:8080", load_credentials(tmp_path))
    assert variables["LABEL_STUDIO_DISABLE_SIGNUP_WITHOUT_LINK"] == "true"
