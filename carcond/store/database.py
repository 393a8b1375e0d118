"""Opening the database: SQLite by default, or PostgreSQL."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, create_engine, event
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from carcond.errors import MissingStoreError, StoreError
from carcond.store.schema import known_revision, upgrade_schema


def open_database(database_url: str) -> Engine:
    """Open a database and bring its tables up to date.

    Raises:
        StoreError: it cannot be opened or written.
        NewerStoreError: a newer carcond has used it.
    """
    try:
        engine = _make_engine(database_url)
        try:
            upgrade_schema(engine)
        except BaseException:
            engine.dispose()
            raise
    except (SQLAlchemyError, OSError, ImportError) as error:
        raise StoreError(
            f"the store at {shown_address(database_url)} cannot be opened ({reason(error)}): "
            "check DATABASE_URL, whether its folder is writable, and the disk's space"
        ) from error
    return engine


def store_revision(database_url: str) -> str | None:
    """The revision of a store's tables, None before there are any. Nothing is made or upgraded.

    Raises:
        MissingStoreError: there is no database file.
        NewerStoreError: a newer carcond has used it.
        StoreError: it cannot be opened.
    """
    with _as_it_is(database_url) as engine, engine.connect() as connection:
        return known_revision(connection)


def check_writable(database_url: str) -> None:
    """Make sure that a store can be written, without changing anything in it.

    Raises:
        StoreError: it cannot.
    """
    with _as_it_is(database_url) as engine, engine.begin() as connection:
        connection.exec_driver_sql("UPDATE project SET watermark = watermark WHERE 1 = 0")


@contextmanager
def _as_it_is(database_url: str) -> Iterator[Engine]:
    """Read-only use of an existing database."""
    try:
        url = make_url(database_url)
        is_file = url.get_backend_name() == "sqlite" and url.database and not url.database.startswith("file:")
        if is_file and not Path(str(url.database)).exists():
            raise MissingStoreError(f"there is no store at {shown_address(database_url)}")
        engine = create_engine(url, hide_parameters=True)
        try:
            yield engine
        finally:
            engine.dispose()
    except (SQLAlchemyError, OSError, ImportError) as error:
        raise StoreError(reason(error)) from error


def reason(error: Exception) -> str:
    """Message of the database driver in one line, without the statement and its values."""
    said = str(getattr(error, "orig", None) or error).strip()
    return said.splitlines()[0] if said else type(error).__name__


def _make_engine(database_url: str) -> Engine:
    url = make_url(database_url)
    if url.get_backend_name() != "sqlite":
        # Otherwise the connection to a silent server would time out after two minutes.
        patience = {"connect_timeout": 10} if url.get_backend_name() == "postgresql" else {}
        return create_engine(url, hide_parameters=True, pool_pre_ping=True, connect_args=patience)
    if url.database and url.database != ":memory:":
        Path(url.database).parent.mkdir(parents=True, exist_ok=True)
        if not url.database.startswith("file:"):
            with suppress(OSError):  # SQLite itself says why it cannot be opened
                Path(url.database).touch(mode=0o660)  # the files that SQLite puts beside it get the same permissions
    engine = create_engine(url, hide_parameters=True, connect_args={"timeout": 15})

    @event.listens_for(engine, "connect")
    def _configure(connection: Any, _record: object) -> None:
        # Readers (the web process) and the writer (the worker) do not wait for each other. The mode
        # stays with the file: when it is locked, another process is about to set it.
        with suppress(sqlite3.OperationalError):
            connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=NORMAL")

    return engine


def shown_address(database_url: str) -> str:
    """A database's address without its password."""
    try:
        return make_url(database_url).render_as_string()  # hides the password
    except ArgumentError:
        return "an address that is none"
