"""What `scripts/check_compose` does to the running stack: labelling, faults, copies, monitoring, restart, backup."""

import json
import os
import time
import urllib.error
import urllib.parse
import urllib.request
from base64 import b64encode
from pathlib import Path
from typing import Any

from scripts.compose_annotator import Annotator
from scripts.compose_faults import check_faults
from scripts.compose_project import PATIENCE_S, ComposeProject
from scripts.compose_report import Report, expect, expect_bar

_UP_BAR_S = 120
# Less than the minute after which the worker looks by itself: so it was the webhook that told it.
_EVENT_BAR_S = 20
_DASHBOARD = Path("docker/monitoring/grafana/dashboards/carcond.json")


def check_running(project: ComposeProject, report: Report) -> None:
    """Bring the stack up, check it, and leave it running.

    Raises:
        CheckError: it does not do what it has to do.
    """
    project.compose("--profile", "*", "down", "--volumes", "--timeout", "3", check=False)
    with report.check(f"bare clone to all healthy and set up, images at hand, under {_UP_BAR_S} s") as found:
        start = time.monotonic()
        project.up()
        took = time.monotonic() - start
        found.append(f"load average of the machine {os.getloadavg()[0]:.0f}")
        expect_bar(took < _UP_BAR_S, f"longer than {_UP_BAR_S} s")
    with report.check("no process is root, has a capability, or can gain one") as found:
        found.append(f"{_check_processes(project)} processes")
    annotator = Annotator(project.url, project.secret("LABEL_STUDIO_API_KEY"))
    with report.check("label 12 photos: the version moves, and knows all labels") as found:
        _label_and_learn(project, annotator, found, 12)
    with report.check("Label Studio's users cannot make it call PostgreSQL, Redis or this machine"):
        for url in ("http://postgres:5432", "http://redis:6379", "http://127.0.0.1:8080", "http://172.17.0.1:22"):
            expect(annotator.is_refused(url), f"Label Studio would call {url}")
    check_faults(project, annotator, report)
    with report.check("four workers and two backends: nothing lost or doubled, one of each killed") as found:
        _check_scale(project, annotator, found)
    with report.check("Prometheus scrapes both backends, and evaluates dashboard and alerts") as found:
        _check_monitoring(project, found)
    with report.check("profiles `finetune` and `demo`: the worker is alive, the page asks for a password") as found:
        _check_profiles(project, found)
    with report.check("down and up: labels and version kept") as found:
        _check_restart(project, annotator, found)
    with report.check("setup again changes nothing"):
        before = len(annotator.predictions())
        project.compose("run", "--rm", "setup")
        expect(len(annotator.predictions()) == before, "tasks were added or lost")
    with report.check("backup, forget everything, restore: labels and version are back") as found:
        _check_backup(project, annotator, found)


def _check_processes(project: ComposeProject) -> int:
    count = 0
    for container in project.servers():
        top = project.engine.output(["docker", "top", container.id, "-eo", "pid"])
        for pid in top.split()[1:]:
            text = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
            status = dict(line.split(":\t", 1) for line in text.splitlines() if ":\t" in line)
            expect("0" not in status["Uid"].split(), f"{container.service} runs as root")
            expect(int(status["CapEff"], 16) == 0, f"{container.service} has capabilities")
            expect(status["NoNewPrivs"] == "1", f"{container.service} may gain privileges")
            count += 1
    return count


def _label_and_learn(project: ComposeProject, annotator: Annotator, found: list[str], count: int) -> None:
    before = annotator.version()
    annotator.label(count)
    took = project.wait_until_learned(annotator)
    after = annotator.version()
    expect(after != before, f"the version stayed {before}")
    found.append(f"{before} to {after}, all labels known {took:.1f} s after the last")
    expect_bar(took < _EVENT_BAR_S, f"learned after {took:.0f} s")


def _check_scale(project: ComposeProject, annotator: Annotator, found: list[str]) -> None:
    project.up("--no-recreate", "--scale", "worker=4", "--scale", "backend=2")
    count = len(project.servers("worker")), len(project.servers("backend"))
    expect(count == (4, 2), f"expected 4 workers and 2 backends, got {count}")
    annotator.label(4)
    project.kill("worker")
    project.kill("backend")
    annotator.label(4)
    project.wait_for(project.is_well, PATIENCE_S, "all to be healthy again")
    learned = project.wait_until_learned(annotator)
    total = annotator.check_nothing_lost()
    doubled = {task: n for task, n in annotator.predictions().items() if n > 1}
    expect(not doubled, f"tasks with more than one prediction: {doubled}")
    found.append(f"all {total} labels known {learned:.1f} s after healing, at most one prediction for each task")


