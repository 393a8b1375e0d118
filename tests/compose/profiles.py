"""Checks of `scripts/check_compose` for the services with a profile: monitoring, fine-tuning, demo."""

import json
import urllib.error
import urllib.parse
import urllib.request
from base64 import b64encode
from pathlib import Path
from typing import Any

from tests.compose.project import PATIENCE_S, ComposeProject
from tests.compose.report import Report, expect

# Passes the passwords to commands, as it does to the services.
_ENTRYPOINT = ("/opt/code/docker/entrypoint",)
# Requests a prediction of a drawn picture from the backend, as the page does.
_ASK = """
import pathlib, sys
from backend.dashboard.condition_client import ask_condition
from carcond.data.synthetic_photos import draw_samples
from carcond.settings import get_settings
(picture,) = draw_samples(pathlib.Path('/tmp/drawn'), 1, seed=0)
print(ask_condition(get_settings(), int(sys.argv[1]), picture.read_bytes(), 'en').model_dump_json())
"""
_DASHBOARD = Path("docker/monitoring/grafana/dashboards/carcond.json")


def check_profiles(project: ComposeProject, project_id: int, report: Report) -> None:
    """Start the services with a profile, check that they work, and remove them again. Two backends run before.

    Raises:
        CheckError: one does not work.
    """
    with report.check("Prometheus scrapes both backends, and evaluates dashboard and alerts") as found:
        _check_monitoring(project, found)
    with report.check("profile `finetune`: a training begins, and ends when it is cancelled") as found:
        _check_finetune(project, project_id, found)
    with report.check("profile `demo`: whoever knows the password sees the page, which gets answers") as found:
        _check_demo(project, project_id, found)


def check_processes(project: ComposeProject) -> int:
    """Check that no process of a server is root, has a capability, or can gain one, and return their number.

    Raises:
        CheckError: one is, has, or can.
    """
    count = 0
    for container in project.servers():
        top = project.engine.output(["docker", "top", container.id, "-eo", "pid"])
        for pid in top.split()[1:]:
            try:
                text = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
            except FileNotFoundError:  # a health check, say, that has ended since
                continue
            status = dict(line.split(":\t", 1) for line in text.splitlines() if ":\t" in line)
            expect("0" not in status["Uid"].split(), f"{container.service} runs as root")
            expect(int(status["CapEff"], 16) == 0, f"{container.service} has capabilities")
            expect(status["NoNewPrivs"] == "1", f"{container.service} may gain privileges")
            count += 1
    return count


def _check_monitoring(project: ComposeProject, found: list[str]) -> None:
    """Grafana has no stand-in; its dashboard's queries are run here."""
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
    firing = [rule["name"] for rule in rules if rule.get("state") == "firing"]  # recording rules have none
    expect(answered == len(queries), f"{len(queries) - answered} of {len(queries)} queries have no answer")
    expect(bool(rules) and not faulty, f"alerts that cannot be evaluated: {faulty}, of {len(rules)}")
    check_processes(project)
    found.append(f"{answered} queries answered, {len(rules)} rules evaluated, firing: {', '.join(firing) or 'none'}")
    project.compose("--profile", "monitoring", "rm", "--stop", "--force", "prometheus")
    project.up("--no-recreate", "--scale", "worker=1", "--scale", "backend=1")


def _check_finetune(project: ComposeProject, project_id: int, found: list[str]) -> None:
    def command(*options: str) -> dict[str, Any]:
        words = ("carcond", "finetune", "--project", str(project_id), "--json", *options)
        facts: dict[str, Any] = json.loads(project.compose("exec", "-T", "backend", *_ENTRYPOINT, *words))
        return facts

    project.compose("--profile", "finetune", "up", "-d", "--no-recreate", "--wait", "finetune")
    processes = check_processes(project)
    command()
    began = project.wait_for(lambda: command("--status").get("epoch", 0) >= 1, PATIENCE_S, "an epoch of training")
    command("--cancel")
    ended = project.wait_for(lambda: command("--status")["state"] == "cancelled", PATIENCE_S, "the training to end")
    found.append(f"an epoch after {began:.0f} s, ended {ended:.0f} s after that, {processes} processes")
    project.compose("--profile", "finetune", "rm", "--stop", "--force", "finetune")


def _check_demo(project: ComposeProject, project_id: int, found: list[str]) -> None:
    project.compose("--profile", "demo", "up", "-d", "--no-recreate", "--wait", "demo")
    processes = check_processes(project)
    status, _ = _read_page(project.demo_url, "")
    expect(status == 401, f"without a password the page answers {status}")
    name, password = (project.secret(f"CARCOND_BASIC_AUTH_{part}") for part in ("USER", "PASSWORD"))
    status, page = _read_page(project.demo_url, f"{name}:{password}")
    expect(status == 200 and "<title>" in page, f"with the password the page answers {status}: {page[:200]}")
    answer = json.loads(project.compose("exec", "-T", "demo", *_ENTRYPOINT, "python3", "-c", _ASK, str(project_id)))
    found.append(f"401 without, 200 with it; of a drawing it is told {sorted(answer)}; {processes} processes")
    project.compose("--profile", "demo", "rm", "--stop", "--force", "demo")


def _read_page(url: str, credentials: str) -> tuple[int, str]:
    words = b64encode(credentials.encode()).decode()
    request = urllib.request.Request(url, headers={"Authorization": f"Basic {words}"} if credentials else {})  # noqa: S310
    try:
        with urllib.request.urlopen(request, timeout=20) as response:  # noqa: S310 - its own address
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, ""
