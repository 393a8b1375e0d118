import io
import json
import sqlite3
import stat
import subprocess
import tarfile
import tempfile
from collections.abc import Callable
from contextlib import closing, suppress
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.cli import backup_archive
from backend.cli.backup_archive import FORMAT, MANIFEST, is_sqlite_companion, unpack_archive, write_archive
from carcond.errors import BackupError
from tests.damage import damaged_bytes
from tests.disk import full_disk

Rewrite = Callable[[list[tuple[tarfile.TarInfo, bytes]]], None]


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "photo.bin"
    path.write_bytes(bytes(range(256)) * 5000)
    return path


@pytest.fixture
def archive(tmp_path: Path, photo: Path) -> Path:
    text = tmp_path / "text"
    text.write_text("words")
    write_archive(tmp_path / "backup.tar", [("a/b/photo.bin", photo), ("text", text)], {"photos/x": "/cars"})
    return tmp_path / "backup.tar"


@pytest.fixture
def target(tmp_path: Path) -> Path:
    (tmp_path / "target").mkdir()
    return tmp_path / "target"


def rewrite(archive: Path, change: Rewrite) -> None:
    """Change an archive's members, as somebody who means harm would."""
    with tarfile.open(archive) as old:
        members = [(m, (old.extractfile(m) or io.BytesIO()).read()) for m in old.getmembers()]
    change(members)
    with tarfile.open(archive, "w") as new:
        for member, content in members:
            member.size = len(content) if member.isreg() else 0
            new.addfile(member, io.BytesIO(content))


def with_manifest(archive: Path, **fields: Any) -> None:
    def change(members: list[tuple[tarfile.TarInfo, bytes]]) -> None:
        member, content = members.pop()
        members.append((member, json.dumps(json.loads(content) | fields).encode()))

    rewrite(archive, change)


def everything_below(directory: Path) -> set[str]:
    return {path.relative_to(directory).as_posix() for path in directory.rglob("*")}


def test_what_was_packed_is_unpacked(archive: Path, photo: Path, target: Path) -> None:
    manifest = unpack_archive(archive, target)
    assert (target / "a/b/photo.bin").read_bytes() == photo.read_bytes()
    assert (target / "text").read_text() == "words"
    assert manifest.links == {"photos/x": "/cars"}
    assert everything_below(target) == {"a", "a/b", "a/b/photo.bin", "text"}


def test_the_manifest_has_checksums_that_others_would_compute(archive: Path, photo: Path) -> None:
    with tarfile.open(archive) as opened:
        assert opened.getnames()[-1] == MANIFEST
        member = opened.extractfile(MANIFEST)
        assert member is not None
        files = json.loads(member.read())["files"]
    assert files == {"a/b/photo.bin": sha256(photo.read_bytes()).hexdigest(), "text": sha256(b"words").hexdigest()}


def test_only_its_owner_can_read_an_archive(archive: Path) -> None:
    assert stat.S_IMODE(archive.stat().st_mode) == 0o600


def test_a_private_file_stays_private_and_others_cannot_write_any(tmp_path: Path, target: Path) -> None:
    for name, mode in {"secret": 0o600, "open": 0o666}.items():
        (tmp_path / name).touch()
        (tmp_path / name).chmod(mode)
    write_archive(tmp_path / "b.tar", [("secret", tmp_path / "secret"), ("open", tmp_path / "open")], {})
    unpack_archive(tmp_path / "b.tar", target)
    assert [stat.S_IMODE((target / name).stat().st_mode) for name in ("secret", "open")] == [0o600, 0o640]


def test_a_file_that_is_there_is_not_overwritten(tmp_path: Path, photo: Path) -> None:
    (tmp_path / "b.tar").write_text("precious")
    with pytest.raises(BackupError, match="is there already"):
        write_archive(tmp_path / "b.tar", [("photo", photo)], {})
    assert (tmp_path / "b.tar").read_text() == "precious"


def test_a_file_that_has_just_vanished_is_left_out(tmp_path: Path, photo: Path, target: Path) -> None:
    write_archive(tmp_path / "b.tar", [("gone", tmp_path / "gone"), ("photo", photo)], {})
    assert set(unpack_archive(tmp_path / "b.tar", target).files) == {"photo"}


def test_a_full_disk_leaves_no_part_of_an_archive(tmp_path: Path, photo: Path) -> None:
    before = everything_below(tmp_path)
    with full_disk(100_000), pytest.raises(BackupError, match=r"cannot be written: .*File too large"):
        write_archive(tmp_path / "b.tar", [("photo", photo)], {})
    assert everything_below(tmp_path) == before


