"""Redis, Label Studio, the backend and its workers on this machine, started and stopped together."""

import hashlib
import hmac
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

from backend.jobs.queue import FINETUNES
from backend.label_studio.backend_address import BackendAddress
from backend.label_studio.client import LabelStudioApi
from backend.label_studio.provision import PROJECT_TITLE, ProvisionReport, follow_backend, provision
from carcond.files import replace_text
from carcond.settings import Settings, check_redis_url, variable_name
from scripts import label_studio_server, redis_server
from scripts.credentials import Credentials, check_secrets, load_credentials
from scripts.label_studio_install import default_label_studio_venv, install
from scripts.photo_import import import_photos, link_folder
from scripts.preflight import DataLock, StackError, check_disk, check_port, make_directory
from scripts.processes import ManagedProcess
from scripts.reach import EVERYWHERE, LOOPBACK, backend_address, listening_address

CHECKOUT = Path(__file__).resolve().parents[1]
RUN_MIB = 500
# The first start makes Label Studio's database: 40 s on two cores, more on a busy or slow machine.
_LABEL_STUDIO_PATIENCE_S = 300.0
_BACKEND_PATIENCE_S = 120.0
# Writes to a Label Studio on PostgreSQL at a time, as in docker-compose.yml: docs/queue.md has the measurements.
_POSTGRES_CONNECTIONS = "4"


@dataclass(frozen=True)
class StackOptions:
    """Options of a stack.

    Attributes:
        data_dir: databases, models, links to photos, logs and passwords, which a later start reuses.
        label_studio_port: of Label Studio, the page that people open.
        backend_port: of the backend.
        redis_port: of Redis, when the stack starts its own.
        redis_url: a running Redis to use instead; empty, or an address of the stack's own, for none.
        label_studio_postgres: address of a PostgreSQL database for Label Studio; empty for SQLite in `data_dir`.
        models_dir: home of encoders and model versions; None for a folder in `data_dir`.
        label_studio_venv: environment of Label Studio.
        extra_environment: further settings of backend and worker.
        host: name or address by which other machines reach Label Studio; empty to keep it to this machine. All else
            answers this machine only in any case.
    """

    data_dir: Path
    label_studio_port: int = 8080
    backend_port: int = 9090
    redis_port: int = 6390
    redis_url: str = field(default="", repr=False)
    label_studio_postgres: str = field(default="", repr=False)
    models_dir: Path | None = None
    label_studio_venv: Path = field(default_factory=default_label_studio_venv)
    extra_environment: Mapping[str, str] = field(default_factory=dict)
    host: str = ""


def _be_silent(message: str) -> None:
    pass


def with_demo_token(named: str, token: str) -> str:
    """The applications of `CARCOND_API_TOKENS`, and the demo.

    A shell that has read a stack's settings has the demo already, perhaps another stack's: this one replaces it.
    """
    others = [each for each in named.split(",") if each.strip() and not each.strip().startswith("demo:")]
    return ",".join([*others, f"demo:{hashlib.sha256(token.encode()).hexdigest()}"])


def foreign_redis(named: str, credentials: Credentials) -> str:
    """The Redis of `REDIS_URL`; empty when that is the stack's own, which it starts itself.

    A shell that has read a stack's settings has its `REDIS_URL`, recognised by its password.

    Raises:
        StackError: it is not an address of Redis.
    """
    if not named or f":{credentials.redis_password}@" in named:
        return ""
    try:
        return check_redis_url(named)
    except ValueError as error:
        raise StackError(f"REDIS_URL: {error}") from None


