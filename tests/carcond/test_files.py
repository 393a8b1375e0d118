import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from carcond.files import append_lines, new_directory, replace_text
from carcond.store.database import open_database
from tests.disk import full_disk


def test_replacing_makes_the_file_when_it_is_new(tmp_path: Path) -> None:
    replace_text(tmp_path / "file", "слово\n")
    assert (tmp_path / "file").read_text(encoding="utf-8") == "слово\n"


def test_a_reader_with_the_old_file_open_goes_on_reading_the_old_text(tmp_path: Path) -> None:
    replace_text(tmp_path / "file", "old")
    with (tmp_path / "file").open() as reader:
        replace_text(tmp_path / "file", "new")
        assert reader.read() == "old"
    assert (tmp_path / "file").read_text() == "new"


def test_a_replaced_file_can_be_read_by_its_group_and_by_no_other_user(tmp_path: Path) -> None:
    replace_text(tmp_path / "file", "text")
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o640


def test_on_a_full_disk_the_old_text_stays_and_nothing_else(tmp_path: Path) -> None:
    replace_text(tmp_path / "file", "old")
    with full_disk(100), pytest.raises(OSError, match="File too large"):
        replace_text(tmp_path / "file", "x" * 1000)
    assert (tmp_path / "file").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_new_directory_is_not_seen_before_it_is_complete(tmp_path: Path) -> None:
    with new_directory(tmp_path / "parent" / "new") as draft:
        (draft / "file").write_text("text")
        assert not (tmp_path / "parent" / "new").exists()
    assert (tmp_path / "parent" / "new" / "file").read_text() == "text"
    assert [path.name for path in (tmp_path / "parent").iterdir()] == ["new"]


def test_a_block_that_raises_leaves_no_directory_behind(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="stop"), new_directory(tmp_path / "new") as draft:  # noqa: PT012
        (draft / "file").write_text("text")
        raise ValueError("stop")
    assert list(tmp_path.iterdir()) == []


def test_a_directory_that_somebody_made_meanwhile_stays(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="not empty"), new_directory(tmp_path / "new") as draft:  # noqa: PT012
        (draft / "file").write_text("mine")
        (tmp_path / "new").mkdir()
        (tmp_path / "new" / "file").write_text("theirs")
    assert (tmp_path / "new" / "file").read_text() == "theirs"
    assert [path.name for path in tmp_path.iterdir()] == ["new"]


@pytest.fixture
def no_umask() -> Iterator[None]:
    """Every right that a program grants is really granted."""
    before = os.umask(0)
    try:
        yield
    finally:
        os.umask(before)


@pytest.mark.usefixtures("no_umask")
def test_other_users_get_no_access_without_a_umask_either(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    replace_text(tmp_path / "replaced", "text")
    append_lines(tmp_path / "appended", "text\n")
    with new_directory(tmp_path / "new") as draft:
        (draft / "file").write_text("text")
    open_database(f"sqlite:///{tmp_path}/store.sqlite3").dispose()
    modes = {path.relative_to(tmp_path).as_posix(): path.stat().st_mode & 0o777 for path in tmp_path.rglob("*")}
    assert set(modes) >= {"replaced", "appended", "new", "new/file", "store.sqlite3"}
    assert {name: oct(mode) for name, mode in modes.items() if mode & 0o007} == {}


_ENTRY_POINTS = {
    "carcond": "from backend.cli.main import main; main()",
    "worker": "from backend.worker.__main__ import main; main()",
    "gunicorn": "import backend.gunicorn_conf",
    "up": "from scripts.up import main; main()",
    "add_photos": "from scripts.add_photos import main; main()",
}


@pytest.mark.parametrize("name", _ENTRY_POINTS)
def test_each_program_takes_access_from_other_users_before_it_does_anything(name: str, tmp_path: Path) -> None:
    """Each is started with a umask of 000, and ends at its first look at its arguments."""
    program = (
        "import atexit, os, pathlib, sys\n"
        "atexit.register(lambda: pathlib.Path(sys.argv.pop()).mkdir())\n"
        f"sys.argv.insert(1, '--help')\n{_ENTRY_POINTS[name]}"
    )
    made = tmp_path / "made"
    subprocess.run([sys.executable, "-c", program, str(made)], umask=0, check=False, timeout=60, capture_output=True)
    assert oct(made.stat().st_mode & 0o777) == oct(0o750)
