"""What only an odd Label Studio does. The rest is in tests/e2e/test_doctor.py."""

import json

from backend.doctor.label_studio import TESTED_VERSION, check_label_studio, check_version
from scripts.label_studio_install import LABEL_STUDIO_VERSION
from tests.backend.doctor.conftest import Look
from tests.backend.http_server import HttpServer, Reply


def test_the_tested_version_is_the_one_that_is_installed() -> None:
    assert TESTED_VERSION == LABEL_STUDIO_VERSION


def test_another_version_is_a_hint(look: Look, server: HttpServer) -> None:
    server.answers["/api/version/"] = Reply(json.dumps({"release": "1.30.0"}).encode())
    found = look(check_version, LABEL_STUDIO_URL=server.url)["label-studio-version"]
    assert found.level == "warning"
    assert found.what == f"Label Studio is 1.30.0; carcond was tested with {TESTED_VERSION}."


def test_a_redirect_is_told_with_the_address_to_set(look: Look, server: HttpServer) -> None:
    elsewhere = "https://user:secret@labels.example.org/api/version/"
    server.answers["/api/version/"] = Reply(status=301, headers={"Location": elsewhere})
    found = look(check_label_studio, LABEL_STUDIO_URL=server.url)["label-studio-moved"]
    assert found.fix == "Set LABEL_STUDIO_URL=https://labels.example.org"


def test_a_password_in_the_address_is_not_shown(look: Look) -> None:
    found = look(check_label_studio, LABEL_STUDIO_URL="http://user:secret@127.0.0.1:9")
    assert "secret" not in str(found)
