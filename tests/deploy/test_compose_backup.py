"""Both scripts, on a stand-in for Docker that keeps volumes in folders. `scripts/check_compose` has a real engine."""

import os
import shutil
import subprocess
import sys
import tarfile
from dataclasses import dataclass
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
# What a stack holds: database or path in a volume -> content.
DATABASES = {"carcond": "sides of the split", "label_studio": "annotations"}
FILES = {
    "secrets/passwords.json": "hunter2",
    "label-studio/data/.env": "SECRET_KEY=x",
    "label-studio/data/media/upload/1/car.jpg": "a photo",
    "models/projects/1/current": "0001",
    "models/encoders/tuned-1/imagenet.safetensors": "the backbone's own head",
    "models/projects/1/versions/0001/card.json": "{}",
    "setup/projects.json": '{"photos": 1}',
    "label-studio/files/samples/0.jpg": "a drawing",
}
NOT_SAVED = {
    "secrets/carcond/environment": "written anew",
    "models/hub/weights": "from the hub",
    "models/projects/1/versions/.0002-x/card.json": "unfinished",
    "models/finetuning/1/photos/7": "a photo",
}
DOCKER = """
import pathlib, shutil, subprocess, sys
state, arguments = pathlib.Path(sys.argv[1]), sys.argv[2:]
volumes, databases = state / "volumes", state / "databases"
with (state / "calls").open("a") as log:
    log.write(" ".join(arguments) + "\\n")
here = lambda text: text.replace("-C /", f"-C {volumes}/")
match arguments:
    case ["compose", "config"]:
        print("name: carcond-test\\nservices: {}")
    case ["volume", "ls", "--quiet", "--filter", "label=com.docker.compose.project=carcond-test"]:
        print("\\n".join(sorted(p.name for p in volumes.iterdir())))
    case ["compose", "exec", "-T", "postgres", "pg_dump", *_, name]:
        sys.stdout.write((databases / name).read_text())
    case ["compose", "exec", "-T", "postgres", "pg_restore", *options]:
        name = options[options.index("--dbname") + 1]
        if (state / "broken").exists():
            sys.exit("pg_restore: error: could not execute query")
        (databases / name).write_text(sys.stdin.read())
    case ["compose", "run", "--rm", "-T", "--no-deps", "--entrypoint", "sh", _, "-c", line]:
        sys.exit(subprocess.run(["sh", "-c", here(line)]).returncode)
    case ["compose", "run", "--rm", "-T", "--no-deps", "--entrypoint", "tar", _, "-C", folder, *options]:
        target = volumes / folder.lstrip("/")
        target.mkdir(parents=True, exist_ok=True)
        sys.exit(subprocess.run(["tar", "-C", target, *options]).returncode)
    case ["compose", "run", "--rm", "-T", "databases"] | ["compose", "down"]:
        pass
    case ["compose", "up", *_, "--wait", "postgres"]:
        pass
    case ["compose", "down", "--volumes"]:
        shutil.rmtree(volumes)
        volumes.mkdir()
    case _:
        sys.exit(f"the stand-in does not know: {arguments}")
"""