def test_a_missing_folder_is_told(tmp_path: Path, photo: Path) -> None:
    with pytest.raises(BackupError, match="No such file or directory"):
        write_archive(tmp_path / "none" / "b.tar", [("photo", photo)], {})


# SQLite


def test_a_database_is_copied_whole_while_it_is_written(tmp_path: Path, target: Path) -> None:
    path = tmp_path / "data.sqlite3"
    with closing(sqlite3.connect(path, isolation_level=None)) as writer:
        writer.execute("PRAGMA journal_mode=WAL")
        writer.execute("CREATE TABLE label (word TEXT)")
        writer.execute("INSERT INTO label VALUES ('clean')")  # in the log beside the file, not in the file
        assert b"clean" not in path.read_bytes()
        writer.execute("BEGIN IMMEDIATE")
        writer.execute("INSERT INTO label VALUES ('not committed')")
        write_archive(tmp_path / "b.tar", [("data.sqlite3", path)], {})
        writer.execute("COMMIT")
    unpack_archive(tmp_path / "b.tar", target)
    assert everything_below(target) == {"data.sqlite3"}
    with closing(sqlite3.connect(target / "data.sqlite3")) as copy:
        assert copy.execute("SELECT word FROM label").fetchall() == [("clean",)]
        assert copy.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert copy.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_a_copied_database_keeps_its_mode(tmp_path: Path, target: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "data")) as connection:
        connection.execute("CREATE TABLE label (word TEXT)")
    (tmp_path / "data").chmod(0o600)
    write_archive(tmp_path / "b.tar", [("data", tmp_path / "data")], {})
    unpack_archive(tmp_path / "b.tar", target)
    assert stat.S_IMODE((target / "data").stat().st_mode) == 0o600


def test_files_that_sqlite_keeps_beside_a_database_are_known(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "data")) as connection:
        connection.execute("CREATE TABLE label (word TEXT)")
    (tmp_path / "text").write_text("words")
    for name in ("data-wal", "data-shm", "text-wal", "data.log"):
        (tmp_path / name).touch()
    assert [n for n in sorted(everything_below(tmp_path)) if is_sqlite_companion(tmp_path / n)] == [
        "data-shm",
        "data-wal",
    ]


def test_a_damaged_database_is_told(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "data")) as connection:
        connection.execute("CREATE TABLE label (word TEXT)")
    content = (tmp_path / "data").read_bytes()
    (tmp_path / "data").write_bytes(content[:16] + b"x" * (len(content) - 16))
    with pytest.raises(BackupError, match="not a database"):
        write_archive(tmp_path / "b.tar", [("data", tmp_path / "data")], {})


# Archives that are not sound


@pytest.mark.parametrize("part", [0.0, 0.2, 0.9, 0.99])
def test_an_archive_that_was_cut_off_is_refused(archive: Path, target: Path, part: float) -> None:
    content = archive.read_bytes().rstrip(b"\0")
    archive.write_bytes(content[: int(len(content) * part)])
    with pytest.raises(BackupError, match=r"cannot be unpacked|its end is missing|malformed"):
        unpack_archive(archive, target)


def test_a_changed_byte_is_found(archive: Path, target: Path) -> None:
    content = bytearray(archive.read_bytes())
    content[100_000] ^= 1
    archive.write_bytes(content)
    with pytest.raises(BackupError, match=r"is damaged \(1 files, like a/b/photo.bin\)"):
        unpack_archive(archive, target)


def test_a_member_that_is_missing_or_too_many_is_found(archive: Path, target: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy.tar"
    copy.write_bytes(archive.read_bytes())
    rewrite(archive, lambda members: members.pop(0) and None)
    with pytest.raises(BackupError, match=r"like a/b/photo\.bin"):
        unpack_archive(archive, target)
    rewrite(copy, lambda members: members.insert(0, (tarfile.TarInfo("extra"), b"")))
    (tmp_path / "other").mkdir()
    with pytest.raises(BackupError, match="like extra"):
        unpack_archive(copy, tmp_path / "other")


@pytest.mark.parametrize("name", ["../escaped", "/carcond-escaped", "a/../../escaped", "a//b", "./a", ".."])
def test_a_name_that_leads_out_of_the_target_is_refused(archive: Path, target: Path, tmp_path: Path, name: str) -> None:
    rewrite(archive, lambda members: members.insert(0, (tarfile.TarInfo(name), b"evil")))
    with pytest.raises(BackupError, match="expected plain files inside of it"):
        unpack_archive(archive, target)
    assert everything_below(target) == set()
    assert not (tmp_path / "escaped").exists()
    assert not Path("/carcond-escaped").exists()


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.DIRTYPE]
)
def test_anything_but_a_plain_file_is_refused(archive: Path, target: Path, kind: bytes) -> None:
    member = tarfile.TarInfo("odd")
    member.type, member.linkname = kind, "/etc/passwd"
    rewrite(archive, lambda members: members.insert(0, (member, b"")))
    with pytest.raises(BackupError, match="expected plain files inside of it, got 'odd'"):
        unpack_archive(archive, target)
    assert everything_below(target) == set()


