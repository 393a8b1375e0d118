"""Connecting a project that a real Label Studio had before, with another backend, labels and predictions in it."""

import itertools
import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from backend.label_studio.client import LabelStudioApi
from carcond.data.synthetic_photos import draw_samples
from carcond.registry.registry import is_ours
from scripts.oracle import Oracle, read_truth
from scripts.page_requests import submit_request
from scripts.stack import Stack
from tests.backend.http_server import HttpServer, Reply
from tests.e2e.scenario import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.e2e]
_numbers = itertools.count(1)

CONFIG = """<View>
  <Image name="foto" value="$image"/>
  <Choices name="vid" toName="foto" choice="single">
    <Choice value="Чистая"/><Choice value="Пыльная"/><Choice value="Грязная"/><Choice value="не видно"/>
  </Choices>
  <Choices name="celost" toName="foto" choice="single"><Choice value="Целая"/><Choice value="Битая"/></Choices>
</View>"""
PHOTOS, LABELLED = 30, 14
THEIRS = "other-v3"
# What changes with labels and with time.
_COUNTS = {"num_tasks_with_annotations", "total_annotations_number", "useful_annotation_number", "queue_done"}
_COUNTS |= {"finished_task_number", "total_predictions_number", "queue_left", "queue_total"}
# A prediction counts as a change of its task.
_TIMES = {"updated_at", "created_at", "updated_by"}


@pytest.fixture(scope="module")
def api(stack: Stack) -> LabelStudioApi:
    return stack.api()


@pytest.fixture
def other_backend(stack: Stack) -> Iterator[HttpServer]:
    """Another model's backend, at the address that Label Studio may call."""
    with HttpServer(stack.backend_host) as server:
        server.answers["/health"] = Reply(b'{"status": "UP"}', headers={"Content-Type": "application/json"})
        server.answers["/setup"] = Reply(b'{"model_version": "live-7"}', headers={"Content-Type": "application/json"})
        yield server


def run_connect(stack: Stack, project_id: int, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).with_name("carcond")), "connect", "--project", str(project_id), *arguments]
    return subprocess.run(command, env=stack.environment | environment, capture_output=True, text=True, check=False)


