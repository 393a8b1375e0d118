"""What the doctor says of a real stack in which one thing after the other is broken, and of a closed Label Studio."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import httpx
import pytest
from redis import Redis

from backend.doctor.checks import examine
from backend.doctor.examination import Examination
from backend.doctor.finding import Finding, Level
from backend.label_studio.client import LabelStudioApi
from backend.label_studio.webhooks import read_webhooks
from carcond.errors import LabelStudioError
from carcond.model.version_card import Gate
from carcond.settings import load_settings
from scripts import label_studio_server
from scripts.credentials import Credentials
from scripts.ports import free_ports
from scripts.preflight import make_directory
from scripts.processes import ManagedProcess
from scripts.stack import Stack
from tests.backend.http_server import HttpServer, Reply, Request
from tests.e2e.scenario import Scenario, wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(900)]

Ask = Callable[..., dict[str, Finding]]


@pytest.fixture(scope="module")
def scenario(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Scenario:
    """A project in good health, without a version yet."""
    scenario = Scenario(stack, "doctor", tmp_path_factory.mktemp("doctor"), 12)
    wait_until(lambda: scenario.model_version() == "carcond-0000" and not scenario.stale_tasks(), "the first queue")
    return scenario


@pytest.fixture
def ask(scenario: Scenario, monkeypatch: pytest.MonkeyPatch) -> Ask:
    """Examine the project; settings may be given that differ from the stack's."""

    def ask(project: int | None = None, backend: str = "", **settings: str) -> dict[str, Finding]:
        with monkeypatch.context() as patch:
            for name, value in (scenario.stack.settings | settings).items():
                patch.setenv(name, value)
            given = load_settings()
        with Examination(given, backend or scenario.stack.backend_url) as whole:
            findings = examine(whole, [project or scenario.project_id])
        assert not secrets_in(scenario.stack, json.dumps([finding.as_json() for finding in findings]))
        return {finding.name: finding for finding in findings}

    return ask


@pytest.fixture
def new_project(scenario: Scenario) -> Iterator[Callable[..., int]]:
    """Makes projects that nobody has connected yet, and removes them."""
    made: list[int] = []

    def make(**settings: Any) -> int:
        body = {"title": f"doctor {time.monotonic_ns()}", **settings}
        made.append(int(scenario.api.request("POST", "/api/projects/", json=body)["id"]))
        return made[-1]

    yield make
    for project in made:
        scenario.api.request("DELETE", f"/api/projects/{project}/")


@contextmanager
def standing_still(stack: Stack) -> Iterator[None]:
    """The worker mends nothing meanwhile."""
    pid = stack.pids["worker"]
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def secrets_in(stack: Stack, text: str) -> list[str]:
    known = stack.credentials
    secrets = (known.label_studio_token, known.backend_password, known.redis_password, known.label_studio_password)
    return [secret for secret in secrets if secret in text]


def faults(found: dict[str, Finding]) -> set[str]:
    return {name for name, finding in found.items() if finding.level == Level.FAULT}


def unchecked(found: dict[str, Finding]) -> set[str]:
    return {name for name, finding in found.items() if finding.level == Level.UNCHECKED}


def test_a_healthy_project_has_no_fault_and_all_of_it_was_looked_at(ask: Ask) -> None:
    found = ask()
    assert faults(found) == unchecked(found) == set()
    assert {name for name, f in found.items() if f.level == Level.WARNING} <= {"fallback-encoder"}


def test_the_command_ends_with_a_code_that_says_what_it_found(scenario: Scenario) -> None:
    command = [str(Path(sys.executable).with_name("carcond")), "doctor", "--json"]
    done = subprocess.run(command, env=scenario.stack.environment, capture_output=True, text=True, check=False)
    report = json.loads(done.stdout)
    assert scenario.project_id in {finding["project"] for finding in report["findings"]}
    own = [f for f in report["findings"] if f["project"] in (None, scenario.project_id)]
    assert {f["level"] for f in own} <= {"fine", "warning"}
    assert done.returncode == {"fault": 1, "not checked": 2}.get(report["level"], 0)
    assert not secrets_in(scenario.stack, done.stdout + done.stderr)


