"""Random kills, on a stack that only seems to run."""

import random
from pathlib import Path
from typing import cast

from carcond.fault_points import VARIABLE
from scripts.labellers.chaos import SERVERS, Chaos, Outage
from scripts.stack import Stack


class FakeStack:
    """Servers that take their end calmly."""

    def __init__(self, folder: Path) -> None:
        self.environment = {VARIABLE: str(folder)}
        self.pids = {server: 10_000_000 + number for number, server in enumerate(SERVERS)}
        self.killed: list[str] = []

    def kill_server(self, name: str) -> None:
        self.killed.append(name)


def test_a_fault_at_a_point_counts_once_a_process_has_met_it_and_gives_way_to_the_next(tmp_path: Path) -> None:
    stack = FakeStack(tmp_path)
    chaos = Chaos(cast(Stack, stack), random.Random(3))  # noqa: S311 - no secret
    met = 0
    for number in range(200):
        chaos._strike()
        faults = list(tmp_path.iterdir())
        assert len(faults) <= 1
        if faults and number % 2:
            assert faults[0].read_text()
            faults[0].unlink()  # as the process does that reaches it
            met += 1
        chaos._watch()
    assert met > 20
    assert {name: count for name, count in chaos.kills.items() if " at " not in name} == {
        server: stack.killed.count(server) for server in SERVERS
    }
    assert sum(count for name, count in chaos.kills.items() if " at " in name) == met


def test_a_server_is_out_from_a_moment_before_its_end_until_a_while_after_it_answers(tmp_path: Path) -> None:
    rng = random.Random(0)  # noqa: S311 - no secret
    chaos = Chaos(cast(Stack, FakeStack(tmp_path)), rng, outages=[Outage("backend", 100.0, 110.0)])
    assert [chaos.was_out("backend", at, 5.0) for at in (98.0, 99.5, 105.0, 114.0, 116.0)] == [
        False,
        True,
        True,
        True,
        False,
    ]
    assert not chaos.was_out("redis", 105.0, 5.0)
