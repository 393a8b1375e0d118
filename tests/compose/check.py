"""`scripts/check_compose`: the checks, one after the other, and the table of their results."""

import argparse
import shutil
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

from tests.compose.engine import CheckError, Engine
from tests.compose.project import ComposeProject
from tests.compose.report import Report, expect_bar
from tests.compose.running import check_running
from tests.compose.stand_ins import make_stand_ins, pip_config_for_builds

_ROOT = Path(__file__).resolve().parents[2]
_IMAGE_BAR_MB = 700


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(prog="scripts/check_compose", description=__doc__)
    default = Path(tempfile.gettempdir()) / "carcond-check-compose"
    parser.add_argument(
        "--work", type=Path, default=default, metavar="DIR", help="cache for the next check: %(default)s"
    )
    parser.add_argument("--result", type=Path, metavar="FILE", help="also write the table to this file")
    arguments = parser.parse_args()
    report = Report()
    engine = Engine(arguments.work.absolute())
    with suppress(CheckError):  # it is in the report
        try:
            _run(engine, report)
        finally:
            engine.stop()
            if arguments.result:
                arguments.result.write_text(report.table(), encoding="utf-8")
    sys.exit(report.failed)


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
        check_running(project, report)
    finally:
        project.compose("--profile", "*", "down", "--volumes", "--timeout", "3", check=False)


def _clone(engine: Engine) -> Path:
    """A clone of the last commit: uncommitted changes are not checked."""
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
    with report.check("build of the images"):
        project.compose("--profile", "*", "build")
    with report.check("`docker compose up` builds images that are missing"):
        project.engine.run(["docker", "image", "rm", "--no-prune", "carcond:check", "carcond-training:check"])
        project.compose("up", "--no-start")
    with report.check("build again after a change of code"):
        (project.checkout / "backend" / "__init__.py").write_text('"""The loop around Label Studio."""\n# changed\n')
        project.compose("--profile", "*", "build")
    with report.check(f"image of backend and worker under {_IMAGE_BAR_MB} MB") as found:
        sizes = {name: _size_mb(project, name) for name in ("carcond", "carcond-training", "carcond-demo")}
        found += [f"{name} {size:.0f} MB" for name, size in sizes.items()]
        expect_bar(sizes["carcond"] < _IMAGE_BAR_MB, f"more than {_IMAGE_BAR_MB} MB")


def _size_mb(project: ComposeProject, name: str) -> float:
    return int(project.engine.output(["docker", "image", "inspect", "-f", "{{.Size}}", f"{name}:check"])) / 1e6


if __name__ == "__main__":
    main()