def test_a_label_studio_that_is_not_there_is_told_and_the_rest_still_looked_at(ask: Ask) -> None:
    found = ask(LABEL_STUDIO_URL="http://127.0.0.1:9")
    assert faults(found) == {"label-studio-unreachable"}
    assert {"token", "project", "webhook"} <= unchecked(found)
    assert found["webhook"].what == "first mend Label Studio"
    assert found["workers"].level == found["redis"].level == Level.FINE


def test_another_program_at_the_address_is_told(ask: Ask, scenario: Scenario) -> None:
    found = ask(LABEL_STUDIO_URL=scenario.stack.backend_url)
    assert faults(found) == {"not-label-studio"}


def test_a_missing_token_and_a_wrong_one_are_told_apart(ask: Ask) -> None:
    assert faults(ask(LABEL_STUDIO_API_KEY="")) == {"token-missing"}
    assert faults(ask(LABEL_STUDIO_API_KEY="0" * 40)) == {"token-wrong"}


def test_a_deleted_project_is_told(ask: Ask) -> None:
    assert faults(ask(project=999_999)) == {"project-gone"}


def test_a_project_that_was_never_connected_is_told_with_the_command(
    ask: Ask, new_project: Callable[..., int], scenario: Scenario
) -> None:
    project = new_project(label_config=scenario.api.project(scenario.project_id).label_config)
    found = ask(project=project)
    assert faults(found) == {"project-unknown", "backend-not-connected", "sampling"}
    assert (
        found["backend-not-connected"].fix
        == f"carcond connect --project {project} --backend {scenario.stack.backend_url}"
    )
    anywhere = ask(project=project, backend="http://0.0.0.0:9090")
    assert anywhere["backend-not-connected"].fix == f"carcond connect --project {project} --backend URL"
    # Asking what Label Studio thinks of the backend has not made one.
    assert scenario.api.request("GET", "/api/ml/", params={"project": project}) == []
    assert read_webhooks(scenario.api, project) == []


def test_a_backend_behind_another_is_told(ask: Ask, new_project: Callable[..., int], scenario: Scenario) -> None:
    project, backend = new_project(), scenario.stack.backend_address
    for title in ("other", "carcond"):
        body = {"project": project, "title": title, "url": backend.url, "auth_method": "BASIC_AUTH"}
        body |= {"basic_auth_user": backend.user, "basic_auth_pass": backend.password}
        scenario.api.request("POST", "/api/ml/", json=body)
    assert "remove 'other'" in ask(project=project)["backend-not-first"].fix


def test_a_backend_that_stopped_is_told(ask: Ask, scenario: Scenario) -> None:
    process = scenario.stack._processes["backend"]
    process.stop()
    try:
        found = ask()
        assert faults(found) == {"backend-unreachable"}
        assert "from here it does not answer either" in found["backend-unreachable"].what
    finally:
        process.start()
        process.wait_for_url(f"{scenario.stack.backend_url}/health", 120)


def test_a_password_that_is_not_the_backends_is_told(ask: Ask) -> None:
    found = ask(CARCOND_BASIC_AUTH_PASSWORD="wrong")
    assert faults(found) == {"backend-password", "webhook-secret"}
    assert "these settings" in found["backend-password"].what
    found = ask(CARCOND_BASIC_AUTH_USER="somebody")
    assert "Label Studio, which are not those of these settings" in found["backend-password"].what


@pytest.fixture
def stand_in(scenario: Scenario) -> Iterator[HttpServer]:
    """A backend that Label Studio can connect, and that can be made to fail."""
    with HttpServer(scenario.stack.backend_host) as server:
        server.answers |= {"/health": Reply(b'{"status": "UP"}'), "/setup": Reply(b'{"model_version": "v1"}')}
        yield server


def connect(api: LabelStudioApi, project: int, url: str) -> None:
    api.request("POST", "/api/ml/", json={"project": project, "title": "carcond", "url": url, "auth_method": "NONE"})


def test_a_backend_that_answers_with_errors_is_told(
    ask: Ask, new_project: Callable[..., int], scenario: Scenario, stand_in: HttpServer
) -> None:
    project = new_project()
    connect(scenario.api, project, stand_in.url)
    stand_in.answers["/setup"] = Reply(b"out of memory", status=500)
    found = ask(project=project)
    assert "backend-error" in faults(found)
    assert stand_in.url in found["backend-error"].what


