"""Random kills of a stack's servers, while others use it."""

import random
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from carcond.fault_points import PARENT, POINTS, SELF, VARIABLE
from scripts import redis_server
from scripts.stack import Stack

SERVERS = ("worker", "backend", "redis", "label-studio")
# Kills at a point of a turn, beside those at any moment.
_AT_A_POINT = 0.5
_PAUSE_S = (8.0, 30.0)
_TICK_S = 0.1


@dataclass
class Outage:
    """Time in which a server did not answer, in seconds on the clock of `time.monotonic`; `until` 0 while it lasts."""

    server: str
    since: float
    until: float = 0.0


@dataclass
class Chaos:
    """Kills servers of a stack with SIGKILL at random, at any moment or at a named point of a turn.

    Attributes:
        stack: the running stack, with a folder for faults in its environment.
        rng: chooses.
        kills: server -> number of kills so far; those at a point of a turn under its name.
        outages: all so far.
    """

    stack: Stack
    rng: random.Random
    kills: Counter[str] = field(default_factory=Counter)
    outages: list[Outage] = field(default_factory=list)
    _laid: tuple[str, Path] | None = None

    def run(self, is_over: Callable[[], bool]) -> None:
        """Kill and restart until it is over and all servers answer again.

        To be called in the thread that has started the stack: servers end with the thread that starts them.
        """
        next_kill = time.monotonic() + self.rng.uniform(*_PAUSE_S)
        while not is_over() or self._is_out():
            time.sleep(_TICK_S)
            self._watch()
            self.stack.tend()
            if not is_over() and time.monotonic() > next_kill:
                self._strike()
                next_kill = time.monotonic() + self.rng.uniform(*_PAUSE_S)
        self._remove_fault()

    def was_out(self, server: str, at: float, margin_s: float) -> bool:
        """True if a server was out at a moment, or less than `margin_s` seconds before."""
        return any(
            each.server == server and each.since - 1.0 <= at <= (each.until or at) + margin_s for each in self.outages
        )

    def _strike(self) -> None:
        self._remove_fault()  # nobody has come by: another one instead
        server = self.rng.choice(SERVERS)
        pid = self.stack.pids.get(server)
        if pid is None:
            return
        if self.rng.random() < _AT_A_POINT:
            point = self.rng.choice(POINTS)
            own = point == "webhook.received" or server == "worker"
            fault = Path(self.stack.environment[VARIABLE]) / point
            fault.write_text(self._victims(point) if own else str(pid))
            self._laid = f"{'backend' if point == 'webhook.received' else server} at {point}", fault
        else:
            self.stack.kill_server(server)
            self.kills[server] += 1

    def _remove_fault(self) -> None:
        if self._laid:
            self._laid[1].unlink(missing_ok=True)
            self._laid = None

    @staticmethod
    def _victims(point: str) -> str:
        return SELF if point == "job.taken" else f"{PARENT} {SELF}"

    def _is_out(self) -> bool:
        return any(not outage.until for outage in self.outages)

    def _watch(self) -> None:
        """Record when a server ends, and when it answers again."""
        if self._laid and not self._laid[1].exists():
            self.kills[self._laid[0]] += 1
            self._laid = None
        lasting = {outage.server: outage for outage in self.outages if not outage.until}
        running = self.stack.pids
        for server in SERVERS:
            if server not in lasting and server not in running:
                self.outages.append(Outage(server, time.monotonic()))
            elif server in lasting and server in running and self._answers(server):
                lasting[server].until = time.monotonic()

    def _answers(self, server: str) -> bool:
        if server == "worker":
            return True
        if server == "redis":
            return redis_server.answers(self.stack.redis_url)
        url = self.stack.backend_url if server == "backend" else self.stack.label_studio_url
        try:
            return httpx.get(f"{url}/health", timeout=1.0, trust_env=False).is_success
        except httpx.HTTPError:
            return False
