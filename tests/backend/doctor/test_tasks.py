"""Tasks that Label Studio cannot show. A real one is in tests/e2e/test_unreadable_task.py."""

from collections.abc import Iterator

import pytest

from backend.doctor.examination import Examination, ProjectExamination
from backend.doctor.finding import Finding
from backend.doctor.tasks import check_tasks
from carcond.errors import LabelStudioError
from tests.backend.conftest import MakeSettings
from tests.backend.http_server import HttpServer, Reply
from tests.backend.label_studio.test_client import TaskPages, json_reply


@pytest.fixture(autouse=True)
def no_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("backend.label_studio.client._RETRY_WAITS_S", (0.0, 0.0))


@pytest.fixture
def project(make_settings: MakeSettings, server: HttpServer) -> Iterator[ProjectExamination]:
    with Examination(make_settings(LABEL_STUDIO_URL=server.url), "http://127.0.0.1:9090") as whole:
        yield ProjectExamination(whole, 1)


def examine(project: ProjectExamination, server: HttpServer, count: int, broken: set[int]) -> Finding:
    TaskPages(server, count).broken = broken
    server.answers["/api/projects/1/"] = json_reply({"id": 1, "title": "cars", "task_number": count})
    for task_id in broken:
        server.answers[f"/api/tasks/{task_id}/"] = json_reply({"detail": "cannot encode"}, 500)
    (found,) = check_tasks(project)
    return found


def test_tasks_that_label_studio_cannot_show_are_named_with_the_request_that_deletes_them(
    project: ProjectExamination, server: HttpServer, caplog: pytest.LogCaptureFixture
) -> None:
    found = examine(project, server, 250, {7, 199})
    assert found.name == "tasks-unreadable"
    assert found.what == "Label Studio cannot show 2 of 250 tasks tried: 7, 199."
    assert f'curl -X DELETE -H "Authorization: Token $LABEL_STUDIO_API_KEY" {server.url}/api/tasks/NUMBER/' in found.fix
    assert caplog.text == ""  # the finding says it all


def test_of_many_tasks_the_first_are_named(project: ProjectExamination, server: HttpServer) -> None:
    found = examine(project, server, 30, set(range(1, 26)))
    assert found.what.startswith("Label Studio cannot show 25 of 30 tasks tried: 1, 2, 3, ")
    assert found.what.endswith(", 20 and 5 more.")


def test_tasks_that_can_be_shown_are_fine(project: ProjectExamination, server: HttpServer) -> None:
    found = examine(project, server, 30, set())
    assert (found.level, found.what) == ("fine", "30 of 30 tasks can be shown")


def test_a_large_project_is_examined_for_so_long_and_the_finding_says_how_far(
    project: ProjectExamination, server: HttpServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("backend.doctor.tasks._PATIENCE_S", 0.0)
    found = examine(project, server, 30, set())
    assert (found.level, found.what) == ("fine", "1 of 30 tasks can be shown")


def test_a_label_studio_that_is_busy_is_no_fault_of_a_task(project: ProjectExamination, server: HttpServer) -> None:
    server.answers["/api/tasks/"] = Reply(b"busy", 503)
    with pytest.raises(LabelStudioError, match="HTTP 503"):
        list(check_tasks(project))