def test_a_backend_that_is_slow_once_is_looked_at_again(
    ask: Ask, new_project: Callable[..., int], scenario: Scenario, stand_in: HttpServer
) -> None:
    project = new_project()
    connect(scenario.api, project, stand_in.url)
    delays = [2.0]  # Label Studio waits a second

    def health(_: Request) -> Reply:
        time.sleep(delays.pop() if delays else 0)
        return Reply(b'{"status": "UP"}')

    stand_in.answers["/health"] = health
    found = ask(project=project, CARCOND_BASIC_AUTH_USER="", CARCOND_BASIC_AUTH_PASSWORD="")
    assert not delays
    assert "backend-unreachable" not in faults(found)


def test_a_host_without_a_dot_gets_no_webhook_and_that_is_told(
    ask: Ask, new_project: Callable[..., int], scenario: Scenario, stand_in: HttpServer
) -> None:
    project = new_project()
    # This machine, by a name without a dot that needs no entry in any table of names.
    host = int(ip_address(stand_in.host))
    connect(scenario.api, project, f"http://{host}:{stand_in.port}")
    assert read_webhooks(scenario.api, project) == []
    found = ask(project=project, CARCOND_BASIC_AUTH_USER="", CARCOND_BASIC_AUTH_PASSWORD="")
    assert f"the host {host}" in found["webhook-dotless-host"].what
    assert found["backend"].level == Level.FINE
    assert read_webhooks(scenario.api, project) == []


def test_an_address_that_the_guard_closes_is_told_with_the_settings_that_open_it(
    ask: Ask, new_project: Callable[..., int]
) -> None:
    found = ask(project=new_project(), backend="http://10.1.2.3:9090")
    assert "http://10.1.2.3:9090" in found["ssrf-guard"].what
    assert "USER_ADDITIONAL_BANNED_SUBNETS=" in found["ssrf-guard"].fix
    assert "10.1.2.3/32" not in found["ssrf-guard"].fix


def test_each_fault_of_the_webhook_is_told_apart(ask: Ask, scenario: Scenario) -> None:
    (hook,) = read_webhooks(scenario.api, scenario.project_id)
    path = f"/api/webhooks/{hook['id']}/"
    wanted = {name: hook[name] for name in ("url", "send_for_all_actions", "actions", "headers", "is_active")}

    def after(**changes: Any) -> set[str]:
        scenario.api.request("PATCH", path, json=wanted | changes)
        return faults(ask())

    assert after(headers={}) == {"webhook-secret"}
    assert after(is_active=False) == {"webhook-off"}
    assert after(actions=["TASKS_CREATED"]) == {"webhook-actions"}
    scenario.api.request("DELETE", path)
    assert faults(ask()) == {"webhook-missing"}
    body = {"project": scenario.project_id, "send_payload": True, **wanted}
    for _ in range(2):
        scenario.api.request("POST", "/api/webhooks/", json=body)
    assert ask()["webhook-doubled"].level == Level.WARNING
    scenario.api.request("DELETE", f"/api/webhooks/{read_webhooks(scenario.api, scenario.project_id)[0]['id']}/")
    assert faults(ask()) == set()


def test_a_webhook_that_a_removed_backend_left_is_told(ask: Ask, scenario: Scenario) -> None:
    # Another program's hook, and one to which no backend belongs any more.
    made = [
        scenario.api.request(
            "POST",
            "/api/webhooks/",
            json={"project": scenario.project_id, "url": f"http://{scenario.stack.backend_host}:9{path}"},
        )
        for path in ("/webhook", "/elsewhere")
    ]
    found = ask()
    assert f"its number is {made[0]['id']}" in found["webhook-orphaned"].fix
    assert faults(found) == set()
    for hook in made:
        scenario.api.request("DELETE", f"/api/webhooks/{hook['id']}/")


def test_sampling_and_hidden_predictions_are_told(ask: Ask, scenario: Scenario) -> None:
    version = scenario.model_version()
    scenario.api.update_project(scenario.project_id, sampling="Sequential sampling")
    assert faults(ask()) == {"sampling"}
    scenario.api.update_project(scenario.project_id, sampling="Uncertainty sampling", show_collab_predictions=False)
    assert "predictions-hidden" in faults(ask())
    scenario.api.update_project(scenario.project_id, show_collab_predictions=True, model_version=version)
    assert faults(ask()) == set()


