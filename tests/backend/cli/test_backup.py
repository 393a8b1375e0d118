import errno
import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from backend.cli.backup import back_up, restore
from backend.cli.backup_archive import write_archive
from backend.cli.main import app
from carcond.errors import BackupError
from carcond.registry.pruning import prune
from carcond.registry.registry import Registry
from scripts.preflight import DataLock
from tests.carcond.registry.test_registry import publish
from tests.disk import full_disk


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data folder as `scripts/up` makes it, of a stack that runs on it or was killed."""
    folder = tmp_path / "data"
    texts = {
        "secrets.json": '{"label_studio_password": "hunter2"}',
        "projects.json": '{"samples": 1}',
        "environment": f"REDIS_URL=redis://:x@127.0.0.1/0\nCARCOND_MODELS_DIR='{folder / 'models'}'\n",
        "lock": "123",
        "setup.lock": "",
        "logs/worker.log": "words",
        "redis/appendonlydir/log": "jobs",
        "label-studio-venv/bin/python": "a program",
        "label-studio/.env": "SECRET_KEY=x",
        "label-studio/media/upload/1/car.jpg": "a photo",
        "models/encoders/current": "tiny\n",
        "models/projects/1/current": "0001\n",
        "models/projects/1/versions/0001/card.json": "{}",
        "models/projects/1/versions/.0002-abc/card.json": "unfinished",
        "models/finetuning/1/photos/7": "a photo",
        "models/cache/pools/1/tiny/facts.npz": "numbers",
        "sample-photos/0.jpg": "a drawing",
        "replaced-20260101-000000/secrets.json": "old",
    }
    for name, text in texts.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    (folder / "secrets.json").chmod(0o600)
    for name in ("carcond.sqlite3", "label-studio/label_studio.sqlite3"):
        with closing(sqlite3.connect(folder / name)) as connection:
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("CREATE TABLE label (word TEXT)")
            connection.execute("INSERT INTO label VALUES ('clean')")
            connection.commit()
    (tmp_path / "cars").mkdir()
    (folder / "photos").mkdir()
    (folder / "photos" / "cars-1").symlink_to(tmp_path / "cars")
    (folder / "photos" / "samples-2").symlink_to(folder / "sample-photos")
    return folder


SAVED = {
    "carcond.sqlite3",
    "label-studio/.env",
    "label-studio/label_studio.sqlite3",
    "label-studio/media/upload/1/car.jpg",
    "models/encoders/current",
    "models/projects/1/current",
    "models/projects/1/versions/0001/card.json",
    "projects.json",
    "sample-photos/0.jpg",
    "secrets.json",
}


def files_below(folder: Path) -> set[str]:
    found = set()
    for directory, _, names in os.walk(folder):
        found |= {(Path(directory) / name).relative_to(folder).as_posix() for name in names}
    return found


def labels(path: Path) -> list[str]:
    with closing(sqlite3.connect(path)) as connection:
        return [word for (word,) in connection.execute("SELECT word FROM label")]


def test_a_backup_holds_all_that_matters_and_nothing_else(data: Path, tmp_path: Path) -> None:
    manifest = back_up(data, tmp_path / "b.tar")
    assert set(manifest.files) == SAVED


def test_what_nobody_has_thought_of_is_saved(data: Path, tmp_path: Path) -> None:
    (data / "verdicts.json").touch()
    assert "verdicts.json" in back_up(data, tmp_path / "b.tar").files


def test_a_version_is_saved_after_the_file_that_names_it(data: Path, tmp_path: Path) -> None:
    names = list(back_up(data, tmp_path / "b.tar").files)
    assert names.index("models/projects/1/current") < names.index("models/projects/1/versions/0001/card.json")
    assert names.index("carcond.sqlite3") < names.index("models/projects/1/current")


def test_a_backup_is_restored_in_a_fresh_folder_while_the_old_one_is_in_use(data: Path, tmp_path: Path) -> None:
    lock = DataLock(data)
    lock.acquire()
    with closing(sqlite3.connect(data / "label-studio/label_studio.sqlite3")) as label_studio:
        label_studio.execute("INSERT INTO label VALUES ('very dirty')")
        label_studio.commit()
        back_up(data, tmp_path / "b.tar")
    lock.release()
    fresh = tmp_path / "else" / "where"
    done = restore(tmp_path / "b.tar", fresh)
    assert files_below(fresh) - {"lock"} == SAVED
    assert labels(fresh / "label-studio/label_studio.sqlite3") == ["clean", "very dirty"]
    assert (fresh / "secrets.json").read_text() == (data / "secrets.json").read_text()
    assert [path.stat().st_mode & 0o077 for path in (fresh, fresh / "secrets.json")] == [0, 0]
    assert done.replaced is None


def test_links_to_photos_lead_where_they_led_and_those_inside_follow_the_folder(data: Path, tmp_path: Path) -> None:
    back_up(data, tmp_path / "b.tar")
    restore(tmp_path / "b.tar", tmp_path / "fresh")
    links = tmp_path / "fresh" / "photos"
    assert (links / "cars-1").resolve() == tmp_path / "cars"
    assert (links / "samples-2").resolve() == tmp_path / "fresh" / "sample-photos"


def test_models_that_were_kept_elsewhere_are_saved(data: Path, tmp_path: Path) -> None:
    (tmp_path / "my models").mkdir()
    (tmp_path / "my models" / "card.json").touch()
    (data / "environment").write_text(f"CARCOND_MODELS_DIR='{tmp_path / 'my models'}'\n")
    names = set(back_up(data, tmp_path / "b.tar").files)
    assert {name for name in names if name.startswith("models/")} == {"models/card.json"}


def test_a_stack_that_never_ran_has_its_models_in_the_folder(data: Path, tmp_path: Path) -> None:
    (data / "environment").unlink()
    assert "models/projects/1/current" in back_up(data, tmp_path / "b.tar").files


def test_a_folder_without_data_is_not_backed_up(tmp_path: Path) -> None:
    (tmp_path / "data" / "logs").mkdir(parents=True)
    for folder in (tmp_path / "data", tmp_path / "missing"):
        with pytest.raises(BackupError, match="has no data: name it with --data"):
            back_up(folder, tmp_path / "b.tar")


def test_a_backup_inside_of_what_it_saves_is_refused(data: Path) -> None:
    with pytest.raises(BackupError, match="inside of what is to be saved"):
        back_up(data, data / "b.tar")


@pytest.mark.parametrize("closed", [".", "photos"])
def test_a_folder_that_belongs_to_somebody_else_is_told(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, closed: str
) -> None:
    iterdir = Path.iterdir

    def refuse(path: Path) -> Iterator[Path]:
        if path == data / closed:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return iterdir(path)

    monkeypatch.setattr(Path, "iterdir", refuse)
    with pytest.raises(BackupError, match=rf"cannot be backed up: .*Permission denied: '{data / closed}'"):
        back_up(data, tmp_path / "b.tar")
    assert not (tmp_path / "b.tar").exists()


def test_a_folder_inside_that_cannot_be_read_is_told_instead_of_left_out(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scandir, closed = os.scandir, str(data / "label-studio" / "media")

    def refuse(path: str) -> Iterator[os.DirEntry[str]]:
        if str(path) == closed:
            raise PermissionError(errno.EACCES, "Permission denied", closed)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(BackupError, match=f"Permission denied: '{closed}'"):
        back_up(data, tmp_path / "b.tar")
    assert not (tmp_path / "b.tar").exists()


# Targets


def test_a_folder_that_setup_has_made_counts_as_empty(data: Path, tmp_path: Path) -> None:
    back_up(data, tmp_path / "b.tar")
    fresh = tmp_path / "fresh"
    (fresh / "label-studio-venv").mkdir(parents=True)
    (fresh / "setup.lock").touch()
    restore(tmp_path / "b.tar", fresh)
    assert (fresh / "label-studio-venv").is_dir()
    assert (fresh / "secrets.json").is_file()


def test_a_folder_with_data_is_refused_and_left_as_it_is(data: Path, tmp_path: Path) -> None:
    back_up(data, tmp_path / "b.tar")
    before = files_below(data)
    with pytest.raises(BackupError, match=r"has data already .*move them aside with --replace"):
        restore(tmp_path / "b.tar", data)
    assert files_below(data) == before


def test_when_told_so_data_are_moved_aside_and_kept(data: Path, tmp_path: Path) -> None:
    back_up(data, tmp_path / "b.tar")
    (data / "label-studio" / "label_studio.sqlite3-wal").write_text("must not meet the restored database")
    (data / "secrets.json").write_text("changed since")
    done = restore(tmp_path / "b.tar", data, replace=True)
    assert done.replaced is not None
    assert (done.replaced / "secrets.json").read_text() == "changed since"
    assert (done.replaced / "label-studio" / "label_studio.sqlite3-wal").exists()
    assert "hunter2" in (data / "secrets.json").read_text()
    assert not (data / "label-studio" / "label_studio.sqlite3-wal").exists()
    assert labels(data / "carcond.sqlite3") == ["clean"]
    assert set(back_up(data, tmp_path / "again.tar").files) == SAVED


def test_nothing_is_restored_under_a_running_stack(data: Path, tmp_path: Path) -> None:
    back_up(data, tmp_path / "b.tar")
    lock = DataLock(data)
    lock.acquire()
    with pytest.raises(BackupError, match=r"a stack runs on .*stop it"):
        restore(tmp_path / "b.tar", data, replace=True)
    lock.release()


# All or nothing


def test_a_damaged_backup_leaves_the_data_that_are_there(data: Path, tmp_path: Path) -> None:
    back_up(data, tmp_path / "b.tar")
    content = bytearray((tmp_path / "b.tar").read_bytes())
    content[content.index(b"a drawing")] ^= 1
    (tmp_path / "b.tar").write_bytes(content)
    before = files_below(data)
    with pytest.raises(BackupError, match="is damaged"):
        restore(tmp_path / "b.tar", data, replace=True)
    assert files_below(data) == before


def test_a_disk_that_fills_up_leaves_the_data_that_are_there(data: Path, tmp_path: Path) -> None:
    (data / "label-studio" / "media" / "upload" / "1" / "big.jpg").write_bytes(b"x" * 500_000)
    back_up(data, tmp_path / "b.tar")
    before = files_below(data)
    with full_disk(200_000), pytest.raises(BackupError, match="File too large"):
        restore(tmp_path / "b.tar", data, replace=True)
    assert files_below(data) == before


def test_a_disk_without_room_is_told_before_anything_is_unpacked(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    back_up(data, tmp_path / "b.tar")
    monkeypatch.setattr("backend.cli.backup.shutil.disk_usage", lambda _path: SimpleNamespace(free=10))
    with pytest.raises(BackupError, match=r"too full: .* are needed, 10 are free"):
        restore(tmp_path / "b.tar", tmp_path / "fresh")
    assert files_below(tmp_path / "fresh") == {"lock"}


def test_a_move_that_fails_undoes_those_before_it(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    back_up(data, tmp_path / "b.tar")
    before = files_below(data)
    rename, moved = Path.rename, []

    def fail_late(path: Path, target: Path) -> Path:
        moved.append(path)
        if len(moved) == 8:
            raise OSError("the power is off")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", fail_late)
    with pytest.raises(BackupError, match="the power is off"):
        restore(tmp_path / "b.tar", data, replace=True)
    assert files_below(data) == before
    assert len(list(data.glob("replaced-*"))) == 1  # of long ago


@pytest.mark.parametrize("name", ["models", "photos/../models", "photos/a/b", "/photos/a"])
def test_a_link_to_anywhere_but_photos_is_refused(data: Path, tmp_path: Path, name: str) -> None:
    write_archive(tmp_path / "b.tar", [("secrets.json", data / "secrets.json")], {name: "/etc"})
    with pytest.raises(BackupError, match="expected links in photos/ only"):
        restore(tmp_path / "b.tar", tmp_path / "fresh")
    assert files_below(tmp_path / "fresh") == {"lock"}


@pytest.mark.parametrize(
    "name",
    ["label-studio-venv/bin/label-studio", "environment", "redis/redis.conf", "lock/x", "replaced-x/y", "restore-x/y"],
)
def test_a_file_that_no_backup_holds_is_refused_and_nothing_of_it_is_left(
    data: Path, tmp_path: Path, name: str
) -> None:
    write_archive(tmp_path / "b.tar", [("secrets.json", data / "secrets.json"), (name, data / "projects.json")], {})
    before = files_below(data)
    with pytest.raises(BackupError, match=f"expected nothing that .* got '{name.partition('/')[0]}'"):
        restore(tmp_path / "b.tar", data, replace=True)
    assert files_below(data) == before


# Commands


def test_the_commands_say_what_they_did_and_what_is_not_in_it(data: Path, tmp_path: Path) -> None:
    file, fresh = str(tmp_path / "b.tar"), str(tmp_path / "fresh")
    said = CliRunner().invoke(app, ["backup", file, "--data", str(data)]).stdout
    assert f"wrote {file}: 10 files" in said
    assert "passwords: only you can read it" in said
    assert f"not in it: the photos in {tmp_path / 'cars'}" in said
    (tmp_path / "cars").rmdir()
    said = CliRunner().invoke(app, ["restore", file, "--data", fresh]).stdout
    assert "restored the 10 files" in said
    assert f"MISSING here; when they are elsewhere: ln -sfn PLACE {fresh}/photos/cars-1" in said
    assert f"scripts/up --data {fresh}" in said


def test_the_commands_print_json_only_when_asked(data: Path, tmp_path: Path) -> None:
    file = str(tmp_path / "b.tar")
    facts = json.loads(CliRunner().invoke(app, ["backup", file, "--data", str(data), "--json"]).stdout)
    assert (facts["files"], facts["bytes"]) == (10, os.stat(file).st_size)
    arguments = ["restore", file, "--data", str(data), "--replace", "--json"]
    facts = json.loads(CliRunner().invoke(app, arguments).stdout)
    assert facts["files"] == 10
    assert Path(facts["replaced"]).is_dir()


@pytest.mark.slow
def test_a_refusal_is_one_line_and_exit_code_1(tmp_path: Path) -> None:
    program = "from backend.cli.main import main; main()"
    command = [sys.executable, "-c", program, "restore", str(tmp_path / "missing.tar"), "--data", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    assert "missing.tar" in done.stderr


def test_a_pin_and_what_was_pruned_come_back(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("carcond.registry.pruning.NEWEST", 1)
    registry = Registry(data / "models", 2)
    for value in (1, 2, 3):
        publish(registry, value)
    registry.pin_serving(3, "anna", "measured")
    prune(registry)
    back_up(data, tmp_path / "backup.tar")
    restore(tmp_path / "backup.tar", tmp_path / "restored")
    restored = Registry(tmp_path / "restored" / "models", 2)
    assert restored.pin() == registry.pin()
    assert (restored.numbers(), list(restored.pruned())) == ([1, 3], [2])
