"""Checks of `scripts/check_compose` on the running stack: labelling, faults, copies, monitoring, restart, backup."""

import os
import time

from tests.compose.annotator import Annotator
from tests.compose.faults import check_faults
from tests.compose.profiles import check_processes, check_profiles
from tests.compose.project import PATIENCE_S, ComposeProject
from tests.compose.report import Report, expect, expect_bar

_UP_BAR_S = 120
# Less than the minute after which the worker polls by itself, so the webhook must have arrived.
_EVENT_BAR_S = 20


def check_running(project: ComposeProject, report: Report) -> None:
    """Bring the stack up, check it, and leave it running.

    Raises:
        CheckError: a check failed.
    """
    project.compose("--profile", "*", "down", "--volumes", "--timeout", "3", check=False)
    with report.check(f"bare clone to all healthy and set up, images at hand, under {_UP_BAR_S} s") as found:
        start = time.monotonic()
        project.up()
        took = time.monotonic() - start
        found.append(f"load average of the machine {os.getloadavg()[0]:.0f}")
        expect_bar(took < _UP_BAR_S, f"longer than {_UP_BAR_S} s")
    with report.check("no process is root, has a capability, or can gain one") as found:
        found.append(f"{check_processes(project)} processes")
    annotator = Annotator(project.url, project.secret("LABEL_STUDIO_API_KEY"))
    with report.check("label 12 photos: the version moves, and knows all labels") as found:
        _label_and_learn(project, annotator, found, 12)
    with report.check("Label Studio's users cannot make it call PostgreSQL, Redis or this machine"):
        for url in ("http://postgres:5432", "http://redis:6379", "http://127.0.0.1:8080", "http://172.17.0.1:22"):
            expect(annotator.is_refused(url), f"Label Studio would call {url}")
    check_faults(project, annotator, report)
    with report.check("four workers and two backends: nothing lost or doubled, one of each killed") as found:
        _check_scale(project, annotator, found)
    check_profiles(project, annotator.project_id, report)
    with report.check("down and up: labels and version kept") as found:
        _check_restart(project, annotator, found)
    with report.check("setup again changes nothing"):
        before = len(annotator.predictions())
        project.compose("run", "--rm", "setup")
        expect(len(annotator.predictions()) == before, "tasks were added or lost")
    with report.check("backup, forget everything, restore: labels and version are back") as found:
        _check_backup(project, annotator, found)


def _label_and_learn(project: ComposeProject, annotator: Annotator, found: list[str], count: int) -> None:
    before = annotator.version()
    annotator.label(count)
    took = project.wait_until_learned(annotator)
    after = annotator.version()
    expect(after != before, f"the version stayed {before}")
    found.append(f"{before} to {after}, all labels known {took:.1f} s after the last")
    expect_bar(took < _EVENT_BAR_S, f"learned after {took:.0f} s")


def _check_scale(project: ComposeProject, annotator: Annotator, found: list[str]) -> None:
    project.up("--no-recreate", "--scale", "worker=4", "--scale", "backend=2")
    count = len(project.servers("worker")), len(project.servers("backend"))
    expect(count == (4, 2), f"expected 4 workers and 2 backends, got {count}")
    annotator.label(4)
    project.kill("worker")
    project.kill("backend")
    annotator.label(4)
    project.wait_for(project.is_well, PATIENCE_S, "all to be healthy again")
    learned = project.wait_until_learned(annotator)
    total = annotator.check_nothing_lost()
    crowded = {task: n for task, n in annotator.predictions().items() if n > 2}
    expect(not crowded, f"tasks with more than two predictions: {crowded}")
    found.append(f"all {total} labels known {learned:.1f} s after healing, at most two predictions for each task")


def _check_restart(project: ComposeProject, annotator: Annotator, found: list[str]) -> None:
    version = annotator.version()
    project.compose("down")
    start = time.monotonic()
    project.up()
    took = time.monotonic() - start
    found.append(f"up in {took:.0f} s, {_check_all_is_back(project, annotator, version)}")


def _check_all_is_back(project: ComposeProject, annotator: Annotator, version: str) -> str:
    """Check that labels and version are those of before and that labelling continues."""
    total = annotator.check_nothing_lost()
    learned = project.wait_until_learned(annotator)
    expect(annotator.version() >= version, f"the version went back from {version} to {annotator.version()}")
    annotator.label(1)
    project.wait_until_learned(annotator)
    return f"{total} labels kept, known {learned:.1f} s later, labelling goes on"


def _check_backup(project: ComposeProject, annotator: Annotator, found: list[str]) -> None:
    backup = project.engine.work / "backup.tar"
    backup.unlink(missing_ok=True)
    version = annotator.version()
    start = time.monotonic()
    project.run_script("compose_backup", str(backup))
    found.append(f"backup of {backup.stat().st_size / 1e6:.0f} MB in {time.monotonic() - start:.0f} s")
    expect(backup.stat().st_mode & 0o777 == 0o600, "others can read the backup")
    refused = project.run_script("compose_restore", str(backup), check=False)
    expect(refused.returncode == 1 and "has data already" in refused.stderr, "a stack with data was restored over")
    project.compose("--profile", "*", "down", "--volumes")
    start = time.monotonic()
    project.run_script("compose_restore", str(backup))
    found.append(f"restored in {time.monotonic() - start:.0f} s")
    project.up()
    found.append(_check_all_is_back(project, annotator, version))
    backup.unlink()