def test_the_backends_title_for_a_version_is_told(ask: Ask, scenario: Scenario) -> None:
    with standing_still(scenario.stack):
        version = scenario.model_version()
        scenario.api.update_project(scenario.project_id, model_version="carcond")
        assert faults(ask()) == {"model-version-is-title"}
        scenario.api.update_project(scenario.project_id, model_version=version)


def test_a_second_prediction_and_another_version_are_told(ask: Ask, scenario: Scenario) -> None:
    with standing_still(scenario.stack):
        task = scenario.tasks()[0].id
        body = {"task": task, "result": [], "score": 0.5, "model_version": "another"}
        made = [scenario.api.request("POST", "/api/predictions/", json=body)]
        scenario.api.update_project(scenario.project_id, model_version="another")
        found = ask()
        assert "two-predictions" not in found
        assert "orders by 'another', and carcond-0000 serves" in found["model-version-other"].what
        body["model_version"] = "carcond-0000"
        made.append(scenario.api.request("POST", "/api/predictions/", json=body))
        found = ask()
        assert f"like task {task}" in found["two-predictions"].what
        assert faults(found) == set()
        scenario.api.update_project(scenario.project_id, model_version="carcond-0000")
        for prediction in made:
            scenario.api.delete_prediction(prediction["id"])


def test_predictions_that_are_gone_are_told(ask: Ask, scenario: Scenario) -> None:
    with standing_still(scenario.stack):
        for task in scenario.tasks():
            for prediction in task.predictions:
                scenario.api.delete_prediction(prediction.id)
        found = ask()
        assert "None of the 12 unlabelled photos has a prediction of carcond-0000" in (
            found["no-current-prediction"].what
        )
    # As the advice says, the worker writes them anew by itself.
    wait_until(lambda: scenario.model_version() == "carcond-0000" and not scenario.stale_tasks(), "a new queue")


_IMAGE = '<Image name="image" value="$image"/>'
_DAMAGE = '<Choices name="damage" toName="image"><Choice value="intact"/>{}</Choices>'


@pytest.mark.parametrize(
    ("choices", "found"),
    [
        ('<Choices name="animal" toName="image"><Choice value="cat"/></Choices>', {"label-config-unusable"}),
        (_DAMAGE.format('<Choice value="damaged"/>'), {"label-config-lacks-task"}),
        (
            _DAMAGE.format('<Choice value="damaged"/><Choice value="rusty"/>'),
            {"label-config-lacks-task", "label-config-unknown-words"},
        ),
        (_DAMAGE.format(""), {"label-config-lacks-task", "label-config-lacks-class"}),
    ],
)
def test_a_label_config_without_our_tasks_words_or_classes_is_told(
    ask: Ask, new_project: Callable[..., int], choices: str, found: set[str]
) -> None:
    project = new_project(label_config=f"<View>{_IMAGE}{choices}</View>")
    assert {name for name in ask(project=project) if name.startswith("label-config-")} == found


def test_photos_that_answer_401_or_404_or_are_elsewhere_are_told_apart(
    ask: Ask, new_project: Callable[..., int], scenario: Scenario
) -> None:
    config = scenario.api.project(scenario.project_id).label_config

    def ask_of(url: str, **settings: str) -> dict[str, Finding]:
        project = new_project(label_config=config)
        scenario.api.request("POST", f"/api/projects/{project}/import", json=[{"image": url}])
        found = ask(project=project, **settings)
        return {name: finding for name, finding in found.items() if finding.check == "photos"}

    with HttpServer() as storage:
        storage.answers["/closed.jpg"] = Reply(status=401)
        hosts = {"CARCOND_PHOTO_HOSTS": f"127.0.0.1:{storage.port}"}
        assert "HTTP 401" in ask_of(f"{storage.url}/closed.jpg?X-Signature=abc", **hosts)["photos-refused"].what
        found = ask_of(f"{storage.url}/gone.jpg?X-Signature=abc", **hosts)["photos-missing"]
        assert "HTTP 404" in found.what
        assert "abc" not in found.what
        storage.answers["/broken.jpg"] = Reply(status=500)
        assert "HTTP 500" in ask_of(f"{storage.url}/broken.jpg", **hosts)["photos-unreadable"].what
        needed = f"CARCOND_PHOTO_HOSTS=127.0.0.1:{storage.port}"
        assert needed in ask_of(f"{storage.url}/a.jpg")["photo-host"].fix
    assert "photos-missing" in ask_of("/data/upload/1/gone.jpg")
    found = ask_of("http://labels.example.org:8080/data/upload/1/a.jpg")["label-studio-host"]
    assert found.fix.startswith("Set LABEL_STUDIO_HOST=http://labels.example.org:8080 ")


