"""The doctor looks at databases as they are: it makes and upgrades none."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from backend.doctor.database import check_database
from carcond.store.store import Store
from tests.backend.doctor.conftest import Look

OLD_STORES = Path(__file__).parents[2] / "carcond" / "old_stores"


def test_a_store_in_use_is_fine(look: Look, store: Store, tmp_path: Path) -> None:
    store.add_project(1)
    assert set(look(check_database, DATABASE_URL=f"sqlite:///{tmp_path / 'store.sqlite3'}")) == {""}
    assert store.project_ids() == [1]


def test_a_store_that_is_not_there_is_told_and_not_made(look: Look, tmp_path: Path) -> None:
    path = tmp_path / "folder" / "none.sqlite3"
    found = look(check_database, DATABASE_URL=f"sqlite:///{path}")
    assert str(path) in found["database-missing"].what
    assert not path.parent.exists()


def test_a_server_that_is_not_there_is_told_without_its_password(look: Look) -> None:
    found = look(check_database, DATABASE_URL="postgresql+psycopg://carcond:hidden@127.0.0.1:9/carcond")
    assert "hidden" not in str(found["database-unreachable"])


@pytest.mark.parametrize("url", ["nonsense", "sqlite:////dev/null"])
def test_what_is_no_database_is_told(look: Look, url: str) -> None:
    assert {"database-unreachable", "database-older"} & set(look(check_database, DATABASE_URL=url))


def test_a_store_that_cannot_be_written_is_told(look: Look, store: Store, tmp_path: Path) -> None:
    store.project_ids()
    url = f"sqlite:///file:{tmp_path / 'store.sqlite3'}?mode=ro&uri=true"
    assert "readonly" in look(check_database, DATABASE_URL=url)["database-not-writable"].what


def test_a_newer_store_is_told(look: Look, newer_store: str) -> None:
    assert "'0107'" in look(check_database, DATABASE_URL=newer_store)["database-newer"].what


def test_an_older_store_is_told_and_not_upgraded(look: Look, tmp_path: Path) -> None:
    path = tmp_path / "old.sqlite3"
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript((OLD_STORES / "sqlite.sql").read_text(encoding="utf-8"))
    before = path.read_bytes()
    assert "database-older" in look(check_database, DATABASE_URL=f"sqlite:///{path}")
    assert path.read_bytes() == before
