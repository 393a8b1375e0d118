"""Provisioning a project of a real Label Studio."""

import itertools
from base64 import b64decode
from dataclasses import replace

import httpx
import pytest

from backend.label_studio.backend_address import BackendAddress
from backend.label_studio.client import LabelStudioApi
from backend.label_studio.label_config import bind_label_config
from backend.label_studio.provision import (
    SAMPLING,
    find_or_create_project,
    follow_backend,
    provision,
    shipped_label_config,
)
from backend.label_studio.webhooks import WEBHOOK_ACTIONS, read_webhooks
from carcond.errors import LabelConfigError, LabelStudioError
from carcond.taxonomy import TASKS
from scripts.stack import Stack
from tests.backend.http_server import HttpServer, Reply

pytestmark = [pytest.mark.slow, pytest.mark.e2e]
_numbers = itertools.count(1)


@pytest.fixture
def title() -> str:
    """A title that no other project has."""
    return f"provision {next(_numbers)}"


@pytest.fixture(scope="module")
def api(stack: Stack) -> LabelStudioApi:
    return stack.api()


def test_a_new_project_has_all_that_the_loop_needs(stack: Stack, api: LabelStudioApi, title: str) -> None:
    report = stack.provision(title)
    project = api.project(report.project_id)
    assert report.project_created
    assert report.backend_connected
    assert project.title == title
    assert project.sampling == SAMPLING
    assert project.raw["show_collab_predictions"] is True
    [backend] = api.request("GET", "/api/ml/", params={"project": report.project_id})
    assert (backend["state"], backend["url"], backend["auth_method"]) == ("CO", stack.backend_url, "BASIC_AUTH")


def test_the_webhook_exists_and_carries_what_the_backend_asks_for(
    stack: Stack, api: LabelStudioApi, title: str
) -> None:
    report = stack.provision(title)
    [hook] = read_webhooks(api, report.project_id)
    assert hook["url"] == f"{stack.backend_url}/webhook"
    assert sorted(hook["actions"]) == sorted(WEBHOOK_ACTIONS)
    assert hook["send_for_all_actions"] is False
    assert hook["headers"] == stack.backend_address.webhook_headers
    user, _, password = b64decode(hook["headers"]["Authorization"].removeprefix("Basic ")).decode().partition(":")
    assert user == stack.credentials.backend_user
    assert password != stack.credentials.backend_password
    with httpx.Client(base_url=stack.backend_url, auth=(user, password), timeout=30) as reader:
        assert reader.post("/webhook", json={}).status_code != 401
        assert reader.post("/predict", json={}).status_code == 401


def test_provisioning_twice_changes_nothing_more(stack: Stack, api: LabelStudioApi, title: str) -> None:
    first = stack.provision(title)
    hooks = read_webhooks(api, first.project_id)
    second = stack.provision(title)
    assert second == replace(
        first, project_created=False, backend_connected=False, webhook_created=False, tab_created=False
    )
    assert read_webhooks(api, first.project_id) == hooks


def test_a_renamed_project_is_found_by_its_number(stack: Stack, api: LabelStudioApi, title: str) -> None:
    project_id = stack.provision(title).project_id
    api.update_project(project_id, title=f"{title}, renamed")
    assert stack.provision(title, project_id).project_id == project_id


def test_a_deleted_project_is_made_anew(stack: Stack, api: LabelStudioApi, title: str) -> None:
    project_id = stack.provision(title).project_id
    api.request("DELETE", f"/api/projects/{project_id}/")
    report = stack.provision(title, project_id)
    assert report.project_created
    assert report.project_id != project_id


def test_a_title_that_only_contains_the_words_is_another_project(api: LabelStudioApi, title: str) -> None:
    longer, _ = find_or_create_project(api, f"{title} (old)")
    project_id, created = find_or_create_project(api, title)
    assert created
    assert project_id != longer


def test_a_lost_webhook_is_made_again(stack: Stack, api: LabelStudioApi, title: str) -> None:
    project_id = stack.provision(title).project_id
    [hook] = read_webhooks(api, project_id)
    api.request("DELETE", f"/api/webhooks/{hook['id']}/")
    assert stack.provision(title).webhook_created
    assert len(read_webhooks(api, project_id)) == 1