class Stack:
    """The five servers.

    Attributes:
        options: of the start.
        credentials: passwords and tokens of its data folder.
        label_studio_url: Label Studio for programs on this machine.
        browser_url: Label Studio for people; the same unless other machines reach it.
        backend_host: loopback address of the backend, the one inner address that Label Studio may call.
        backend_url: the backend for Label Studio. Programs of this machine reach it at 127.0.0.1 too.
    """

    def __init__(self, options: StackOptions, say: Callable[[str], None] = _be_silent) -> None:
        self.options = options
        self._say = say
        self._address = listening_address(options.host) if options.host else LOOPBACK
        here = LOOPBACK if self._address == EVERYWHERE else self._address
        self.label_studio_url = f"http://{here}:{options.label_studio_port}"
        self.browser_url = f"http://{options.host or LOOPBACK}:{options.label_studio_port}"
        self.backend_host = backend_address()
        self.backend_url = f"http://{self.backend_host}:{options.backend_port}"
        self._data = make_directory(options.data_dir.absolute())
        self._logs = make_directory(self._data / "logs")
        self._photos = make_directory(self._data / "photos")
        self._lock = DataLock(self._data)
        self._lock.acquire()
        self.credentials: Credentials = load_credentials(self._data)
        self._foreign_redis = foreign_redis(options.redis_url, self.credentials)
        self._processes: dict[str, ManagedProcess] = {}
        self._api: LabelStudioApi | None = None

    def __enter__(self) -> Self:
        """Start all servers."""
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop all servers."""
        self.stop()

    @property
    def api_key(self) -> str:
        """Label Studio's token for programs."""
        return self.credentials.label_studio_token

    @property
    def redis_url(self) -> str:
        """The Redis in use, password included."""
        return (
            self._foreign_redis or f"redis://:{self.credentials.redis_password}@127.0.0.1:{self.options.redis_port}/0"
        )

    @property
    def backend_address(self) -> BackendAddress:
        """URL and credentials with which Label Studio calls the backend."""
        return BackendAddress(self.backend_url, self.credentials.backend_user, self.credentials.backend_password)

    @property
    def logs_dir(self) -> Path:
        """Folder of the servers' logs."""
        return self._logs

    @property
    def photos_root(self) -> Path:
        """The folder with links to photo folders, from which Label Studio serves."""
        return self._photos

    @property
    def is_open_everywhere(self) -> bool:
        """True if Label Studio listens on all addresses of this machine."""
        return self._address == EVERYWHERE

    @property
    def pids(self) -> dict[str, int]:
        """Process ids of the servers that run: redis, label-studio, backend, worker, finetune-worker."""
        return {name: process.pid for name, process in self._processes.items() if process.pid is not None}

    @property
    def settings(self) -> dict[str, str]:
        """The settings of backend and worker, and of `carcond` commands about this stack, secrets included."""
        names = (variable_name(setting) for setting in Settings.model_fields)
        given = {name: os.environ[name] for name in names if os.environ.get(name)}
        return {
            **({"CARCOND_PUBLISH_CONNECTIONS": _POSTGRES_CONNECTIONS} if self.options.label_studio_postgres else {}),
            **given,
            "LABEL_STUDIO_URL": self.label_studio_url,
            "LABEL_STUDIO_HOST": self.browser_url,
            "LABEL_STUDIO_API_KEY": self.api_key,
            "REDIS_URL": self.redis_url,
            "DATABASE_URL": f"sqlite:///{self._data / 'carcond.sqlite3'}",
            "CARCOND_MODELS_DIR": str(self.options.models_dir or self._data / "models"),
            "CARCOND_BASIC_AUTH_USER": self.credentials.backend_user,
            "CARCOND_BASIC_AUTH_PASSWORD": self.credentials.backend_password,
            "CARCOND_API_TOKENS": with_demo_token(os.environ.get("CARCOND_API_TOKENS", ""), self._demo_token),
            "CARCOND_DEMO_TOKEN": self._demo_token,
            "CARCOND_BIND": ",".join(f"{host}:{self.options.backend_port}" for host in self._backend_hosts),
            **self.options.extra_environment,
        }

    @property
    def _backend_hosts(self) -> list[str]:
        """Addresses that the backend listens on: the one that Label Studio may call, then the one that people try."""
        return list(dict.fromkeys([self.backend_host, LOOPBACK]))

    @property
    def _demo_token(self) -> str:
        """The demo's token for the backend, derived from the backend's password."""
        return hmac.new(self.credentials.backend_password.encode(), b"demo", hashlib.sha256).hexdigest()

    @property
    def environment(self) -> dict[str, str]:
        """The environment of backend and worker."""
        inherited = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        return inherited | self.settings | {"PYTHONUNBUFFERED": "1"}

    def _write_settings(self) -> None:
        """Write the settings as a shell file, readable by this user alone."""
        lines = [f"{name}={shlex.quote(value)}\n" for name, value in self.settings.items()]
        replace_text(self._data / "environment", "".join(lines), mode=0o600)

    def api(self) -> LabelStudioApi:
        """The client for its Label Studio. Shared: it is closed when the stack stops."""
        if self._api is None:
            self._api = LabelStudioApi(self.label_studio_url, self.api_key)
        return self._api

    def start(self) -> None:
        """Start all servers and wait until they answer; nothing is left running when that fails.

        Raises:
            StackError: a port is taken, the disk is full, a server does not come up, ...
        """
        try:
            self._start()
        except BaseException:
            self.stop()
            raise

    def _start(self) -> None:
        self._lock.acquire()
        if self.options.host:
            check_secrets(self.credentials)
        self._check_room()
        self._write_settings()
        install(self.options.label_studio_venv, self._say)
        self._start_redis()
        self._start_label_studio()
        self._make_encoder()
        self._run("backend", self._gunicorn())
        self.wait_until_up("backend")
        self.wait_until_up("label-studio")
        # Its first action is to poll Label Studio.
        worker = [sys.executable, "-m", "backend.worker"]
        self._run("worker", worker, stop_timeout_s=8.0)
        # One of its own: a fine-tuning takes hours, and must not keep turns waiting.
        self._run("finetune-worker", [*worker, "--queues", FINETUNES], stop_timeout_s=8.0)

    def _check_room(self) -> None:
        check_disk(self._data, RUN_MIB, "running the stack")
        check_port(self.options.label_studio_port, "Label Studio", "--port", self._address)
        for host in self._backend_hosts:
            check_port(self.options.backend_port, "the backend", "--backend-port", host)
        if not self._foreign_redis:
            check_port(self.options.redis_port, "Redis", "--redis-port")

    def _start_redis(self) -> None:
        if self._foreign_redis:
            if not redis_server.answers(self._foreign_redis):
                host = urlsplit(self._foreign_redis).hostname
                raise StackError(f"the Redis of REDIS_URL, on {host}, does not answer: start it, or unset REDIS_URL")
            return
        log_path = self._logs / "redis.log"
        process = redis_server.redis_process(
            self._data, self.options.redis_port, self.credentials.redis_password, log_path
        )
        self._processes["redis"] = process
        process.start()
        self.wait_until_up("redis")

    def _start_label_studio(self) -> None:
        data_dir = make_directory(self._data / "label-studio")
        postgres_url = self.options.label_studio_postgres
        if not postgres_url and label_studio_server.prepare_database(data_dir):
            self._say("starting Label Studio; the first time it makes its database, which takes about a minute")
        process = ManagedProcess(
            name="label-studio",
            command=label_studio_server.command(
                self.options.label_studio_venv, self.options.label_studio_port, self._address
            ),
            environment=label_studio_server.environment(
                data_dir, self._photos, self.browser_url, self.credentials, postgres_url, self.backend_host
            ),
            log_path=self._logs / "label-studio.log",
            working_dir=data_dir,
        )
        self._processes["label-studio"] = process
        process.start()

    def _make_encoder(self) -> None:
        # Its words are for the person: which encoder it is, and loudly when it is only a stand-in.
        command = [str(Path(sys.executable).with_name("carcond")), "encoder"]
        # Not on standard output, which may be a machine's.
        done = subprocess.run(command, env=self.environment, check=False, stdout=2)
        if done.returncode:
            raise StackError("without an encoder nothing can be predicted; see the reason above")

    def _gunicorn(self) -> list[str]:
        return [
            *(sys.executable, "-m", "gunicorn"),
            *("--config", "python:backend.gunicorn_conf"),
            "backend.app:create_app()",
        ]

    def _run(self, name: str, command: list[str], stop_timeout_s: float = 10.0) -> None:
        process = ManagedProcess(
            name=name,
            command=command,
            environment=self.environment,
            log_path=self._logs / f"{name}.log",
            working_dir=self._data,
            stop_timeout_s=stop_timeout_s,
        )
        self._processes[name] = process
        process.start()

    def wait_until_up(self, name: str) -> None:
        """Wait until a server that was started answers; a worker answers nobody.

        Args:
            name: see `restart`.

        Raises:
            StackError: it ended, or did not answer in time.
        """
        process = self._processes[name]
        if name == "redis":
            process.wait_until(lambda: redis_server.answers(self.redis_url), 30.0)
        elif name == "backend":
            process.wait_for_url(f"{self.backend_url}/health", _BACKEND_PATIENCE_S)
        elif name == "label-studio":
            process.wait_for_url(f"{self.label_studio_url}/health", _LABEL_STUDIO_PATIENCE_S)

    def tend(self) -> None:
        """Restart servers that ended by themselves. To be called periodically."""
        for process in self._processes.values():
            process.tend(self._say)

    def ended(self) -> dict[str, str]:
        """Servers that ended by themselves: name -> how, with the end of its log."""
        return {name: process.ending for name, process in self._processes.items() if process.ending}

    def restart(self, name: str) -> None:
        """Stop one server, if it still runs, and start it.

        Args:
            name: redis, label-studio, backend, worker or finetune-worker.
        """
        self._processes[name].stop()
        self._processes[name].start()

    def kill_server(self, name: str) -> None:
        """End one server at once, as `kill -9` does; `tend` starts it again."""
        pid = self._processes[name].pid
        if pid is not None:
            os.killpg(pid, signal.SIGKILL)

    def stop(self) -> None:
        """Stop all servers, clients before servers. Idempotent."""
        order = [
            name
            for name in ("finetune-worker", "worker", "backend", "label-studio", "redis")
            if name in self._processes
        ]
        for name in order:
            self._processes[name].stop()
        self._let_go()

    def kill(self) -> None:
        """End all servers at once."""
        for process in self._processes.values():
            process.kill()
        self._let_go()

    def _let_go(self) -> None:
        self._processes.clear()
        self._lock.release()
        if self._api is not None:
            self._api.close()
            self._api = None

    def provision(self, title: str = PROJECT_TITLE, project_id: int | None = None) -> ProvisionReport:
        """Find or make a project and connect the backend to it."""
        return provision(self.api(), self.backend_address, title, project_id)

    def follow_backend(self) -> None:
        """Have projects of a former release, whose backend was at 127.0.0.1, find it at its present address."""
        former = f"http://{LOOPBACK}:{self.options.backend_port}"
        if former != self.backend_url:
            follow_backend(self.api(), self.backend_address, former)

    def import_photos(
        self, project_id: int, folder: Path, on_progress: Callable[[int, int], None] = lambda done, total: None
    ) -> int:
        """Import the new photos of a folder into a project, and return their number."""
        link = link_folder(self._photos, folder)
        return import_photos(self.api(), project_id, link, on_progress)
