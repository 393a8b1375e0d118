"""`scripts/check_compose`: the checks, one after the other, and the table of what they found."""

import argparse
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from scripts.compose_annotator import Annotator
from scripts.compose_engine import CheckError, Engine
from scripts.compose_project import ComposeProject
from scripts.compose_stand_ins import make_stand_ins, pip_config_for_builds

_ROOT = Path(__file__).resolve().parents[1]
_UP_BAR_S = 120
_HEAL_BAR_S = 60
_LEARN_BAR_S = 60
# Less than the minute after which the worker looks by itself: so it was the webhook that told it.
_EVENT_BAR_S = 20
_IMAGE_BAR_MB = 700
_FAULTS = ("redis", "postgres", "worker", "backend", "label-studio")


@dataclass
class Report:
    """What was checked: rows of what, found, seconds."""

    rows: list[tuple[str, str, float]] = field(default_factory=list)
    failed: bool = False

    @contextmanager
    def check(self, what: str) -> Iterator[list[str]]:
        """Time one check. What is put into the list is what was found; an error becomes a row, and ends the run."""
        found: list[str] = []
        start = time.monotonic()
        try:
            yield found
        except CheckError as error:
            self._add(what, "FAILED", time.monotonic() - start)
            self.failed = True
            print(error, file=sys.stderr)
            raise
        self._add(what, ", ".join(found) or "good", time.monotonic() - start)

    def _add(self, what: str, found: str, seconds: float) -> None:
        self.rows.append((what, found, seconds))
        print(f"{seconds:7.1f} s  {what}: {found}", flush=True)

    def table(self) -> str:
        """The rows as a Markdown table."""
        lines = [f"| {what} | {found} | {seconds:.1f} |" for what, found, seconds in self.rows]
        return "\n".join(["| what was checked | found | seconds |", "|---|---|---|", *lines]) + "\n"


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(prog="scripts/check_compose", description=__doc__)
    default = Path(tempfile.gettempdir()) / "carcond-check-compose"
    parser.add_argument(
        "--work", type=Path, default=default, metavar="DIR", help="kept for the next check: %(default)s"
    )
    parser.add_argument("--result", type=Path, metavar="FILE", help="write the table there, too")
    arguments = parser.parse_args()
    report = Report()
    engine = Engine(arguments.work.absolute())
    try:
        _run(engine, report)
    except CheckError:
        sys.exit(1)
    finally:
        engine.stop()
        if arguments.result:
            arguments.result.write_text(report.table(), encoding="utf-8")


def _run(engine: Engine, report: Report) -> None:
    with report.check("engine and tools"):
        engine.install()
    with report.check("engine starts") as found:
        found.append(engine.start())
    checkout = _clone(engine)
    with pip_config_for_builds(engine) as pip_config:
        project = ComposeProject(engine, checkout, pip_config)
        _check_files(project, report)
        with report.check("stand-in base images") as found:
            found.extend(make_stand_ins(engine, checkout, pip_config))
        _check_build(project, report)
    try:
        _check_running(project, report)
    finally:
        project.compose("down", "--volumes", "--timeout", "3", check=False)


def _clone(engine: Engine) -> Path:
    """A clone of the last commit: what is not committed is not checked."""
    checkout = engine.work / "checkout"
    shutil.rmtree(checkout, ignore_errors=True)
    engine.run(["git", "clone", "--quiet", str(_ROOT), str(checkout)])
    return checkout


def _check_files(project: ComposeProject, report: Report) -> None:
    engine, checkout = project.engine, project.checkout
    with report.check("Dockerfile lint (hadolint)"):
        engine.run([str(engine.work / "venv" / "bin" / "hadolint"), "Dockerfile"], cwd=checkout)
    with report.check("docker compose config"):
        project.compose("--profile", "*", "config", "--quiet")
        project.compose("-f", "docker-compose.yml", "-f", "docker-compose.gpu.yml", "config", "--quiet")
    with report.check("Prometheus configuration and rules (promtool)"):
        _check_prometheus(engine, checkout / "docker" / "monitoring")


def _check_prometheus(engine: Engine, folder: Path) -> None:
    unpacked = engine.work / "prometheus"
    if not unpacked.exists():  # unpacked only: installed, the package would start a server
        engine.run(["apt-get", "download", "-qq", "prometheus"], cwd=engine.work)
        package = next(engine.work.glob("prometheus_*.deb"))
        engine.run(["dpkg", "-x", str(package), str(unpacked)])
        package.unlink()
    promtool = str(unpacked / "usr" / "bin" / "promtool")
    engine.run([promtool, "check", "config", "--syntax-only", str(folder / "prometheus.yml")])
    engine.run([promtool, "check", "rules", str(folder / "alerts.yml")])


def _check_build(project: ComposeProject, report: Report) -> None:
    with report.check("build of both images"):
        project.compose("build")
    with report.check("build again after a change of code"):
        (project.checkout / "backend" / "__init__.py").write_text('"""The loop around Label Studio."""\n# changed\n')
        project.compose("build")
    with report.check(f"image of backend and worker under {_IMAGE_BAR_MB} MB") as found:
        size = project.engine.output(["docker", "image", "inspect", "-f", "{{.Size}}", "carcond:check"])
        found.append(f"{int(size) / 1e6:.0f} MB")
        _expect(int(size) < _IMAGE_BAR_MB * 1e6, f"the image has {size} bytes")


