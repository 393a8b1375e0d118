"""A task that Label Studio itself cannot show stops nothing but itself."""

import json

import httpx
import pytest

from backend.doctor.examination import Examination, ProjectExamination
from backend.doctor.tasks import check_tasks
from carcond.settings import load_settings
from scripts.stack import Stack
from tests.e2e.scenario import Scenario

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(600)]

# Half of a surrogate pair: JSON may hold it, and UTF-8 cannot.
_HALF = "\ud800"


def test_labels_are_learnt_beside_a_task_that_label_studio_cannot_show(
    stack: Stack, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    scenario = Scenario(stack, "half a pair", tmp_path_factory.mktemp("half"), 20)
    broken = scenario.tasks()[3].id
    region = {"type": "textarea", "from_name": "note", "to_name": "image", "value": {"text": [_HALF]}}
    body = json.dumps({"result": [region]})
    headers = {"Authorization": f"Token {stack.credentials.label_studio_token}", "Content-Type": "application/json"}
    url = stack.label_studio_url
    made = httpx.post(f"{url}/api/tasks/{broken}/annotations/", content=body, headers=headers, timeout=60)
    assert made.status_code in (201, 500), made.text
    page: dict[str, str | int] = {"project": scenario.project_id, "page_size": 100, "fields": "all"}
    assert httpx.get(f"{url}/api/tasks/", params=page, headers=headers, timeout=60).status_code == 500
    for _ in range(6):
        scenario.label_next()
    scenario.wait_until_learned()
    assert broken not in {task.id for task in scenario.tasks()}
    assert len(scenario.labels_in_version()) == 6
    with monkeypatch.context() as patch:
        for name, value in stack.settings.items():
            patch.setenv(name, value)
        settings = load_settings()
    with Examination(settings, stack.backend_url) as whole:
        (found,) = check_tasks(ProjectExamination(whole, scenario.project_id))
    assert found.name == "tasks-unreadable"
    assert f"1 of 20 tasks tried: {broken}." in found.what
    # As the finding advises.
    assert httpx.delete(f"{url}/api/tasks/{broken}/", headers=headers, timeout=60).status_code == 204
    assert httpx.get(f"{url}/api/tasks/", params=page, headers=headers, timeout=60).status_code == 200
