"""A server that the stack starts, watches, restarts and stops."""

import ctypes
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from scripts.preflight import MIB, StackError

_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None
_MAX_LOG_BYTES = 20 * MIB
_FIRST_DELAY_S = 1.0
_LAST_DELAY_S = 30.0
# Uptime in seconds after which the restart delay is reset: the process did not crash at its start.
_STEADY_S = 60.0


def _die_with_parent() -> None:
    if _LIBC is not None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


@dataclass
class ManagedProcess:
    """One server, in a session of its own: Ctrl-C reaches the stack alone, which stops all in order.

    Attributes:
        name: for messages, and of the log file.
        command: program and arguments.
        environment: the whole environment; nothing is inherited.
        log_path: output is appended to this file.
        stop_timeout_s: time limit in seconds from SIGTERM to SIGKILL.
    """

    name: str
    command: Sequence[str]
    environment: Mapping[str, str] = field(repr=False)
    log_path: Path
    working_dir: Path
    stop_timeout_s: float = 10.0
    _process: subprocess.Popen[bytes] | None = field(default=None, repr=False)
    _started_at: float = 0.0
    _delay_s: float = 0.0
    _restart_at: float | None = None

    def start(self) -> None:
        """Start it; its output goes to the log."""
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(
                self.command,
                env=dict(self.environment),
                cwd=self.working_dir,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=_die_with_parent,  # noqa: PLW1509  # two lines of C; the stack starts no threads
            )
        self._started_at = time.monotonic()
        self._restart_at = None

    @property
    def pid(self) -> int | None:
        """Its process id while it runs."""
        return self._process.pid if self._process and self.is_running else None

    @property
    def is_running(self) -> bool:
        """True if it was started and has not ended."""
        return self._process is not None and self._process.poll() is None

    @property
    def ending(self) -> str:
        """How it ended by itself, with the end of its log; empty while it runs, and before its start."""
        if self._process is None or self.is_running:
            return ""
        return f"{self.name} ended (exit code {self._process.returncode}). {self._last_words()}"

    def ask_to_stop(self) -> None:
        """Send SIGTERM, without waiting."""
        if self._process and self.is_running:
            self._process.send_signal(signal.SIGTERM)

    def stop(self) -> None:
        """Send SIGTERM and wait; the rest of its process group is killed after the timeout."""
        if self._process is None:
            return
        self.ask_to_stop()
        with suppress(subprocess.TimeoutExpired):  # it is killed below
            self._process.wait(self.stop_timeout_s)
        self.kill()

    def kill(self) -> None:
        """Kill its process group at once."""
        if self._process is None:
            return
        with suppress(ProcessLookupError):  # it has ended
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._process = None

    def tend(self, say: Callable[[str], None]) -> None:
        """Restart it when it has ended by itself, with increasing delays, and truncate its log."""
        if self._process is None:
            return
        self._shorten_log()
        if self.is_running:
            return
        now = time.monotonic()
        if self._restart_at is None:
            steady = now - self._started_at > _STEADY_S
            self._delay_s = _FIRST_DELAY_S if steady else min(max(_FIRST_DELAY_S, 2 * self._delay_s), _LAST_DELAY_S)
            self._restart_at = now + self._delay_s
            say(
                f"{self.name} stopped by itself (exit code {self._process.returncode}); it is started again in "
                f"{self._delay_s:.0f} s. Log: {self.log_path}"
            )
        elif now >= self._restart_at:
            self.kill()  # its children may still hold its port
            self.start()

    def _shorten_log(self) -> None:
        if self.log_path.stat().st_size > _MAX_LOG_BYTES:
            shutil.copyfile(self.log_path, self.log_path.with_suffix(".old.log"))
            # Its output is opened for appending, so it continues at the new end.
            os.truncate(self.log_path, 0)

    def wait_for_url(self, url: str, timeout_s: float) -> None:
        """Wait until it answers with 200.

        Raises:
            StackError: it ended, or did not answer in time.
        """
        with httpx.Client(trust_env=False, timeout=2.0) as client:
            self.wait_until(lambda: _answers(client, url), timeout_s)

    def wait_until(self, is_ready: Callable[[], bool], timeout_s: float) -> None:
        """Wait until it is ready.

        Raises:
            StackError: it ended, or was not ready in time.
        """
        deadline = time.monotonic() + timeout_s
        while not is_ready():
            if not self.is_running:
                raise StackError(f"{self.name} stopped at its start. {self._last_words()}")
            if time.monotonic() > deadline:
                raise StackError(f"{self.name} was not ready after {timeout_s:.0f} s. {self._last_words()}")
            time.sleep(0.1)

    def _last_words(self) -> str:
        lines = self.log_path.read_text(encoding="utf-8", errors="replace").splitlines()[-15:]
        return f"The end of {self.log_path}:\n" + "\n".join(f"    {line}" for line in lines)


def _answers(client: httpx.Client, url: str) -> bool:
    try:
        return client.get(url).status_code == httpx.codes.OK
    except httpx.HTTPError:  # not listening yet
        return False