def _check_monitoring(project: ComposeProject, found: list[str]) -> None:
    """Grafana has no stand-in; what its dashboard asks for is asked here."""
    project.compose("--profile", "monitoring", "up", "-d", "--no-recreate", "--no-deps", "--wait", "prometheus")

    def ask(path: str, **query: str) -> Any:
        url = f"{project.prometheus_url}/api/v1/{path}?{urllib.parse.urlencode(query)}"
        with urllib.request.urlopen(url, timeout=20) as response:  # noqa: S310 - its own address
            return json.load(response)["data"]

    def are_scraped() -> bool:
        rows = ask("query", query='count(up{job="carcond"} == 1) and count(rate(carcond_http_requests_total[1m])) > 0')[
            "result"
        ]
        return [row["value"][1] for row in rows] == ["2"]

    project.wait_for(are_scraped, PATIENCE_S, "Prometheus to scrape both backends twice")
    dashboard = json.loads((project.checkout / _DASHBOARD).read_text(encoding="utf-8"))
    queries = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    answered = sum(bool(ask("query", query=query)["result"]) for query in queries)
    rules = [rule for group in ask("rules")["groups"] for rule in group["rules"]]
    faulty = [rule["name"] for rule in rules if rule["health"] == "err"]
    firing = [rule["name"] for rule in rules if rule["state"] == "firing"]
    expect(answered == len(queries), f"{len(queries) - answered} of {len(queries)} queries have no answer")
    expect(bool(rules) and not faulty, f"alerts that cannot be evaluated: {faulty}, of {len(rules)}")
    _check_processes(project)
    found.append(f"{answered} queries answered, {len(rules)} alerts evaluated, firing: {', '.join(firing) or 'none'}")
    project.compose("--profile", "monitoring", "rm", "--stop", "--force", "prometheus")
    project.up("--no-recreate", "--scale", "worker=1", "--scale", "backend=1")


def _check_profiles(project: ComposeProject, found: list[str]) -> None:
    profiles = ("--profile", "finetune", "--profile", "demo")
    project.compose(*profiles, "up", "-d", "--no-recreate", "--wait", "finetune", "demo")
    status, _ = _read_page(project.demo_url, "")
    expect(status == 401, f"without a password the page answers {status}")
    name, password = (project.secret(f"CARCOND_BASIC_AUTH_{part}") for part in ("USER", "PASSWORD"))
    status, page = _read_page(project.demo_url, f"{name}:{password}")
    expect(status == 200 and "<title>" in page, f"with the password the page answers {status}: {page[:200]}")
    found.append(f"{_check_processes(project)} processes, none of them root")
    project.compose(*profiles, "rm", "--stop", "--force", "finetune", "demo")


def _read_page(url: str, credentials: str) -> tuple[int, str]:
    words = b64encode(credentials.encode()).decode()
    request = urllib.request.Request(url, headers={"Authorization": f"Basic {words}"} if credentials else {})  # noqa: S310
    try:
        with urllib.request.urlopen(request, timeout=20) as response:  # noqa: S310 - its own address
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, ""


def _check_restart(project: ComposeProject, annotator: Annotator, found: list[str]) -> None:
    version = annotator.version()
    project.compose("down")
    start = time.monotonic()
    project.up()
    took = time.monotonic() - start
    found.append(f"up in {took:.0f} s, {_check_all_is_back(project, annotator, version)}")


def _check_all_is_back(project: ComposeProject, annotator: Annotator, version: str) -> str:
    """See that labels and version are those of before and that labelling goes on."""
    total = annotator.check_nothing_lost()
    learned = project.wait_until_learned(annotator)
    expect(annotator.version() >= version, f"the version went back from {version} to {annotator.version()}")
    annotator.label(1)
    project.wait_until_learned(annotator)
    return f"{total} labels kept, known {learned:.1f} s later, labelling goes on"


def _check_backup(project: ComposeProject, annotator: Annotator, found: list[str]) -> None:
    backup = project.engine.work / "backup.tar"
    backup.unlink(missing_ok=True)
    version = annotator.version()
    start = time.monotonic()
    project.run_script("compose_backup", str(backup))
    found.append(f"backup of {backup.stat().st_size / 1e6:.0f} MB in {time.monotonic() - start:.0f} s")
    expect(backup.stat().st_mode & 0o777 == 0o600, "others can read the backup")
    refused = project.run_script("compose_restore", str(backup), check=False)
    expect(refused.returncode == 1 and "has data already" in refused.stderr, "a stack with data was restored over")
    project.compose("--profile", "*", "down", "--volumes")
    start = time.monotonic()
    project.run_script("compose_restore", str(backup))
    found.append(f"restored in {time.monotonic() - start:.0f} s")
    project.up()
    found.append(_check_all_is_back(project, annotator, version))
    backup.unlink()
