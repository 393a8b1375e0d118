"""The end-to-end probe, and readiness, on the real stack."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

from scripts.stack import Stack
from tests.e2e.scenario import wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(600)]

STEPS = ["project", "photo", "pre-label", "label", "order", "removal"]


def probe(stack: Stack, *options: str) -> subprocess.CompletedProcess[str]:
    """Run the command beside the stack."""
    command = [str(Path(sys.executable).with_name("carcond")), "probe", *options]
    return subprocess.run(command, env=stack.environment, capture_output=True, text=True, check=False, timeout=300)


def projects(stack: Stack) -> dict[int, dict[str, Any]]:
    """All projects, with all that Label Studio says of them."""
    rows = stack.api().request("GET", "/api/projects/", params={"page_size": 100})["results"]
    return {row["id"]: row for row in rows}


def test_the_whole_stack_is_ready(stack: Stack) -> None:
    def ready() -> httpx.Response:
        return httpx.get(f"{stack.backend_address.url}/ready", timeout=10)

    wait_until(lambda: ready().status_code == 200, "the worker to report for the first time", 60)
    checks = ready().json()["checks"]
    assert checks == {name: {"ok": True} for name in ("worker", "redis", "store", "registry", "label_studio")}


def test_a_probe_takes_all_steps_twice_touches_no_other_project_and_is_removed(stack: Stack) -> None:
    other = stack.api().request("POST", "/api/projects/", json={"title": "carcond probe"})["id"]  # a person's
    before = projects(stack)
    for _ in range(2):
        done = probe(stack, "--json", "--backend", stack.backend_address.url)
        assert done.returncode == 0, done.stderr
        report = json.loads(done.stdout)
        assert (report["ok"], list(report["seconds"])) == (True, STEPS)
    added = projects(stack).keys() - before.keys()
    assert added == {report["project"]}
    assert projects(stack)[report["project"]]["task_number"] == 7
    assert stack.api().project(report["project"]).labelled_count == 6  # of which `carcond_unlearned_labels` is made
    address = stack.backend_address
    metrics = httpx.get(f"{address.url}/metrics", auth=(address.user, address.password), timeout=30).text
    assert f'carcond_unlearned_labels{{project="{report["project"]}"}} 0.0' in metrics
    assert probe(stack, "--remove").stdout == f"removed project {report['project']}\n"
    assert probe(stack, "--remove").stdout == "there is no project to remove\n"
    after = projects(stack)
    assert after.keys() == before.keys()
    assert after[other] == before[other]
    stack.api().request("DELETE", f"/api/projects/{other}/")
