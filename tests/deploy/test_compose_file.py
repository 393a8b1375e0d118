"""What docker-compose.yml and the Dockerfile promise, read from the resolved configuration. No engine is needed."""

import ipaddress
import json
import os
import re
import subprocess
import sys
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from docker.passwords import GROUPS
from scripts.label_studio_install import LABEL_STUDIO_VERSION

ROOT = Path(__file__).resolve().parents[2]
ONCE = {"secrets", "databases", "encoder", "setup"}
SERVERS = ["postgres", "redis", "label-studio", "backend", "worker", "finetune", "demo", "prometheus", "grafana"]
PROFILES = {"finetune": ["finetune"], "demo": ["demo"], "prometheus": ["monitoring"], "grafana": ["monitoring"]}


def compose(*arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    """Run the Compose program that a Python package carries, with no settings but those given."""
    command = [str(files("compose").joinpath("docker-compose")), *arguments]
    environment = {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/"), **settings}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


def resolve(*files_and_options: str, **settings: str) -> dict[str, Any]:
    done = compose(*files_and_options, "--profile", "*", "config", "--format", "json", **settings)
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


@cache
def stack() -> dict[str, Any]:
    return resolve()


def service(name: str) -> dict[str, Any]:
    return dict(stack()["services"][name])


def test_the_file_is_valid_and_gives_no_warning() -> None:
    done = compose("--profile", "*", "config", "--quiet")
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("name", ["encoder", "finetune"])
def test_the_graphics_card_override_reserves_one_for_what_needs_pytorch(name: str) -> None:
    one = resolve("-f", "docker-compose.yml", "-f", "docker-compose.gpu.yml")["services"][name]
    assert one["deploy"]["resources"]["reservations"]["devices"][0]["capabilities"] == ["gpu"]
    assert one["image"].startswith("carcond-training:")
    assert one["command"] == service(name)["command"]


def test_what_is_not_needed_for_labelling_waits_for_its_profile() -> None:
    assert {name: one["profiles"] for name, one in stack()["services"].items() if "profiles" in one} == PROFILES
    without = json.loads(compose("config", "--format", "json").stdout)["services"]
    assert set(without) == {*ONCE, *SERVERS} - set(PROFILES)


def test_fine_tunings_have_a_worker_of_their_own() -> None:
    assert service("finetune")["command"] == [*service("worker")["command"], "--queues", "finetune"]
    assert service("finetune")["healthcheck"]["test"] == service("worker")["healthcheck"]["test"]


def test_the_services_are_those_that_are_looked_at_here() -> None:
    assert set(stack()["services"]) == {*ONCE, *SERVERS}


def test_ports_are_open_to_this_machine_only() -> None:
    ports = [port for one in stack()["services"].values() for port in one.get("ports", [])]
    assert ports
    assert {port["host_ip"] for port in ports} == {"127.0.0.1"}


def test_another_address_and_port_are_a_matter_of_settings() -> None:
    services = resolve(CARCOND_ADDRESS="192.0.2.1", CARCOND_PORT="8099")["services"]
    port = services["label-studio"]["ports"][0]
    assert (port["host_ip"], port["published"]) == ("192.0.2.1", "8099")
    assert services["backend"]["environment"]["LABEL_STUDIO_HOST"] == "http://127.0.0.1:8099"


@pytest.mark.parametrize("name", SERVERS)
def test_every_server_has_a_health_check_and_is_restarted(name: str) -> None:
    assert service(name)["healthcheck"]["test"]
    assert service(name)["restart"] == "unless-stopped"


@pytest.mark.parametrize("name", [*sorted(ONCE), *SERVERS])
def test_every_container_is_confined(name: str) -> None:
    one = service(name)
    assert one["cap_drop"] == ["ALL"]
    assert one["security_opt"] == ["no-new-privileges:true"]
    assert one["read_only"]
    assert int(one["mem_limit"]) > 0
    assert one["pids_limit"] > 0
    assert not one.get("privileged")


@pytest.mark.parametrize("name", SERVERS)
def test_no_server_runs_as_root(name: str) -> None:
    user = service(name).get("user") or image_user()
    assert re.fullmatch(r"[1-9]\d*:\d+", user)


@pytest.mark.parametrize("name", sorted(ONCE))
def test_no_one_shot_service_runs_as_root(name: str) -> None:
    user = service(name).get("user") or image_user()
    assert re.fullmatch(r"[1-9]\d*:\d+", user)


def image_user() -> str:
    """The user of our own images: the last USER of the Dockerfile, which both end with."""
    users: list[str] = re.findall(r"(?m)^USER (\S+)", (ROOT / "Dockerfile").read_text(encoding="utf-8"))
    return users[-1]


def test_a_one_shot_service_is_waited_for_by_what_needs_its_work() -> None:
    for name, one in stack()["services"].items():
        for other, condition in one.get("depends_on", {}).items():
            wanted = "service_completed_successfully" if other in ONCE else "service_healthy"
            if (name, other) == ("setup", "worker"):  # what it waits for itself is the worker's first version
                wanted = "service_started"
            assert condition["condition"] == wanted, f"{name} waits for {other}"


def test_a_job_has_a_minute_to_end() -> None:
    assert service("worker")["stop_grace_period"] == "1m0s"


def test_the_file_holds_no_secret() -> None:
    for name, one in stack()["services"].items():
        for key, value in one.get("environment", {}).items():
            if re.search(r"PASSWORD|TOKEN|SECRET|API_KEY|DSN", key):
                # A switch, empty, or the path of a file that the stack makes itself.
                assert value in ("", "true", "false") or value.startswith("/secrets/"), f"{name}: {key}"


def test_the_groups_that_read_secrets_are_those_they_are_written_for() -> None:
    for name in ("postgres", "redis", "label-studio", "grafana", "prometheus"):
        assert service(name)["group_add"] == [str(GROUPS[name])]
    assert service("secrets")["group_add"] == [str(group) for group in GROUPS.values()]
    assert image_user() == f"{GROUPS['carcond']}:{GROUPS['carcond']}"


@pytest.mark.parametrize(
    "name", ["postgres", "redis", "label-studio", "backend", "worker", "finetune", "demo", "databases"]
)
def test_secrets_are_mounted_read_only(name: str) -> None:
    mount = next(volume for volume in service(name)["volumes"] if volume["target"] == "/secrets")
    assert mount["read_only"]


def test_databases_and_jobs_are_on_a_network_without_a_way_out() -> None:
    assert stack()["networks"]["data"]["internal"]
    assert list(service("postgres")["networks"]) == ["data"]
    assert list(service("redis")["networks"]) == ["data"]


def test_label_studio_may_call_the_backends_network_which_secrets_is_told() -> None:
    subnet = stack()["networks"]["web"]["ipam"]["config"][0]["subnet"]
    assert ipaddress.ip_network(subnet).is_private
    assert service("secrets")["environment"]["CARCOND_SUBNET"] == subnet
    assert service("label-studio")["environment"]["USE_DEFAULT_BANNED_SUBNETS"] == "false"


def test_the_backend_has_a_name_with_a_dot() -> None:
    assert service("backend")["networks"]["web"]["aliases"] == ["backend.carcond.internal"]


def test_the_demo_asks_the_backend_by_that_name() -> None:
    (alias,) = service("backend")["networks"]["web"]["aliases"]
    assert service("demo")["environment"]["CARCOND_BACKEND_URL"] == f"http://{alias}:9090"
    assert service("demo")["environment"].items() > service("backend")["environment"].items()


def test_copies_of_backend_and_worker_do_not_fight_for_a_port_or_a_name() -> None:
    for name in ("backend", "worker"):
        assert "ports" not in service(name)
        assert "container_name" not in service(name)


def test_label_studio_is_the_release_that_is_tested() -> None:
    assert service("label-studio")["image"] == f"heartexlabs/label-studio:{LABEL_STUDIO_VERSION}"


def test_every_image_that_is_pulled_has_a_full_version() -> None:
    ours = ("carcond:", "carcond-training:", "carcond-demo:")
    pulled = [one["image"] for one in stack()["services"].values() if not one["image"].startswith(ours)]
    assert all(re.search(r":v?\d+\.\d+(\.\d+)?(-|$)", image) for image in pulled), pulled


def test_nothing_is_reported_to_anyone() -> None:
    environment = service("label-studio")["environment"]
    assert (environment["SENTRY_DSN"], environment["FRONTEND_SENTRY_DSN"]) == ("", "")
    assert environment["COLLECT_ANALYTICS"] == "false"


def test_photos_are_mounted_read_only_where_both_look_for_them() -> None:
    for name in ("label-studio", "setup"):
        mount = next(volume for volume in service(name)["volumes"] if volume["target"].endswith("/photos"))
        assert mount["read_only"]
        assert mount["target"] == "/label-studio/files/photos"


def test_the_dockerfile_passes_its_lint() -> None:
    done = subprocess.run(
        [str(Path(sys.executable).with_name("hadolint")), "--failure-threshold", "info", "Dockerfile"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "")


def test_the_dockerfile_asks_for_no_other_frontend() -> None:
    """A `# syntax=` line would fetch one more image before anything is built."""
    assert "syntax=" not in (ROOT / "Dockerfile").read_text(encoding="utf-8")
