"""The commands of docs/existing-project.md, run as they stand there beside a real Label Studio."""

import re
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from carcond.data.synthetic_photos import draw_samples
from scripts.oracle import Oracle, read_truth
from scripts.ports import free_ports
from scripts.processes import ManagedProcess
from scripts.redis_server import answers, find_server
from scripts.stack import CHECKOUT, Stack
from tests.e2e.scenario import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.e2e]

PAGE = (CHECKOUT / "docs" / "existing-project.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"```bash\n(.*?)\n```", PAGE, re.DOTALL)
SETTINGS = dict(re.findall(r"^([A-Z_]+)=(.*)$", re.findall(r"```ini\n(.*?)\n```", PAGE, re.DOTALL)[0], re.MULTILINE))


class Machine:
    """A person's shell in a fresh folder, with the page's settings filled in."""

    def __init__(self, stack: Stack, folder: Path, project_id: int) -> None:
        self.folder, self.project_id = folder, project_id
        self.backend_host = stack.backend_host  # the one that this Label Studio may call
        self.backend_port, self.redis_port = free_ports(2)
        filled = {
            "LABEL_STUDIO_URL": stack.label_studio_url,
            "LABEL_STUDIO_API_KEY": stack.api_key,
            "REDIS_URL": f"redis://127.0.0.1:{self.redis_port}/0",
            "DATABASE_URL": f"sqlite:///{folder}/data/carcond.sqlite3",
            "CARCOND_MODELS_DIR": stack.environment["CARCOND_MODELS_DIR"],  # the encoder is there already
            "CARCOND_BIND": f"{stack.backend_host}:{self.backend_port}",
        }
        (folder / "carcond.env").write_text(
            "".join(f"{name}={value}\n" for name, value in (SETTINGS | filled).items()), encoding="utf-8"
        )
        (folder / ".venv").symlink_to(CHECKOUT / ".venv")
        (folder / "redis-server").symlink_to(find_server())
        self._running = ExitStack()

    def line(self, words: str) -> str:
        """The page's shortest command with these words, for this project and after the settings are read."""
        command = min((c for c in COMMANDS if words in c), key=len)
        command = re.sub(r"--project 5\b", f"--project {self.project_id}", command)
        command = command.replace("--port 6379", f"--port {self.redis_port}")
        (settings,) = (c for c in COMMANDS if "carcond.env" in c)
        return f"{settings}\n{command}"

    def run(self, words: str, more: str = "") -> subprocess.CompletedProcess[str]:
        script = f"PATH=$PWD:$PATH\n{self.line(words)} {more}"
        return subprocess.run(["bash", "-c", script], cwd=self.folder, capture_output=True, text=True, check=False)

    def serve(self, name: str, words: str) -> None:
        process = ManagedProcess(
            name=name,
            command=["bash", "-c", f"PATH=$PWD:$PATH\n{self.line(words)}"],
            environment={"PATH": "/usr/bin:/bin", "HOME": str(self.folder), "PYTHONPATH": str(CHECKOUT)},
            log_path=self.folder / f"{name}.log",
            working_dir=self.folder,
        )
        process.start()
        self._running.callback(process.kill)

    def stop(self) -> None:
        self._running.close()


@pytest.fixture
def machine(stack: Stack, tmp_path: Path) -> Iterator[Machine]:
    body = {"title": "as the page says", "label_config": _CONFIG, "sampling": "Sequential sampling"}
    project_id = int(stack.api().request("POST", "/api/projects/", json=body)["id"])
    photos = tmp_path / "page-photos"
    draw_samples(photos, 20, seed=5, labels=True)
    stack.import_photos(project_id, photos)
    oracle = Oracle(stack.api(), project_id, read_truth(photos / "labels.csv"))
    for _ in range(10):
        oracle.label_next()
    home = tmp_path / "home"
    home.mkdir()
    made = Machine(stack, home, project_id)
    yield made
    made.stop()


_CONFIG = """<View><Image name="photo" value="$image"/>
  <Choices name="state" toName="photo"><Choice value="Целый"/><Choice value="Битый"/></Choices></View>"""


def test_the_pages_commands_connect_a_project_and_take_it_back(stack: Stack, machine: Machine) -> None:
    machine.serve("redis", "redis-server")
    wait_until(lambda: answers(f"redis://127.0.0.1:{machine.redis_port}/0"), "Redis", 30)
    assert machine.run("carcond encoder").returncode == 0
    machine.serve("backend", "gunicorn")
    machine.serve("worker", "backend.worker")
    url = f"http://{machine.backend_host}:{machine.backend_port}/health"
    wait_until(lambda: _is_up(url), "the backend", 60)

    planned = machine.run("--dry-run")
    assert planned.returncode == 0, planned.stderr
    assert "the label config does not ask for cleanliness" in planned.stdout
    connected = machine.run("connect --project 5", "--yes")
    assert connected.returncode == 0, connected.stderr
    wait_until(lambda: stack.api().project(machine.project_id).model_version > "carcond-0000", "a version")

    undone = machine.run("--undo", "--yes")
    assert undone.returncode == 0, undone.stderr
    assert stack.api().project(machine.project_id).sampling == "Sequential sampling"
    assert "make-one-up" not in planned.stdout + connected.stdout + undone.stdout


def _is_up(url: str) -> bool:
    try:
        return httpx.get(url, trust_env=False).is_success
    except httpx.HTTPError:
        return False
