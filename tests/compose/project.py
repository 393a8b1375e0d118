"""The stack under check: Compose commands, its containers and its versions, for `scripts/check_compose`."""

import json
import os
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.compose.annotator import Annotator
from tests.compose.engine import CheckError, Engine

# Timeout in seconds after which something is broken rather than slow.
PATIENCE_S = 240
ONCE = ("secrets", "databases", "encoder", "setup")
_PORT = 18080
_PROMETHEUS_PORT = 19091
_DEMO_PORT = 18501
# Reads, in the worker's container, the serving version, and the task ids that the newest one was fitted on.
_VERSIONS = """
import gzip, json, pathlib, sys
home = pathlib.Path('/models/projects') / sys.argv[1]
current = home / 'current'
newest = max((path for path in home.glob('versions/*') if path.name.isdigit()), default=None)
rows = gzip.open(newest / 'labels.jsonl.gz', 'rt') if newest else []
print(json.dumps({
    'serving': 'carcond-' + (current.read_text().strip() if current.exists() else '0000'),
    'tasks': sorted(json.loads(row)['task'] for row in rows),
}))
"""


@dataclass(frozen=True)
class Versions:
    """The versions of a project: which one serves, and the tasks whose labels the newest was fitted and measured on."""

    serving: str
    tasks: list[int]


@dataclass(frozen=True)
class Container:
    """One container: its service, and its state from the engine."""

    service: str
    id: str
    state: dict[str, Any]

    @property
    def pid(self) -> int:
        """Id of its first process, on this machine."""
        return int(self.state["Pid"])

    @property
    def is_well(self) -> bool:
        """True if it is running, and healthy by its own check."""
        return bool(self.state["Running"]) and self.state.get("Health", {}).get("Status") == "healthy"


class ComposeProject:
    """The stack of one checkout."""

    def __init__(self, engine: Engine, checkout: Path, pip_config: Path) -> None:
        self.engine = engine
        self.checkout = checkout
        self.url = f"http://127.0.0.1:{_PORT}"
        self.prometheus_url = f"http://127.0.0.1:{_PROMETHEUS_PORT}"
        self.demo_url = f"http://127.0.0.1:{_DEMO_PORT}"
        self._settings = {
            "COMPOSE_PROJECT_NAME": "carcond-check",
            "CARCOND_PORT": str(_PORT),
            "CARCOND_PROMETHEUS_PORT": str(_PROMETHEUS_PORT),
            "CARCOND_DEMO_PORT": str(_DEMO_PORT),
            "CARCOND_PIP_CONFIG": str(pip_config),
            "CARCOND_TAG": "check",
            "COMPOSE_PROGRESS": "plain",
        }

    def compose(self, *arguments: str, check: bool = True) -> str:
        """Run `docker compose` and return its standard output."""
        command = ["docker", "compose", *arguments]
        return self.engine.run(command, check=check, cwd=self.checkout, **self._settings).stdout

    def up(self, *options: str) -> None:
        """Bring everything up, and wait until all is healthy and the one-shot services have ended.

        Raises:
            CheckError: something is not healthy; the message has the end of its log.
        """
        try:
            # Without --wait: to that, a one-shot which ends well while another service is waited for is a failure.
            self.compose("up", "-d", "--pull", "never", *options)
            self.wait_for(self._is_set_up, 300, "the one-shot services to end well")
            self.wait_for(self.is_well, 300, "all to be healthy")
        except CheckError as error:
            raise CheckError(f"{error}\n{self.compose('logs', '--no-color', '--tail', '15')}") from error

    def _is_set_up(self) -> bool:
        states = [container.state for container in self.containers() if container.service in ONCE]
        failed = [state for state in states if state["Status"] == "exited" and state["ExitCode"] != 0]
        if failed:
            raise CheckError("a one-shot service failed")
        return all(state["Status"] == "exited" for state in states)

    def containers(self) -> list[Container]:
        """All containers, the ended ones too."""
        ids = self.compose("ps", "-a", "-q").split()
        rows = json.loads(self.engine.output(["docker", "inspect", *ids])) if ids else []
        label = "com.docker.compose.service"
        return [Container(row["Config"]["Labels"][label], row["Id"], row["State"]) for row in rows]

    def servers(self, service: str = "") -> list[Container]:
        """Containers of long-running services."""
        return [c for c in self.containers() if c.service not in ONCE and service in ("", c.service)]

    def is_well(self) -> bool:
        """True if every server is healthy."""
        return all(container.is_well for container in self.servers())

    def is_busy(self, service: str) -> bool:
        """True if a service's first container has a child process, as a worker has during a job."""
        pid = self.servers(service)[0].pid
        return bool(Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="utf-8").strip())

    def kill(self, service: str) -> None:
        """Kill the first process of one container of a service, as a crash would: by its id, without the engine."""
        os.kill(self.servers(service)[0].pid, signal.SIGKILL)

    def wait_for(self, is_done: Any, patience_s: float, what: str) -> float:
        """Poll, and return the waiting time in seconds.

        Raises:
            CheckError: it took too long.
        """
        start = time.monotonic()
        while not is_done():
            if time.monotonic() - start > patience_s:
                raise CheckError(f"waited {patience_s:.0f} s for {what}")
            time.sleep(0.5)
        return time.monotonic() - start

    def secret(self, name: str) -> str:
        """Secret from the stack's volume, as passed to the services in the environment."""
        text = self.compose("exec", "-T", "backend", "cat", "/secrets/carcond/environment")
        line = next(line for line in text.splitlines() if line.startswith(f"export {name}="))
        return line.split("'")[1]

    def versions(self, project_id: int) -> Versions:
        """Versions that the worker has fitted on the labels."""
        return Versions(**json.loads(self.compose("exec", "-T", "worker", "python3", "-c", _VERSIONS, str(project_id))))

    def wait_until_learned(self, annotator: Annotator) -> float:
        """Wait until the newest version has exactly Label Studio's labels, each once, and the serving one is published.

        Returns:
            The waiting time in seconds.

        Raises:
            CheckError: it took too long.
        """

        def is_learned() -> bool:
            versions = self.versions(annotator.project_id)
            return versions.tasks == annotator.labelled() and versions.serving == annotator.version()

        return self.wait_for(is_learned, PATIENCE_S, "the newest version to know all labels")

    def run_script(self, name: str, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a script of the checkout on this stack."""
        command = [str(self.checkout / "scripts" / name), *arguments]
        return self.engine.run(command, check=check, cwd=self.checkout, **self._settings)
