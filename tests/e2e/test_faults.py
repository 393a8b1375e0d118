"""Servers that end at every step of a turn, as by `kill -9`: no label is lost or learnt twice, and serving goes on."""

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from redis import Redis

from carcond.fault_points import PARENT, POINTS, SELF, VARIABLE
from carcond.store.store import Store
from scripts.stack import Stack
from tests.e2e.scenario import Scenario, wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(600)]

PHOTOS = 60
FIRST_LABELS = 14

REACHED_BY_WORKER = [point for point in POINTS if point != "webhook.received"]
IN_EVERY_RUN = "version.promoted"


@pytest.fixture(scope="module")
def learned(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Scenario:
    """A project with a version that serves."""
    scenario = Scenario(stack, "faults", tmp_path_factory.mktemp("faults"), PHOTOS)
    wait_until(lambda: scenario.model_version() == "carcond-0000" and not scenario.stale_tasks(), "the first queue")
    for _ in range(FIRST_LABELS):
        scenario.label_next()
    scenario.wait_until_learned()
    return scenario


class Fault:
    """A fault laid at a point."""

    def __init__(self, stack: Stack, point: str, *victims: object) -> None:
        self._file = Path(stack.environment[VARIABLE]) / point
        self._file.write_text(" ".join(map(str, victims)))

    def wait_until_met(self) -> None:
        wait_until(lambda: not self._file.exists(), f"a process to reach {self._file.name}", 60)


def restart(stack: Stack, server: str) -> None:
    """Restart a server, and wait until it answers."""
    stack.restart(server)
    stack.wait_until_up(server)


@contextmanager
def second_worker(stack: Stack) -> Iterator[None]:
    """Another worker beside the stack's own."""
    with subprocess.Popen(
        [sys.executable, "-m", "backend.worker"], env=stack.environment, stderr=subprocess.DEVNULL
    ) as process:
        try:
            yield
        finally:
            process.terminate()
            process.wait(30)


def job_pids(worker: int) -> list[int]:
    """Process ids of the jobs that a worker runs, each in a fork of it."""
    return [int(pid) for pid in Path(f"/proc/{worker}/task/{worker}/children").read_text().split()]


def wake(pids: list[int]) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):  # its job has ended
            os.kill(pid, signal.SIGCONT)


def assert_recovered(scenario: Scenario, before: int) -> None:
    """All labels are learnt, none twice, in one further version; each photo is served once."""
    scenario.wait_until_learned()
    numbers = scenario.registry.numbers()
    assert numbers == sorted(set(numbers))
    assert scenario.version().number == numbers[-1] == before + 1
    rows = scenario.registry.labels(numbers[-1])
    assert Counter(row["task"] for row in rows) == Counter(scenario.labels_in_label_studio())
    store = Store(scenario.stack.environment["DATABASE_URL"])
    try:
        annotations = [row.annotation_id for row in store.annotations(scenario.project_id)]
    finally:
        store.close()
    assert len(annotations) == len(set(annotations)) == len(rows)
    for task in scenario.tasks():
        served = [p for p in task.predictions if p.model_version == scenario.model_version()]
        assert len(served) <= 1, task.id


@pytest.mark.parametrize(
    "point",
    [point if point == IN_EVERY_RUN else pytest.param(point, marks=pytest.mark.long) for point in REACHED_BY_WORKER],
)
def test_a_label_survives_a_worker_that_is_killed_at(learned: Scenario, stack: Stack, point: str) -> None:
    learned.wait_until_learned()
    before, served = learned.version().number, learned.version_told_by_backend()
    fault = Fault(stack, point, SELF if point == "job.taken" else f"{PARENT} {SELF}")
    learned.label_next()
    fault.wait_until_met()
    assert learned.version_told_by_backend() in (served, learned.version().name)
    restart(stack, "worker")
    assert_recovered(learned, before)


@pytest.mark.long
def test_a_label_survives_a_job_that_the_kernel_kills_while_its_worker_goes_on(learned: Scenario, stack: Stack) -> None:
    learned.wait_until_learned()
    before, worker = learned.version().number, stack.pids["worker"]
    fault = Fault(stack, "turn.settled", SELF)
    learned.label_next()
    fault.wait_until_met()
    learned.label_next()
    assert_recovered(learned, before)
    assert stack.pids["worker"] == worker


@pytest.mark.long
@pytest.mark.parametrize("point", REACHED_BY_WORKER)
@pytest.mark.parametrize("server", ["redis", "label-studio"])
def test_a_label_survives_a_server_that_is_killed_while_a_turn_is_at(
    learned: Scenario, stack: Stack, server: str, point: str
) -> None:
    learned.wait_until_learned()
    before = learned.version().number
    fault = Fault(stack, point, stack.pids[server])
    learned.label_next()
    fault.wait_until_met()
    time.sleep(1.0)
    restart(stack, server)
    restart(stack, "worker")
    assert_recovered(learned, before)


def test_a_label_survives_a_backend_that_is_killed_in_the_middle_of_its_webhook(
    learned: Scenario, stack: Stack
) -> None:
    learned.wait_until_learned()
    before = learned.version().number
    fault = Fault(stack, "webhook.received", PARENT, SELF)
    labelled = learned.label_next()
    fault.wait_until_met()
    assert labelled.labelled.task_id in learned.labels_in_label_studio()
    restart(stack, "backend")
    restart(stack, "worker")  # its first action is to look for labels that no webhook has told of
    assert_recovered(learned, before)


@pytest.mark.long
def test_a_worker_that_stood_still_does_no_turn_twice(learned: Scenario, stack: Stack) -> None:
    """Its lock runs out, another worker does the turn, and then it wakes up in the middle of its own."""
    learned.wait_until_learned()
    before = learned.version().number
    learned.label_next()
    with Redis.from_url(stack.redis_url) as redis:
        lock = f"carcond:lock:{learned.project_id}"
        wait_until(lambda: bool(redis.exists(lock)), "a turn to hold its lock", 30)
    pids = [*job_pids(stack.pids["worker"]), stack.pids["worker"]]
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        with second_worker(stack):
            learned.label_next()
            learned.wait_until_learned()
            wake(pids)
            learned.label_next()
            learned.wait_until_quiet()
    finally:
        wake(pids)
    numbers = learned.registry.numbers()
    assert learned.version().number == numbers[-1]
    assert before < numbers[-1] <= before + 3