class ExistingProject:
    """A project as somebody has it who never heard of carcond."""

    def __init__(self, stack: Stack, folder: Path, other: HttpServer) -> None:
        self.stack, self.api = stack, stack.api()
        self.other = other
        draw_samples(folder, PHOTOS, seed=11, labels=True)
        body = {"title": f"existing {next(_numbers)}", "label_config": CONFIG, "sampling": "Sequential sampling"}
        self.id = int(self.api.request("POST", "/api/projects/", json=body)["id"])
        stack.import_photos(self.id, folder)
        self.oracle = Oracle(self.api, self.id, read_truth(folder / "labels.csv"))
        self.api.request("POST", "/api/ml/", json={"project": self.id, "title": "other", "url": other.url})
        for _ in range(LABELLED):
            self.oracle.label_next()
        self._add_a_second_opinion()
        self._add_predictions()

    def _add_a_second_opinion(self) -> None:
        labelled = next(task for task in self.api.tasks(self.id) if task.annotations)
        task = {"id": labelled.id, "project": self.id}
        path, body = submit_request(task, labelled.annotations[0].result, lead_time_s=1.0)
        self.api.request("POST", path, json=body | {"completed_by": self._second_user()})

    def _second_user(self) -> int:
        email = f"second-{self.id}@example.com"
        body = {"email": email, "username": email.replace("@", "-"), "password": "long-enough-1"}
        return int(self.api.request("POST", "/api/users/", json=body)["id"])

    def _add_predictions(self) -> None:
        # The surer of its own, the earlier Label Studio would serve it, if it looked at these.
        rows = [
            {"task": task_id, "result": [], "score": 0.001 * i, "model_version": THEIRS}
            for i, task_id in enumerate(sorted(self.api.task_ids(self.id), reverse=True))
        ]
        self.api.request("POST", f"/api/projects/{self.id}/import/predictions", json=rows)
        self.api.update_project(self.id, model_version=THEIRS)

    def carcond(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return run_connect(self.stack, self.id, *arguments, **environment)

    def connect(self, *arguments: str) -> Any:
        done = self.carcond("--backend", self.stack.backend_url, "--json", *arguments)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def undo(self, *arguments: str) -> Any:
        done = self.carcond("--undo", "--json", *arguments)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def wait_until_served(self) -> None:
        wait_until(lambda: is_ours(self.api.project(self.id).model_version), "a version to be served")
        wait_until(self._all_predicted, "all photos to have a prediction")

    def _all_predicted(self) -> bool:
        version = self.api.project(self.id).model_version
        return all(
            [p.model_version for p in task.predictions].count(version) == 1
            for task in self.api.tasks(self.id)
            if not task.annotations
        )

    def state(self) -> dict[str, Any]:
        """All that Label Studio's API tells of the project, but for moments."""
        get = self.api.request
        params = {"project": self.id}
        tasks = get("GET", "/api/tasks/", params=params | {"fields": "all", "page_size": 500})["tasks"]
        return {
            "project": get("GET", f"/api/projects/{self.id}/"),
            "backends": [_timeless(row) for row in get("GET", "/api/ml/", params=params)],
            "webhooks": [_timeless(row) for row in get("GET", "/api/webhooks/", params=params)],
            "tabs": get("GET", "/api/dm/views/", params=params),
            "tasks": {task["id"]: _timeless(task) for task in tasks},
        }


def _timeless(row: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name not in _TIMES}


def _without_counts(project: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in project.items() if name not in _COUNTS}


@pytest.fixture
def existing(stack: Stack, tmp_path: Path, other_backend: HttpServer) -> ExistingProject:
    return ExistingProject(stack, tmp_path / f"existing-{next(_numbers)}", other_backend)


def test_an_existing_project_is_connected_learnt_from_and_given_back(existing: ExistingProject) -> None:
    before = existing.state()

    plan = existing.connect("--dry-run")
    assert existing.state() == before
    assert [(c["kind"], c["name"]) for c in plan["changes"]] == [
        ("backend", existing.stack.backend_url),
        ("webhook", f"{existing.stack.backend_url}/webhook"),
        ("setting", "sampling"),
        ("tab", "Default"),
        ("tab", "Next to label"),
        ("setting", "model_version"),
    ]
    assert plan["obstacles"] == []
    assert plan["unknown_words"] == ["не видно"]
    assert plan["other_backends"][0]["title"] == "other"
    assert plan["other_predictions"] == {THEIRS: PHOTOS}
    assert plan["photo_sample"]["problems"] == {}
    assert (plan["photos"], plan["labelled"]) == (PHOTOS, LABELLED)
    assert plan["first_look_s"] > 0

    existing.connect("--yes")
    existing.wait_until_served()
    connected = existing.state()
    assert existing.api.project(existing.id).model_version != "carcond-0000"  # the labels were learnt from
    assert [row["title"] for row in connected["backends"]] == ["other", "carcond"]
    assert connected["backends"][0] == before["backends"][0]
    assert [hook for hook in connected["webhooks"] if hook in before["webhooks"]] == before["webhooks"]
    for task_id, task in before["tasks"].items():
        now = connected["tasks"][task_id]
        assert now["annotations"] == task["annotations"]
        theirs = [p for p in now["predictions"] if p["model_version"] == THEIRS]
        assert theirs == task["predictions"]

    # The order is ours, though the other model's scores would have another.
    waiting = [task for task in existing.api.tasks(existing.id) if not task.annotations]
    version = existing.api.project(existing.id).model_version
    ours = {task.id: p for task in waiting for p in task.predictions if p.model_version == version}
    first = min(ours.values(), key=lambda p: (p.score or 0.0) if p.slot is not None else 2.0)
    labelled = [existing.oracle.label_next() for _ in range(2)]
    assert labelled[0] is not None
    assert labelled[0].task_id == first.task_id
    answered = {one.task_id for one in labelled if one}

    undone = existing.undo("--yes")
    assert {step["action"] for step in undone["steps"]} == {"restore"}
    assert undone["refused"] == []
    after = existing.state()
    for part in ("backends", "webhooks", "tabs"):
        assert after[part] == before[part]
    assert _without_counts(after["project"]) == _without_counts(before["project"])
    for task_id, task in before["tasks"].items():
        if task_id not in answered:
            assert after["tasks"][task_id] == task
        else:
            kept = [p for p in after["tasks"][task_id]["predictions"] if p["model_version"] == THEIRS]
            assert kept == task["predictions"]

    again = existing.carcond("--undo", "--yes")
    assert again.returncode == 1
    assert "there is nothing to take back" in again.stderr


def test_what_somebody_changed_meanwhile_is_told_and_left_alone(existing: ExistingProject) -> None:
    existing.connect("--yes")
    existing.wait_until_served()
    existing.api.update_project(existing.id, sampling="Uniform sampling", model_version=THEIRS)
    existing.api.request("DELETE", f"/api/ml/{existing.state()['backends'][1]['id']}")
    planned = existing.carcond("--undo", "--dry-run")
    assert "sampling: was changed by somebody since, and is left as it is (Uniform sampling" in planned.stdout
    undone = existing.undo("--yes")
    actions = {step["name"]: step["action"] for step in undone["steps"]}
    # A turn that was under way may have moved the version once more.
    assert actions.pop("model_version") in ("done", "restore")
    assert actions == {
        "sampling": "leave",
        f"{existing.stack.backend_url}/webhook": "restore",
        existing.stack.backend_url: "done",
        "Default": "restore",
        "Next to label": "restore",
    }
    after = existing.state()
    assert after["project"]["sampling"] == "Uniform sampling"
    assert after["project"]["model_version"] == THEIRS
    assert [hook["url"] for hook in after["webhooks"]] == [f"{existing.other.url}/webhook"]
    assert not any(is_ours(p.model_version) for task in existing.api.tasks(existing.id) for p in task.predictions)


@pytest.fixture
def empty_project(api: LabelStudioApi) -> int:
    body = {"title": f"empty {next(_numbers)}", "label_config": CONFIG, "sampling": "Sequential sampling"}
    return int(api.request("POST", "/api/projects/", json=body)["id"])


def _connections(api: LabelStudioApi, project_id: int) -> tuple[Any, Any, Any]:
    params = {"project": project_id}
    project = api.request("GET", f"/api/projects/{project_id}/")
    return api.request("GET", "/api/ml/", params=params), api.request("GET", "/api/webhooks/", params=params), project


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("http://10.0.0.1:9090", "USER_ADDITIONAL_BANNED_SUBNETS=0.0.0.0/8,10."),
        ("http://{hostname}:9090", "only for hosts with a dot in their name"),
        ("http://no-such-host.invalid:9090", "'no-such-host.invalid' means nothing where Label Studio runs"),
    ],
)
def test_an_address_that_label_studio_would_refuse_is_told_before_anything_is_tried(
    stack: Stack, api: LabelStudioApi, empty_project: int, url: str, words: str
) -> None:
    before = _connections(api, empty_project)
    url = url.format(hostname=socket.gethostname())
    told = run_connect(stack, empty_project, "--backend", url, "--dry-run", "--json")
    assert told.returncode == 1
    assert words in " ".join(json.loads(told.stdout)["obstacles"])
    refused = run_connect(stack, empty_project, "--backend", url, "--yes")
    assert (refused.returncode, words in refused.stderr) == (1, True)
    assert _connections(api, empty_project) == before