@dataclass(frozen=True)
class FakeStack:
    """A stack whose volumes and databases are in `state`."""

    state: Path

    def fill(self) -> None:
        for name, text in FILES.items() | NOT_SAVED.items():
            path = self.state / "volumes" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        for name, text in DATABASES.items():
            (self.state / "databases" / name).write_text(text)

    def contents(self) -> tuple[dict[str, str], dict[str, str]]:
        return tuple(  # type: ignore[return-value]
            {p.relative_to(root).as_posix(): p.read_text() for p in sorted(root.rglob("*")) if p.is_file()}
            for root in (self.state / "volumes", self.state / "databases")
        )

    def empty(self) -> None:
        for name in ("volumes", "databases"):
            shutil.rmtree(self.state / name)
            (self.state / name).mkdir()

    def run(self, script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        environment = {"PATH": f"{self.state / 'bin'}:{os.environ['PATH']}"}
        command = [str(ROOT / "scripts" / script), *arguments]
        return subprocess.run(
            command, cwd=self.state.parent, env=environment, capture_output=True, text=True, check=False
        )


@pytest.fixture
def stack(tmp_path: Path) -> FakeStack:
    state = tmp_path / "state"
    for name in ("bin", "volumes", "databases"):
        (state / name).mkdir(parents=True)
    (state / "docker.py").write_text(DOCKER)
    (state / "bin" / "docker").write_text(f'#!/bin/sh\nexec {sys.executable} -SE {state}/docker.py {state} "$@"\n')
    (state / "bin" / "docker").chmod(0o755)
    made = FakeStack(state)
    made.fill()
    return made


@pytest.fixture
def backup(stack: FakeStack) -> Path:
    done = stack.run("compose_backup", "b.tar")
    assert done.returncode == 0, done.stderr
    return stack.state.parent / "b.tar"


def test_what_was_saved_is_restored_and_what_is_made_anew_is_not(stack: FakeStack, backup: Path) -> None:
    stack.empty()
    done = stack.run("compose_restore", "b.tar")
    assert done.returncode == 0, done.stderr
    assert stack.contents() == (dict(sorted(FILES.items())), DATABASES)
    assert "docker compose up" in done.stdout


def test_only_its_owner_can_read_a_backup_and_nothing_else_is_left(stack: FakeStack, backup: Path) -> None:
    assert backup.stat().st_mode & 0o777 == 0o600
    assert {path.name for path in backup.parent.iterdir()} == {"state", "b.tar"}


def test_the_databases_are_saved_before_the_files_they_speak_of(stack: FakeStack, backup: Path) -> None:
    calls = (stack.state / "calls").read_text().splitlines()
    assert [i for i, call in enumerate(calls) if "pg_dump" in call] == [1, 2]
    assert len(calls) > 3


def test_a_file_that_is_there_is_not_overwritten(stack: FakeStack, backup: Path) -> None:
    before = backup.read_bytes()
    done = stack.run("compose_backup", "b.tar")
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "is there already" in done.stderr
    assert backup.read_bytes() == before


def test_a_backup_that_fails_leaves_no_file(stack: FakeStack) -> None:
    (stack.state / "databases" / "label_studio").unlink()
    assert stack.run("compose_backup", "b.tar").returncode != 0
    assert {path.name for path in stack.state.parent.iterdir()} == {"state"}


def test_a_stack_with_data_is_refused_and_left_as_it_is(stack: FakeStack, backup: Path) -> None:
    before = stack.contents()
    done = stack.run("compose_restore", "b.tar")
    assert done.returncode == 1
    assert "the stack carcond-test has data already, in the volumes label-studio models secrets setup." in done.stderr
    assert stack.contents() == before


def test_volumes_of_the_monitoring_do_not_stand_in_the_way(stack: FakeStack, backup: Path) -> None:
    stack.empty()
    (stack.state / "volumes" / "carcond-test_prometheus").mkdir()
    done = stack.run("compose_restore", "b.tar")
    assert done.returncode == 0, done.stderr


def test_a_damaged_backup_is_refused_before_anything_is_made(stack: FakeStack, backup: Path) -> None:
    content = bytearray(backup.read_bytes())
    content[content.index(b"a drawing")] ^= 1
    backup.write_bytes(content)
    stack.empty()
    (stack.state / "calls").unlink()
    done = stack.run("compose_restore", "b.tar")
    assert done.returncode == 1
    assert "is damaged" in done.stderr
    assert not (stack.state / "calls").exists()


@pytest.mark.parametrize("part", ["SHA256SUMS", "models.tar", "label_studio.dump"])
def test_a_backup_without_one_of_its_parts_is_refused(stack: FakeStack, backup: Path, part: str) -> None:
    rewrite(backup, drop=part)
    stack.empty()
    done = stack.run("compose_restore", "b.tar")
    assert done.returncode == 1
    assert "is no backup" in done.stderr
    assert stack.contents() == ({}, {})


def test_a_list_of_checksums_that_leaves_one_out_is_refused(stack: FakeStack, backup: Path) -> None:
    rewrite(backup, shorten=True)
    stack.empty()
    done = stack.run("compose_restore", "b.tar")
    assert done.returncode == 1
    assert "list of checksums is not complete" in done.stderr


def test_a_link_in_the_place_of_a_part_is_refused(stack: FakeStack, backup: Path) -> None:
    rewrite(backup, link="setup.tar")
    stack.empty()
    done = stack.run("compose_restore", "b.tar")
    assert done.returncode == 1
    assert "is no backup" in done.stderr


def test_a_restore_that_fails_leaves_the_stack_as_empty_as_before(stack: FakeStack, backup: Path) -> None:
    stack.empty()
    (stack.state / "broken").touch()
    done = stack.run("compose_restore", "b.tar")
    assert done.returncode != 0
    assert "could not execute query" in done.stderr
    assert "as empty as before" in done.stderr
    assert stack.contents() == ({}, {})


def rewrite(backup: Path, drop: str = "", shorten: bool = False, link: str = "") -> None:
    """Change the parts of a backup."""
    folder = backup.parent / "parts"
    with tarfile.open(backup) as archive:
        archive.extractall(folder, filter="data")
    sums = folder / "SHA256SUMS"
    if shorten:
        sums.write_text("".join(sums.read_text().splitlines(keepends=True)[1:]))
    if drop:
        (folder / drop).unlink()
    if link:
        (folder / link).rename(folder.parent / link)
        (folder / link).symlink_to(folder.parent / link)
    with tarfile.open(backup, "w") as archive:
        for path in sorted(folder.iterdir()):
            archive.add(path, path.name)
    shutil.rmtree(folder)
