"""A running backend: the examples of docs/api.md, run by a shell, and many callers at once."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import pytest
from jsonschema import Draft202012Validator
from PIL import Image

from scripts.processes import ManagedProcess
from tests.backend.http_server import free_port
from tests.backend.versions import write_version

ROOT = Path(__file__).resolve().parents[4]
PAGE = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(sh|json)\n(.*?)```", PAGE, re.DOTALL)
TOKENS = re.search(r"```sh\n(TOKEN.*?)```", PAGE, re.DOTALL)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (shutil.which("curl") and shutil.which("openssl")), reason="needs curl and openssl"),
]


def shell(command: str, folder: Path, **variables: str) -> str:
    environment = os.environ | variables
    done = subprocess.run(
        ["bash", "-euc", command], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def folder(tmp_path: Path, drawn_cars: list[bytes]) -> Path:
    """The files that the examples send."""
    for name, data in zip(("car.jpg", "left.jpg", "right.jpg"), drawn_cars, strict=False):
        (tmp_path / name).write_bytes(data)
    dark = BytesIO()
    Image.new("RGB", (640, 480), (4, 4, 4)).save(dark, "JPEG")
    (tmp_path / "dark.jpg").write_bytes(dark.getvalue())
    (tmp_path / "notes.txt").write_text("no photo")
    return tmp_path


@pytest.fixture
def token(folder: Path) -> tuple[str, str]:
    """A token as the page makes it, and the setting that goes with it."""
    assert TOKENS
    setting, token = shell(TOKENS[1] + '\necho "$TOKEN"', folder).split()
    return token, setting.removeprefix("CARCOND_API_TOKENS=")


@pytest.fixture
def backend(folder: Path, models_dir: Path, token: tuple[str, str]) -> Iterator[str]:
    """The address of a backend under gunicorn that knows the token. There is no Redis, and no Label Studio."""
    write_version(models_dir)
    url = f"http://127.0.0.1:{free_port()}"
    environment = os.environ | {
        "CARCOND_API_TOKENS": token[1],
        "CARCOND_BIND": url.removeprefix("http://"),
        "CARCOND_MODELS_DIR": str(models_dir),
        "DATABASE_URL": f"sqlite:///{folder / 'store.sqlite3'}",
        "REDIS_URL": "redis://127.0.0.1:1/0",
    }
    command = [sys.executable, "-m", "gunicorn", "-c", "python:backend.gunicorn_conf", "backend.app:create_app()"]
    process = ManagedProcess("backend", command, environment, folder / "backend.log", ROOT)
    process.start()
    try:
        process.wait_for_url(f"{url}/health", 60)
        yield url
    finally:
        process.stop()


def test_each_example_answers_what_the_page_shows(backend: str, folder: Path, token: tuple[str, str]) -> None:
    document = json.loads(shell(f"curl -sf {backend}/api/v1/openapi.json", folder))
    answered = 0
    for (kind, example), (next_kind, shown) in pairwise(BLOCKS):
        if kind != "sh" or next_kind != "json":
            continue
        command = example.replace("http://127.0.0.1:9090", backend)
        answer = json.loads(shell(command, folder, TOKEN=token[0]))
        expected = json.loads(shown)
        assert set(answer) == set(expected), command
        Draft202012Validator(schema_of(document, answer)).validate(answer)
        for key in ("status", "title", "faults", "messages"):
            assert answer.get(key) == expected.get(key), command
        answered += 1
    assert answered == 4
    log = (folder / "backend.log").read_text(encoding="utf-8")
    assert token[0] not in log
    assert "Traceback" not in log


def test_of_twenty_callers_at_once_none_is_lost(backend: str, folder: Path, token: tuple[str, str]) -> None:
    photo = (folder / "car.jpg").read_bytes()
    headers = {"Authorization": f"Bearer {token[0]}"}

    def ask(caller: int) -> tuple[int, str]:
        response = httpx.post(
            f"{backend}/api/v1/condition",
            files={"image": (f"{caller}.jpg", photo)},
            headers=headers,
            timeout=60,
            trust_env=False,
        )
        return response.status_code, response.json()["photos"][0]["file"]

    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(ask, range(20)))
    assert answers == [(200, f"{caller}.jpg") for caller in range(20)]


def schema_of(document: dict[str, Any], answer: dict[str, Any]) -> dict[str, Any]:
    name = "Problem" if "detail" in answer else "ConditionAnswer" if "tasks" in answer else "ShortAnswer"
    return {"$ref": f"#/components/schemas/{name}", "components": document["components"]}
