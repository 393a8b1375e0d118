"""A PostgreSQL server for tests: from the machine's own package, on 127.0.0.1, gone with the tests."""

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from scripts.ports import free_ports

_SPEED = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off", "shared_buffers": "32MB"}


class PostgresServer:
    """A running server.

    Attributes:
        port: on 127.0.0.1; anyone on this machine may connect as `carcond`.
    """

    def __init__(self, port: int) -> None:
        self.port = port
        self._numbers = count(1)

    def connect(self) -> psycopg.Connection:
        """A connection to a database of the server's own."""
        return psycopg.connect(host="127.0.0.1", port=self.port, user="carcond", dbname="postgres", autocommit=True)

    def new_database(self) -> str:
        """Make an empty database and return its address."""
        name = f"store{next(self._numbers)}"
        with self.connect() as connection:
            connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        return f"postgresql+psycopg://carcond@127.0.0.1:{self.port}/{name}"


def find_programs() -> Path:
    """The folder of `initdb` and `postgres`. Debian's are not on the search path.

    Skips the test when there is none; in CI one has to be there.
    """
    found = shutil.which("initdb")
    if found:
        return Path(found).resolve().parent
    packaged = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if packaged:
        return packaged[-1].parent
    if os.environ.get("CI") == "true":
        pytest.fail("PostgreSQL is missing, and in CI it has to be there")
    pytest.skip("PostgreSQL is not installed: apt install postgresql")


@contextmanager
def postgres_server() -> Iterator[PostgresServer]:
    """A server with no database of its own, stopped in the end."""
    programs = find_programs()
    # It refuses to run as root. Its folder is not one of pytest's: those are closed to other users.
    user = "nobody" if os.getuid() == 0 else None
    (port,) = free_ports(1)
    with tempfile.TemporaryDirectory(prefix="carcond-postgres-", ignore_cleanup_errors=True) as folder:
        if user:
            shutil.chown(folder, user)
        data = f"{folder}/data"
        subprocess.run(
            [programs / "initdb", "-D", data, "-U", "carcond", "--auth=trust", "--no-sync", "-E", "UTF8"],
            user=user,
            cwd=folder,
            check=True,
            stdout=subprocess.DEVNULL,
        )
        command = [str(programs / "postgres"), "-D", data, "-h", "127.0.0.1", "-p", str(port), "-k", folder]
        command += [word for name, value in _SPEED.items() for word in ("-c", f"{name}={value}")]
        with (
            Path(folder, "log").open("wb") as log,
            subprocess.Popen(command, user=user, cwd=folder, stdout=log, stderr=log) as process,
        ):
            try:
                server = PostgresServer(port)
                _wait(server, process)
                yield server
            finally:
                process.send_signal(signal.SIGINT)  # it ends connections that are still open


def _wait(server: PostgresServer, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            server.connect().close()
        except psycopg.OperationalError:
            if process.poll() is not None or time.monotonic() > deadline:
                raise
            time.sleep(0.05)
        else:
            return
