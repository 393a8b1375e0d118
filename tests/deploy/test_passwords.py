import hashlib
import json
import os
import subprocess
from pathlib import Path

import pytest
from sqlalchemy.engine import make_url

from backend.label_studio.way_in import LABEL_ALL
from carcond.settings import Settings
from docker.passwords import known_project, load_passwords, login_text, service_files, write_files

SUBNET = "10.213.90.0/24"


def test_passwords_are_made_once(tmp_path: Path) -> None:
    first = load_passwords(tmp_path)
    assert load_passwords(tmp_path) == first
    assert len(set(first.values())) == len(first)


def test_the_passwords_are_for_their_owner_alone(tmp_path: Path) -> None:
    load_passwords(tmp_path)
    assert (tmp_path / "passwords.json").stat().st_mode & 0o777 == 0o600


def test_a_password_that_a_later_release_needs_is_added(tmp_path: Path) -> None:
    first = load_passwords(tmp_path)
    older = {name: value for name, value in first.items() if name != "grafana"}
    (tmp_path / "passwords.json").write_text(json.dumps(older))
    later = load_passwords(tmp_path)
    assert later["grafana"]
    assert {name: later[name] for name in older} == older


def test_a_broken_file_is_not_replaced(tmp_path: Path) -> None:
    """The databases know what stood in it."""
    (tmp_path / "passwords.json").write_text("{")
    with pytest.raises(ValueError, match="Expecting"):
        load_passwords(tmp_path)
    assert (tmp_path / "passwords.json").read_text() == "{"


def test_each_service_reads_its_own_passwords_only(tmp_path: Path) -> None:
    passwords = load_passwords(tmp_path)
    texts = service_files(passwords, SUBNET)
    label_studio = texts["label-studio/environment"]
    assert passwords["label_studio_database"] in label_studio
    for other in ("postgres", "redis", "carcond_database", "backend", "grafana"):
        assert passwords[other] not in label_studio
    assert passwords["postgres"] not in texts["carcond/environment"]
    assert passwords["label_studio_password"] not in texts["carcond/environment"]


def test_the_environment_is_one_that_a_shell_reads(tmp_path: Path) -> None:
    passwords = load_passwords(tmp_path)
    write_files(tmp_path, service_files(passwords, SUBNET), dict.fromkeys(GROUP_NAMES, os.getgid()))
    command = f". {tmp_path}/carcond/environment && printf %s $DATABASE_URL"
    url = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=True).stdout
    assert make_url(url).password == passwords["carcond_database"]
    assert make_url(url).drivername == "postgresql+psycopg"


@pytest.mark.parametrize("named", ["", "shop:" + "0" * 64])
def test_the_demo_is_one_of_the_applications_beside_those_that_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, named: str
) -> None:
    passwords = load_passwords(tmp_path)
    write_files(tmp_path, service_files(passwords, SUBNET), dict.fromkeys(GROUP_NAMES, os.getgid()))
    command = f'set -eu; . {tmp_path}/carcond/environment; printf "%s\n" "$CARCOND_API_TOKENS" "$CARCOND_DEMO_TOKEN"'
    environment = {"CARCOND_API_TOKENS": named} if named else {}
    done = subprocess.run(["sh", "-c", command], env=environment, capture_output=True, text=True, check=True)
    tokens, demo = done.stdout.splitlines()
    monkeypatch.setenv("CARCOND_API_TOKENS", tokens)
    known = Settings().api_tokens
    assert known["demo"] == hashlib.sha256(demo.encode()).hexdigest()
    assert set(known) == ({"demo", "shop"} if named else {"demo"})


GROUP_NAMES = ("carcond", "label-studio", "postgres", "redis", "grafana", "prometheus")


def test_a_file_is_for_its_group_and_for_nobody_else(tmp_path: Path) -> None:
    write_files(tmp_path, {"redis/password": "x"}, {"redis": os.getgid()})
    assert (tmp_path / "redis" / "password").stat().st_mode & 0o777 == 0o440
    assert [path.name for path in (tmp_path / "redis").iterdir()] == ["password"]


def test_a_person_is_told_address_and_password(tmp_path: Path) -> None:
    passwords = load_passwords(tmp_path)
    text = login_text(passwords, {"CARCOND_URL": "http://127.0.0.1:8080"}, 3)
    assert "http://127.0.0.1:8080/projects/3/data\n" in text
    assert LABEL_ALL in text
    for shown in ("label_studio_password", "backend", "grafana"):
        assert passwords[shown] in text
    assert passwords["postgres"] not in text


def test_before_there_is_a_project_a_person_is_told_where_to_look(tmp_path: Path) -> None:
    text = login_text(load_passwords(tmp_path), {"CARCOND_URL": "http://127.0.0.1:8080"}, None)
    assert "http://127.0.0.1:8080\n" in text
    assert "docker compose logs setup" in text


@pytest.mark.parametrize(
    ("state", "number"), [(None, None), ({}, None), ({"samples": 1}, 1), ({"samples": 1, "photos": 2}, 2)]
)
def test_the_project_of_own_photos_goes_before_that_of_drawn_ones(
    tmp_path: Path, state: dict[str, int] | None, number: int | None
) -> None:
    path = tmp_path / "projects.json"
    if state is not None:
        path.write_text(json.dumps(state))
    assert known_project(path) == number