def test_a_connection_that_fails_half_way_is_taken_back(stack: Stack, api: LabelStudioApi, empty_project: int) -> None:
    before = _connections(api, empty_project)
    arguments = ("--backend", stack.backend_url, "--yes")
    refused = run_connect(stack, empty_project, *arguments, CARCOND_BASIC_AUTH_PASSWORD="wrong")
    assert refused.returncode == 1
    assert "CARCOND_BASIC_AUTH_USER and _PASSWORD must be those it was started with" in refused.stderr
    assert _connections(api, empty_project) == before
    assert run_connect(stack, empty_project, "--undo", "--yes").returncode == 1


def test_a_personal_token_will_do(stack: Stack, api: LabelStudioApi, empty_project: int) -> None:
    token = str(api.request("POST", "/api/token/")["token"])
    before = _connections(api, empty_project)
    connected = run_connect(stack, empty_project, "--backend", stack.backend_url, "--yes", LABEL_STUDIO_API_KEY=token)
    assert connected.returncode == 0, connected.stderr
    hooks = _connections(api, empty_project)[1]
    assert [hook["headers"] for hook in hooks] == [stack.backend_address.webhook_headers]
    assert run_connect(stack, empty_project, "--undo", "--yes", LABEL_STUDIO_API_KEY=token).returncode == 0
    assert _connections(api, empty_project) == before


def test_what_is_connected_already_needs_no_change(stack: Stack) -> None:
    project_id = stack.provision(f"provisioned {next(_numbers)}").project_id
    done = run_connect(stack, project_id, "--backend", stack.backend_url, "--yes")
    assert (done.returncode, "Nothing has to be changed" in done.stdout) == (0, True)
    assert run_connect(stack, project_id, "--undo", "--yes").returncode == 1