def test_a_switched_off_webhook_is_switched_on(stack: Stack, api: LabelStudioApi, title: str) -> None:
    project_id = stack.provision(title).project_id
    [hook] = read_webhooks(api, project_id)
    api.request("PATCH", f"/api/webhooks/{hook['id']}/", json={"url": hook["url"], "is_active": False})
    stack.provision(title)
    [hook] = read_webhooks(api, project_id)
    assert hook["is_active"] is True
    assert sorted(hook["actions"]) == sorted(WEBHOOK_ACTIONS)


def test_doubled_webhooks_are_removed_and_those_of_others_are_kept(
    stack: Stack, api: LabelStudioApi, title: str
) -> None:
    project_id = stack.provision(title).project_id
    urls = [f"{stack.backend_url}/webhook", f"http://{stack.backend_host}:1/elsewhere"]
    for url in urls:
        api.request("POST", "/api/webhooks/", json={"project": project_id, "url": url})
    assert stack.provision(title).webhooks_removed == 1
    assert sorted(hook["url"] for hook in read_webhooks(api, project_id)) == sorted(urls)


def test_a_backend_that_moved_takes_its_webhook_with_it(stack: Stack, api: LabelStudioApi, title: str) -> None:
    project_id = provision_elsewhere(stack, title)[0]
    report = stack.provision(title)
    assert (report.backend_connected, report.webhooks_removed) == (True, 1)
    assert_connected_once(stack, project_id)


def test_all_projects_follow_a_backend_that_moved(stack: Stack, api: LabelStudioApi, title: str) -> None:
    project_id, former_url = provision_elsewhere(stack, title)
    assert follow_backend(api, stack.backend_address, former_url) == [project_id]
    assert_connected_once(stack, project_id)
    assert follow_backend(api, stack.backend_address, former_url) == []


def provision_elsewhere(stack: Stack, title: str) -> tuple[int, str]:
    """A project, and the address of another program that passes for its backend."""
    with HttpServer(stack.backend_host) as server:
        server.answers |= {"/health": Reply(b'{"status": "UP"}'), "/setup": Reply(b'{"model_version": "v1"}')}
        elsewhere = replace(stack.backend_address, url=server.url)
        return provision(stack.api(), elsewhere, title).project_id, server.url


def assert_connected_once(stack: Stack, project_id: int) -> None:
    assert [hook["url"] for hook in read_webhooks(stack.api(), project_id)] == [f"{stack.backend_url}/webhook"]
    [row] = stack.api().request("GET", "/api/ml/", params={"project": project_id})
    assert row["url"] == stack.backend_url


def test_a_real_model_version_is_kept(stack: Stack, api: LabelStudioApi, title: str) -> None:
    project_id = stack.provision(title).project_id
    api.request("POST", f"/api/projects/{project_id}/import", json=[{"image": "/data/upload/none.jpg"}])
    [task_id] = api.task_ids(project_id)
    prediction = {"task": task_id, "result": [], "score": 0.5, "model_version": "carcond-0042"}
    api.request("POST", "/api/predictions/", json=prediction)
    api.update_project(project_id, model_version="carcond-0042")
    stack.provision(title)
    assert api.project(project_id).model_version == "carcond-0042"


def test_a_label_config_of_the_users_own_is_kept(stack: Stack, api: LabelStudioApi, title: str) -> None:
    config = (
        '<View><Image name="img" value="$photo"/><Choices name="grime" toName="img">'
        '<Choice value="чистый"/><Choice value="грязный"/></Choices></View>'
    )
    created = api.request("POST", "/api/projects/", json={"title": title, "label_config": config})
    assert stack.provision(title).project_id == created["id"]
    assert "grime" in api.project(created["id"]).label_config


def test_a_label_config_for_something_else_is_refused_and_kept(stack: Stack, api: LabelStudioApi, title: str) -> None:
    config = (
        '<View><Image name="img" value="$photo"/><Choices name="animal" toName="img">'
        '<Choice value="cat"/><Choice value="dog"/></Choices></View>'
    )
    created = api.request("POST", "/api/projects/", json={"title": title, "label_config": config})
    with pytest.raises(LabelConfigError, match=r"cannot be used.*Settings > Labeling Interface"):
        stack.provision(title)
    assert "animal" in api.project(created["id"]).label_config


