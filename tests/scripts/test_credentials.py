"""The passwords of a stack."""

from dataclasses import replace
from pathlib import Path

import pytest

from scripts.credentials import SECRETS_NAME, check_secrets, load_credentials
from scripts.preflight import StackError


def test_nobody_else_can_read_the_secrets_file(tmp_path: Path) -> None:
    load_credentials(tmp_path)
    assert (tmp_path / SECRETS_NAME).stat().st_mode & 0o777 == 0o600


def test_the_second_start_finds_the_passwords_of_the_first(tmp_path: Path) -> None:
    assert load_credentials(tmp_path) == load_credentials(tmp_path)


def test_every_data_folder_has_passwords_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    first, second = load_credentials(tmp_path / "a"), load_credentials(tmp_path / "b")
    assert first.label_studio_password != second.label_studio_password
    assert first.label_studio_token != second.label_studio_token
    assert first.backend_password != second.backend_password


def test_passwords_do_not_show_when_credentials_are_printed(tmp_path: Path) -> None:
    credentials = load_credentials(tmp_path)
    for secret in (
        credentials.label_studio_password,
        credentials.label_studio_token,
        credentials.backend_password,
        credentials.redis_password,
    ):
        assert secret not in repr(credentials)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"label_studio_email": "a@example.com"}', "not json"])
def test_a_broken_secrets_file_is_refused_and_kept(tmp_path: Path, text: str) -> None:
    path = tmp_path / SECRETS_NAME
    path.write_text(text)
    with pytest.raises(StackError, match=f"{SECRETS_NAME} is broken"):
        load_credentials(tmp_path)
    assert path.read_text() == text


def test_what_is_made_here_may_be_opened_to_a_network(tmp_path: Path) -> None:
    check_secrets(load_credentials(tmp_path))


@pytest.mark.parametrize("easy", ["", "hunter2", "car-secret1", "aaaaaaaaaaaaaaaa", "admin@example.com"])
@pytest.mark.parametrize("name", ["label_studio_password", "label_studio_token"])
def test_an_easy_secret_is_not_opened_to_a_network_and_not_shown(tmp_path: Path, name: str, easy: str) -> None:
    with pytest.raises(StackError, match=f"the {name.rpartition('_')[2]} of Label Studio.*too easy") as caught:
        check_secrets(replace(load_credentials(tmp_path), **{name: easy}))
    assert not easy or easy not in str(caught.value)
