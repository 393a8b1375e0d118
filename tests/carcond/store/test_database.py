import multiprocessing
import sqlite3
from multiprocessing.synchronize import Barrier
from pathlib import Path

import pytest
from sqlalchemy import inspect

from carcond.errors import StoreError
from carcond.store.database import open_database
from carcond.store.schema import VERSION_TABLE
from carcond.store.tables import Base


def open_together(url: str, together: Barrier) -> None:
    together.wait()
    open_database(url).dispose()


def test_a_new_database_gets_its_folder_and_all_tables(tmp_path: Path) -> None:
    engine = open_database(f"sqlite:///{tmp_path}/deep/down/store.sqlite3")
    assert set(inspect(engine).get_table_names()) == {*Base.metadata.tables, VERSION_TABLE}
    engine.dispose()


def test_readers_and_the_writer_of_a_file_do_not_wait_for_each_other(tmp_path: Path) -> None:
    open_database(f"sqlite:///{tmp_path}/store.sqlite3").dispose()
    connection = sqlite3.connect(tmp_path / "store.sqlite3")
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    connection.close()


@pytest.mark.slow
def test_processes_that_start_together_all_open_a_new_database(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    together = context.Barrier(4)
    url = f"sqlite:///{tmp_path}/store.sqlite3"
    processes = [context.Process(target=open_together, args=(url, together)) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0] * 4


@pytest.mark.parametrize("url", ["nonsense", "", "mysterydb://me:hunter2@db/carcond", "sqlite:////proc/none/store"])
def test_an_address_that_cannot_be_opened_is_told_with_the_setting(url: str) -> None:
    with pytest.raises(StoreError, match="check DATABASE_URL"):
        open_database(url)


@pytest.mark.parametrize("url", ["mysterydb://me:hunter2@db/carcond", "postgresql+none://me:hunter2@db/x", "hunter2"])
def test_the_password_in_an_address_is_not_shown(url: str) -> None:
    with pytest.raises(StoreError) as caught:
        open_database(url)
    assert "hunter2" not in str(caught.value)


def test_a_folder_in_the_place_of_the_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="unable to open database file"):
        open_database(f"sqlite:///{tmp_path}")


def test_a_file_of_something_else_is_told_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "store").write_text("no database " * 100)
    with pytest.raises(StoreError, match="not a database"):
        open_database(f"sqlite:///{tmp_path}/store")
    assert (tmp_path / "store").read_text() == "no database " * 100
