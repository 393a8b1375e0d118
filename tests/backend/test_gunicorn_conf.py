import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from backend import gunicorn_conf
from backend.services import get_services
from scripts.ports import free_ports
from tests.backend.conftest import MakeSettings


def test_the_store_is_open_before_the_first_request(make_settings: MakeSettings, tmp_path: Path) -> None:
    make_settings()
    gunicorn_conf.post_worker_init(None)
    assert (tmp_path / "store.sqlite3").is_file()
    get_services().store.close()


def test_a_store_that_is_away_does_not_keep_the_backend_from_starting(
    make_settings: MakeSettings, caplog: pytest.LogCaptureFixture
) -> None:
    make_settings(DATABASE_URL="postgresql+psycopg://me:hunter2@127.0.0.1:1/carcond")
    gunicorn_conf.post_worker_init(None)
    (record,) = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert "check DATABASE_URL" in record.getMessage()
    assert "hunter2" not in record.getMessage()
    assert "\n" not in record.getMessage()


@pytest.mark.parametrize(
    ("bind", "user", "is_warned"),
    [
        ("0.0.0.0:9090", "", True),
        ("[::]:9090", "", True),
        (":9090", "", True),
        ("192.168.1.5:9090", "", True),
        ("0.0.0.0:9090", "label-studio", False),
        ("127.0.0.1:9090", "", False),
        ("127.90.90.1:9090,127.0.0.1:9090", "", False),
        ("127.0.0.1:9090,0.0.0.0:9090", "", True),
        ("[::1]:9090", "", False),
        ("localhost:9090", "", False),
        ("unix:/run/carcond.sock", "", False),
    ],
)
def test_a_backend_that_is_open_to_others_without_a_password_says_so(
    make_settings: MakeSettings,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    *,
    bind: str,
    user: str,
    is_warned: bool,
) -> None:
    make_settings(CARCOND_BASIC_AUTH_USER=user, CARCOND_BASIC_AUTH_PASSWORD="x" if user else "")
    monkeypatch.setattr(gunicorn_conf, "bind", bind.split(","))
    gunicorn_conf.post_worker_init(None)
    assert ("without a password" in caplog.text) == is_warned
    get_services().store.close()


@pytest.mark.slow
def test_an_older_backend_refuses_to_start_on_a_newer_store_and_says_why(newer_store: str, models_dir: Path) -> None:
    (port,) = free_ports(1)
    settings = {
        "DATABASE_URL": newer_store,
        "CARCOND_MODELS_DIR": str(models_dir),
        "CARCOND_BIND": f"127.0.0.1:{port}",
    }
    command = [sys.executable, "-m", "gunicorn", "--config", "python:backend.gunicorn_conf", "backend.app:create_app()"]
    done = subprocess.run(command, env=os.environ | settings, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode != 0
    said = [line for line in done.stderr.splitlines() if "expected a store of revision" in line]
    assert len(said) == 1, done.stderr
    assert "'0107'" in said[0]
    assert "Traceback" not in done.stderr