@pytest.mark.parametrize("kind", ["gnu", "pax", "posix --sparse-version=0.0", "posix --sparse-version=0.1"])
def test_a_sparse_file_which_would_fill_the_disk_is_refused(tmp_path: Path, target: Path, kind: str) -> None:
    with (tmp_path / "huge").open("wb") as file:
        file.truncate(1 << 40)
    command = ["tar", "--sparse", *f"--format={kind}".split(), "-cf", "b.tar", "huge"]
    subprocess.run(command, cwd=tmp_path, check=True, timeout=60)
    assert (tmp_path / "b.tar").stat().st_size < 20_000
    with pytest.raises(BackupError, match="expected plain files inside of it, got 'huge'"):
        unpack_archive(tmp_path / "b.tar", target)
    assert everything_below(target) == set()


@given(data=st.data())
def test_a_damaged_archive_is_unpacked_or_refused_and_nothing_leaves_the_target(data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        (home / "text").write_text("words")
        (home / "photo").write_bytes(bytes(range(256)) * 5)
        for name in ("gnu", "pax"):
            with tarfile.open(
                home / name, "w", format=tarfile.GNU_FORMAT if name == "gnu" else tarfile.PAX_FORMAT
            ) as tar:
                tar.add(home / "text", "text")
                long = tarfile.TarInfo("слово/" + "x" * 120)
                long.size, long.pax_headers = 1280, {"comment": "words"}
                tar.addfile(long, io.BytesIO((home / "photo").read_bytes()))
        write_archive(home / "ours", [("a/photo", home / "photo"), ("text", home / "text")], {})
        originals = [(home / name).read_bytes() for name in ("gnu", "pax", "ours", "ours")]
        (home / "b.tar").write_bytes(data.draw(damaged_bytes(originals)))
        (home / "target").mkdir()
        with suppress(BackupError):
            unpack_archive(home / "b.tar", home / "target")
        assert {path.name for path in home.iterdir()} == {"text", "photo", "gnu", "pax", "ours", "b.tar", "target"}


def test_a_manifest_that_memory_might_not_hold_is_refused(
    archive: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backup_archive, "_MAX_MANIFEST", 100)
    with pytest.raises(BackupError, match=r"expected a manifest\.json of at most 100 bytes"):
        unpack_archive(archive, target)


def test_two_members_of_one_name_are_refused(archive: Path, target: Path) -> None:
    rewrite(archive, lambda members: members.insert(0, members[0]))
    with pytest.raises(BackupError, match="File exists"):
        unpack_archive(archive, target)


def test_something_after_the_manifest_is_refused(archive: Path, target: Path) -> None:
    rewrite(archive, lambda members: members.append((tarfile.TarInfo("late"), b"")))
    with pytest.raises(BackupError, match="got 'late'"):
        unpack_archive(archive, target)


def test_an_archive_of_a_newer_format_is_refused_with_what_to_do(archive: Path, target: Path) -> None:
    with_manifest(archive, format=FORMAT + 1, files="called otherwise")
    with pytest.raises(BackupError, match=f"of format {FORMAT} or older.*of format {FORMAT + 1}: restore it with"):
        unpack_archive(archive, target)


@pytest.mark.parametrize("content", [b"", b"{}", b'{"format": 1, "files": [1]}', b"\xff"])
def test_a_malformed_manifest_is_told(archive: Path, target: Path, content: bytes) -> None:
    rewrite(archive, lambda members: members.__setitem__(-1, (members[-1][0], content)))
    with pytest.raises(BackupError, match=r"manifest\.json is malformed"):
        unpack_archive(archive, target)


def test_a_file_of_something_else_is_told(tmp_path: Path, target: Path) -> None:
    (tmp_path / "b.tar").write_text("no archive " * 200)
    with pytest.raises(BackupError, match="cannot be unpacked"):
        unpack_archive(tmp_path / "b.tar", target)
