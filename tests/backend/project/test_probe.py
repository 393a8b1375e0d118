"""Failing steps of a probe. That all steps are taken is tested on the real stack, by tests/e2e/test_probe.py."""

import json
from collections.abc import Callable

import pytest

from backend.label_studio.backend_address import BackendAddress
from backend.label_studio.client import LabelStudioApi
from backend.project import probe
from backend.project.probe import Probe
from backend.services import Services
from carcond.errors import CarcondError
from carcond.registry.registry import PROBE_MARK, Registry
from tests.backend.http_server import HttpServer, Reply, Request

BACKEND = BackendAddress("http://127.0.0.1:9090")
OURS = {"id": 5, "title": probe.PROBE_TITLE, "description": probe._DESCRIPTION}


@pytest.fixture
def prepared(services: Services, server: HttpServer, monkeypatch: pytest.MonkeyPatch) -> Services:
    """Services of a probe whose project is there, with photo 9 to be uploaded, and which no worker serves."""

    def prepare(_: Probe) -> tuple[int, int]:
        return 5, 7

    monkeypatch.setattr(Probe, "_prepare", prepare)
    server.answers["/api/projects/5/import"] = Reply(b'{"task_ids": [9], "file_upload_ids": [4]}', 201)
    server.answers["/api/predictions/"] = Reply(b"[]")
    for path in ("/api/tasks/9/", "/api/import/file-upload/4"):
        server.answers[path] = Reply(status=204)
    return services


def requests(server: HttpServer) -> list[tuple[str, str]]:
    return [(request.method, request.path.partition("?")[0]) for request in server.requests]


def test_a_photo_without_a_pre_label_is_named_and_removed(prepared: Services, server: HttpServer) -> None:
    report = Probe(prepared, BACKEND, patience_s=0.0).run()
    assert report.failed == "pre-label"
    assert report.problem.startswith("Label Studio has no pre-label of the photo after 0 s")
    assert list(report.seconds) == ["project", "photo", "removal"]
    assert requests(server)[-2:] == [("DELETE", "/api/tasks/9/"), ("DELETE", "/api/import/file-upload/4")]
    assert json.dumps(report.facts()["failed"]) == '"pre-label"'


def test_the_first_failure_is_reported_even_if_the_removal_fails_too(prepared: Services, server: HttpServer) -> None:
    del server.answers["/api/tasks/9/"]
    report = Probe(prepared, BACKEND, patience_s=0.0).run()
    assert (report.failed, report.facts()["ok"]) == ("pre-label", False)


def test_a_dead_label_studio_is_the_first_step_that_fails(services: Services) -> None:
    services.api = LabelStudioApi("http://127.0.0.1:1", "key")
    report = Probe(services, BACKEND).run()
    assert report.failed == "project"
    assert "could not be reached" in report.problem


def listing(*rows: dict[str, object]) -> Callable[[Request], Reply]:
    return lambda _: Reply(json.dumps({"results": rows}).encode())


def test_only_the_project_that_a_probe_made_is_removed(services: Services, server: HttpServer) -> None:
    server.answers["/api/projects/"] = listing(
        {**OURS, "id": 3, "description": ""}, {**OURS, "title": "carcond probe 2"}
    )
    models_dir = services.settings.models_dir
    made, other = (Registry(models_dir, number).root for number in (5, 6))
    for folder in (made, other):
        folder.mkdir(parents=True)
    (made / PROBE_MARK).touch()
    assert probe.remove_project(services.api, models_dir) is None
    server.answers["/api/projects/"] = listing({**OURS, "id": 3, "description": ""}, OURS)
    server.answers["/api/projects/5/"] = Reply(status=204)
    assert probe.remove_project(services.api, models_dir) == 5
    assert (made.exists(), other.exists()) == (False, True)
    assert [each for each in requests(server) if each[0] == "DELETE"] == [("DELETE", "/api/projects/5/")]


def test_a_probe_that_fails_ends_with_one_line_and_1(
    services: Services, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from backend.cli.commands.probe import probe as command  # noqa: PLC0415 - its name is the module's

    services.api = LabelStudioApi("http://127.0.0.1:1", "key")
    with pytest.raises(CarcondError, match="probe failed at 'project': Label Studio at") as caught:
        command(as_json=True)
    assert "\n" not in str(caught.value)
    assert json.loads(capsys.readouterr().out)["failed"] == "project"