def test_a_worker_that_is_gone_is_told(ask: Ask, scenario: Scenario) -> None:
    os.kill(scenario.stack.pids["worker"], signal.SIGTERM)
    wait_until(lambda: "worker" not in scenario.stack.pids, "the worker to end")
    try:
        assert faults(ask()) == {"no-worker"}
    finally:
        scenario.stack.restart("worker")


def start_training(scenario: Scenario) -> bool:
    (connected,) = scenario.api.request("GET", "/api/ml/", params={"project": scenario.project_id})
    scenario.api.request("POST", f"/api/ml/{connected['id']}/train", json={})
    return True


def test_turns_that_nobody_takes_are_told(ask: Ask, scenario: Scenario) -> None:
    wait_until(lambda: "no-worker" not in ask(), "the worker")
    with standing_still(scenario.stack):
        with Redis.from_url(scenario.stack.redis_url) as redis:
            wait_until(lambda: start_training(scenario) and redis.llen("rq:queue:turns") > 0, "a turn that waits")
        time.sleep(2.5)
        found = ask(CARCOND_RECONCILE_EVERY_S="1")
        assert faults(found) == {"queue-grows"}
        assert "turns wait, the first one since" in found["queue-grows"].what


def test_a_redis_that_keeps_nothing_on_disk_is_told(ask: Ask, scenario: Scenario) -> None:
    with Redis.from_url(scenario.stack.redis_url) as redis:
        redis.config_set("appendonly", "no")
        assert "redis-without-persistence" in ask()
        redis.config_set("appendonly", "yes")
        assert "redis-without-persistence" not in ask()


def test_a_redis_that_is_away_or_refuses_the_password_is_told(ask: Ask, scenario: Scenario) -> None:
    assert faults(ask(REDIS_URL="redis://:secret@127.0.0.1:9/0")) == {"redis-unreachable"}
    port = scenario.stack.options.redis_port
    for url in (f"redis://:wrong@127.0.0.1:{port}/0", f"redis://127.0.0.1:{port}/0"):
        found = ask(REDIS_URL=url)
        assert faults(found) == {"redis-password"}
        assert "wrong" not in found["redis-password"].what


def test_five_refused_versions_are_told_with_what_to_look_at(ask: Ask, scenario: Scenario) -> None:
    for _ in range(6):
        scenario.label_next()
    scenario.wait_until_quiet()
    serving = scenario.version()
    gate = Gate(accepted=False, reason="worse on damage by 0.2")
    for expected in (set(), {"versions-refused"}):
        for _ in range(4 - 3 * bool(expected)):
            newest = scenario.registry.write(serving.heads, serving.card.model_copy(update={"gate": gate}), [])
        assert faults(ask()) == expected
    found = ask()["versions-refused"]
    assert f"{serving.name} serves. Of the newest: worse on damage by 0.2" in found.what
    assert f"carcond versions show {newest} --project {scenario.project_id}" in found.fix


# A Label Studio as it is when nobody has set anything


@dataclass(frozen=True)
class ClosedStudio:
    """A Label Studio whose guard is closed for webhooks, and whose legacy tokens are off."""

    url: str
    credentials: Credentials

    @contextmanager
    def browser(self) -> Iterator[httpx.Client]:
        """A person who has logged in."""
        with httpx.Client(base_url=self.url, trust_env=False, timeout=30) as client:
            client.get("/user/login/")
            form = {
                "csrfmiddlewaretoken": client.cookies["csrftoken"],
                "email": self.credentials.label_studio_email,
                "password": self.credentials.label_studio_password,
            }
            client.post("/user/login/", data=form, headers={"Referer": f"{self.url}/user/login/"})
            client.headers["X-CSRFToken"] = client.cookies["csrftoken"]
            yield client


