"""Fault injection of `scripts/check_compose` during labelling: each service killed, stopped, or paused."""

import time
from collections.abc import Callable

from tests.compose.annotator import Annotator
from tests.compose.project import PATIENCE_S, ComposeProject
from tests.compose.report import Report, expect, expect_bar

_HEAL_BAR_S = 60
_KILLED = ("redis", "postgres", "worker", "backend", "label-studio")
_AWAY_S = 60
# In docker-compose.yml; who takes longer is ended by force.
_WORKER_GRACE_S = 60


def check_faults(project: ComposeProject, annotator: Annotator, report: Report) -> None:
    """Inject one fault after the other, and check each time that the stack recovers and no label is lost.

    Raises:
        CheckError: something is lost, or does not recover.
    """
    for service in _KILLED:
        with report.check(f"kill -9 {service}, labelling on: heals within {_HEAL_BAR_S} s, nothing lost") as found:
            _check_killed(project, annotator, service, found)
    with report.check("`docker compose stop worker` in mid-turn: it ends by itself, nothing lost") as found:
        _check_stopped_worker(project, annotator, found)
    with report.check(f"redis away for {_AWAY_S} s, labelling on: heals within {_HEAL_BAR_S} s, nothing lost") as found:
        _check_absence(project, annotator, found)
    with report.check(f"postgres restarted in mid-turn: heals within {_HEAL_BAR_S} s, nothing lost") as found:
        _check_restarted_database(project, annotator, found)


def _check_killed(project: ComposeProject, annotator: Annotator, service: str, found: list[str]) -> None:
    before, start = project.servers(service)[0], time.monotonic()
    project.kill(service)
    taken = _label_until(annotator, project.is_well, 3)
    _heal(project, annotator, start, taken, found)
    after = project.servers(service)[0]
    expect(after.state["StartedAt"] != before.state["StartedAt"], f"{service} was not restarted")


def _check_stopped_worker(project: ComposeProject, annotator: Annotator, found: list[str]) -> None:
    _begin_turn(project, annotator)
    start = time.monotonic()
    project.compose("stop", "worker")
    took, code = time.monotonic() - start, project.servers("worker")[0].state["ExitCode"]
    expect(code == 0 and took < _WORKER_GRACE_S, f"the worker ended with {code} after {took:.0f} s")
    found.append(f"ended after {took:.1f} s")
    start = time.monotonic()
    project.compose("start", "worker")
    _heal(project, annotator, start, 1, found)


def _check_absence(project: ComposeProject, annotator: Annotator, found: list[str]) -> None:
    project.compose("stop", "redis")
    back, taken = time.monotonic() + _AWAY_S, 0
    while time.monotonic() < back:
        taken += annotator.try_label()
        time.sleep(15.0)
    start = time.monotonic()
    project.compose("start", "redis")
    _heal(project, annotator, start, taken, found)


def _check_restarted_database(project: ComposeProject, annotator: Annotator, found: list[str]) -> None:
    _begin_turn(project, annotator)
    start = time.monotonic()
    project.compose("restart", "postgres")
    taken = 1 + _label_until(annotator, project.is_well, 3)
    _heal(project, annotator, start, taken, found)


def _begin_turn(project: ComposeProject, annotator: Annotator) -> None:
    project.wait_for(lambda: not project.is_busy("worker"), PATIENCE_S, "the worker to be idle")
    annotator.label(1)
    project.wait_for(lambda: project.is_busy("worker"), PATIENCE_S, "the worker to begin a turn")


def _label_until(annotator: Annotator, is_done: Callable[[], bool], at_most: int) -> int:
    """Label a photo every two seconds until it is done, or at most `at_most`. Returns the number of accepted labels."""
    taken, deadline = 0, time.monotonic() + _HEAL_BAR_S
    while taken < at_most and time.monotonic() < deadline and not (taken and is_done()):
        taken += annotator.try_label()
        time.sleep(2.0)
    return taken


def _heal(project: ComposeProject, annotator: Annotator, start: float, taken: int, found: list[str]) -> None:
    """Check that all is healthy in time, that labelling continues, and that each label is known once."""
    project.wait_for(project.is_well, PATIENCE_S, "all to be healthy again")
    healed = time.monotonic() - start
    annotator.label(1)
    learned = project.wait_until_learned(annotator)
    total = annotator.check_nothing_lost()
    found.append(
        f"healthy after {healed:.0f} s, {taken} labels taken meanwhile, all {total} known {learned:.0f} s later"
    )
    expect_bar(healed < _HEAL_BAR_S, f"not within {_HEAL_BAR_S} s")