def _check_running(project: ComposeProject, report: Report) -> None:
    project.compose("down", "--volumes", "--timeout", "3", check=False)
    with report.check(f"bare clone to all healthy and set up, images at hand, under {_UP_BAR_S} s") as found:
        start = time.monotonic()
        project.up()
        took = time.monotonic() - start
        found.append(f"{took:.0f} s")
        _expect(took < _UP_BAR_S, f"it took {took:.0f} s")
    with report.check("no process is root, has a capability, or can gain one") as found:
        found.append(f"{_check_processes(project)} processes")
    annotator = Annotator(project.url, project.token())
    with report.check("label 12 photos: the version moves, and knows all labels") as found:
        _label_and_learn(project, annotator, found, 12)
    with report.check("Label Studio's users cannot make it call PostgreSQL, Redis or this machine"):
        for url in ("http://postgres:5432", "http://redis:6379", "http://127.0.0.1:8080", "http://172.17.0.1:22"):
            _expect(annotator.is_refused(url), f"Label Studio would call {url}")
    for service in _FAULTS:
        with report.check(f"kill -9 {service}, labelling on: heals within {_HEAL_BAR_S} s, nothing lost") as found:
            _check_fault(project, annotator, service, found)
    with report.check("four workers and two backends: nothing lost or doubled, one of each killed") as found:
        _check_scale(project, annotator, found)
    with report.check("down and up: labels and version kept") as found:
        _check_restart(project, annotator, found)
    with report.check("setup again changes nothing"):
        before = len(annotator.predictions())
        project.compose("run", "--rm", "setup")
        _expect(len(annotator.predictions()) == before, "tasks were added or lost")


def _expect(holds: bool, otherwise: str) -> None:
    if not holds:
        raise CheckError(otherwise)


def _check_processes(project: ComposeProject) -> int:
    count = 0
    for container in project.servers():
        top = project.engine.output(["docker", "top", container.id, "-eo", "pid"])
        for pid in top.split()[1:]:
            text = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
            status = dict(line.split(":\t", 1) for line in text.splitlines() if ":\t" in line)
            _expect("0" not in status["Uid"].split(), f"{container.service} runs as root")
            _expect(int(status["CapEff"], 16) == 0, f"{container.service} has capabilities")
            _expect(status["NoNewPrivs"] == "1", f"{container.service} may gain privileges")
            count += 1
    return count


def _label_and_learn(project: ComposeProject, annotator: Annotator, found: list[str], count: int) -> None:
    before = annotator.version()
    annotator.label(count)
    took = _wait_until_learned(project, annotator, _EVENT_BAR_S)
    after = annotator.version()
    _expect(after != before, f"the version stayed {before}")
    found.append(f"{before} to {after}, all labels known {took:.1f} s after the last")


def _wait_until_learned(project: ComposeProject, annotator: Annotator, patience_s: float = _LEARN_BAR_S) -> float:
    """Until the serving version knows exactly Label Studio's labels, each once."""

    def is_learned() -> bool:
        return sorted(project.known_tasks(annotator.project_id)) == annotator.labelled()

    return project.wait_for(is_learned, patience_s, "the serving version to know all labels")


def _check_fault(project: ComposeProject, annotator: Annotator, service: str, found: list[str]) -> None:
    before, start = project.servers(service)[0], time.monotonic()
    project.kill(service)
    taken = _label_until(annotator, project.is_well, 3)
    project.wait_for(project.is_well, _HEAL_BAR_S, "all to be healthy again")
    after = project.servers(service)[0]
    _expect(after.state["StartedAt"] != before.state["StartedAt"], f"{service} was not restarted")
    healed = time.monotonic() - start
    _expect(healed < _HEAL_BAR_S, f"it took {healed:.0f} s")
    annotator.label(1)
    learned = _wait_until_learned(project, annotator)
    total = annotator.check_nothing_lost()
    found.append(
        f"healthy after {healed:.0f} s, {taken} labels taken meanwhile, all {total} known {learned:.0f} s later"
    )


def _label_until(annotator: Annotator, is_done: Callable[[], bool], at_most: int) -> int:
    """Label, a photo every two seconds, until it is done or enough are. Returns how many were taken."""
    taken, deadline = 0, time.monotonic() + _HEAL_BAR_S
    while taken < at_most and time.monotonic() < deadline and not (taken and is_done()):
        taken += annotator.try_label()
        time.sleep(2.0)
    return taken


def _check_scale(project: ComposeProject, annotator: Annotator, found: list[str]) -> None:
    scale = ["--scale", "worker=4", "--scale", "backend=2"]
    project.up("--no-recreate", *scale)
    count = len(project.servers("worker")), len(project.servers("backend"))
    _expect(count == (4, 2), f"expected 4 workers and 2 backends, got {count}")
    annotator.label(4)
    project.kill("worker")
    project.kill("backend")
    annotator.label(4)
    project.wait_for(project.is_well, _HEAL_BAR_S, "all to be healthy again")
    learned = _wait_until_learned(project, annotator)
    total = annotator.check_nothing_lost()
    doubled = {task: n for task, n in annotator.predictions().items() if n > 1}
    _expect(not doubled, f"tasks with more than one prediction: {doubled}")
    found.append(f"all {total} labels known {learned:.1f} s after healing, at most one prediction for each task")
    project.up("--no-recreate", "--scale", "worker=1", "--scale", "backend=1")


def _check_restart(project: ComposeProject, annotator: Annotator, found: list[str]) -> None:
    version = annotator.version()
    project.compose("down")
    start = time.monotonic()
    project.up()
    took = time.monotonic() - start
    total = annotator.check_nothing_lost()
    learned = _wait_until_learned(project, annotator)
    _expect(annotator.version() >= version, f"the version went back from {version} to {annotator.version()}")
    annotator.label(1)
    _wait_until_learned(project, annotator)
    found.append(f"{total} labels kept, up in {took:.0f} s, known {learned:.1f} s later, labelling goes on")


if __name__ == "__main__":
    main()