@pytest.fixture(scope="module")
def closed(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClosedStudio]:
    (port,) = free_ports(1)
    data, credentials = make_directory(tmp_path_factory.mktemp("closed") / "data"), Credentials()
    url = f"http://127.0.0.1:{port}"
    environment = label_studio_server.environment(data, data, url, credentials)
    set_by_us = ("ENABLE_LEGACY_API_TOKEN", "USE_DEFAULT_BANNED_SUBNETS", "USER_ADDITIONAL_BANNED_SUBNETS")
    environment = {name: value for name, value in environment.items() if not name.endswith(set_by_us)}
    process = ManagedProcess(
        name="closed-label-studio",
        command=label_studio_server.command(stack.options.label_studio_venv, port),
        # Its guard has two halves: one for backends, and this one does not open the other.
        environment=environment | {"ML_BLOCK_LOCAL_IP": "false"},
        log_path=data / "log",
        working_dir=data,
    )
    process.start()
    try:
        process.wait_for_url(f"{url}/health", 300)
        yield ClosedStudio(url, credentials)
    finally:
        process.stop()


@pytest.fixture(scope="module")
def personal_token(closed: ClosedStudio) -> str:
    with closed.browser() as browser:
        return str(browser.post("/api/token/").json()["token"])


def test_legacy_tokens_that_are_switched_off_are_told(ask: Ask, closed: ClosedStudio) -> None:
    token = closed.credentials.label_studio_token
    found = ask(LABEL_STUDIO_URL=closed.url, LABEL_STUDIO_API_KEY=token, project=999)
    assert faults(found) == {"legacy-tokens-off"}


def test_a_personal_token_is_taken_and_a_token_made_from_it_is_not(
    ask: Ask, closed: ClosedStudio, personal_token: str
) -> None:
    found = ask(LABEL_STUDIO_URL=closed.url, LABEL_STUDIO_API_KEY=personal_token, project=999)
    assert found["token"].what == "a personal access token, accepted"
    reply = httpx.post(f"{closed.url}/api/token/refresh/", json={"refresh": personal_token}, trust_env=False)
    found = ask(LABEL_STUDIO_URL=closed.url, LABEL_STUDIO_API_KEY=reply.json()["access"], project=999)
    assert faults(found) == {"access-token"}


def test_a_guard_that_is_open_for_backends_and_closed_for_webhooks_is_told(
    ask: Ask, closed: ClosedStudio, personal_token: str, stand_in: HttpServer
) -> None:
    api = LabelStudioApi(closed.url, personal_token)
    project = int(api.request("POST", "/api/projects/", json={"title": "closed"})["id"])
    # Refused, says the answer, and it is connected all the same.
    with pytest.raises(LabelStudioError, match="reserved network address"):
        connect(api, project, stand_in.url)
    found = ask(
        project=project,
        LABEL_STUDIO_URL=closed.url,
        LABEL_STUDIO_API_KEY=personal_token,
        CARCOND_BASIC_AUTH_USER="",
        CARCOND_BASIC_AUTH_PASSWORD="",
    )
    assert found["backend"].level == Level.FINE
    assert stand_in.url in found["ssrf-guard-webhook"].what
    assert "USE_DEFAULT_BANNED_SUBNETS=false USER_ADDITIONAL_BANNED_SUBNETS=0.0.0.0/8," in (
        found["ssrf-guard-webhook"].fix
    )
    assert "127.0.0.0/8" not in found["ssrf-guard-webhook"].fix
    assert read_webhooks(api, project) == []
    api.close()


def test_a_revoked_personal_token_is_told(ask: Ask, closed: ClosedStudio, personal_token: str) -> None:
    with closed.browser() as browser:
        reply = browser.post("/api/token/blacklist/", json={"refresh": personal_token})
        assert reply.is_success
    found = ask(LABEL_STUDIO_URL=closed.url, LABEL_STUDIO_API_KEY=personal_token, project=999)
    assert faults(found) == {"personal-token-refused"}