def test_another_backend_in_the_way_is_named(stack: Stack, api: LabelStudioApi, title: str) -> None:
    project_id, _ = find_or_create_project(api, title)
    backend = stack.backend_address
    other = {"project": project_id, "title": "other", "url": backend.url, "auth_method": "BASIC_AUTH"}
    other |= {"basic_auth_user": backend.user, "basic_auth_pass": backend.password}
    api.request("POST", "/api/ml/", json=other)
    with pytest.raises(LabelStudioError, match=r"ML backend 'other'.*remove it under Settings > Model"):
        stack.provision(title)


def test_a_wrong_password_is_told_as_such(stack: Stack, api: LabelStudioApi, title: str) -> None:
    with pytest.raises(LabelStudioError, match="CARCOND_BASIC_AUTH_USER"):
        provision(api, replace(stack.backend_address, password="wrong"), title)


def test_a_backend_that_is_not_there_is_told_as_such(api: LabelStudioApi, title: str) -> None:
    with pytest.raises(LabelStudioError, match=r"Label Studio cannot reach it at http://127\.90\.90\.1:9"):
        provision(api, BackendAddress("http://127.90.90.1:9"), title)


def test_an_address_that_the_ssrf_guard_closes_is_told_with_the_cure(api: LabelStudioApi, title: str) -> None:
    with pytest.raises(
        LabelStudioError,
        match=r"SSRF guard does not let it call.*USER_ADDITIONAL_BANNED_SUBNETS=",
    ):
        provision(api, BackendAddress("http://10.0.0.1:9090"), title)


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "127.0.0.2", "10.1.2.3", "169.254.169.254", "172.16.0.1", "192.168.0.1", "100.64.0.1"]
)
def test_label_studio_may_call_the_backend_and_no_other_inner_address(
    api: LabelStudioApi, title: str, host: str
) -> None:
    project_id, _ = find_or_create_project(api, title)
    with pytest.raises(LabelStudioError, match="reserved network address"):
        api.request("POST", "/api/webhooks/", json={"project": project_id, "url": f"http://{host}:9090/webhook"})


def test_a_file_on_another_port_of_this_machine_does_not_become_tasks(stack: Stack, title: str) -> None:
    project_id, _ = find_or_create_project(stack.api(), title)
    path = f"{stack.label_studio_url}/api/projects/{project_id}/import"
    token = {"Authorization": f"Token {stack.api_key}"}
    with HttpServer() as private:
        private.answers["/private.json"] = Reply(b'[{"image": "a secret"}]')
        url = f"{private.url}/private.json"
        reply = httpx.post(path, headers=token, data={"url": url}, timeout=30, trust_env=False)
    assert reply.status_code >= 400
    assert private.requests == []
    assert stack.api().task_ids(project_id) == set()


def test_a_wrong_token_is_told_with_the_setting_to_look_at(stack: Stack, title: str) -> None:
    stranger = LabelStudioApi(stack.label_studio_url, "0" * 40)
    with pytest.raises(LabelStudioError, match="LABEL_STUDIO_API_KEY"):
        provision(stranger, stack.backend_address, title)
    stranger.close()


def test_the_shipped_label_config_is_understood_whole_and_keeps_the_english_words() -> None:
    binding = bind_label_config(shipped_label_config())
    assert binding.unknown_words == ()
    for task in TASKS:
        assert binding.choices[task.key].word_by_class == {c.key: c.en for c in task.classes}


def test_a_first_start_lets_people_log_in_with_the_printed_password(stack: Stack) -> None:
    with httpx.Client(base_url=stack.label_studio_url, trust_env=False) as browser:
        browser.get("/user/login/")
        form = {
            "csrfmiddlewaretoken": browser.cookies["csrftoken"],
            "email": stack.credentials.label_studio_email,
            "password": stack.credentials.label_studio_password,
        }
        reply = browser.post("/user/login/", data=form, headers={"Referer": f"{stack.label_studio_url}/user/login/"})
        assert reply.status_code == 302
        assert browser.get("/api/current-user/whoami").json()["email"] == stack.credentials.label_studio_email
