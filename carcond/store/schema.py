"""Revision of a database's tables, and their migration to this program's revision under a lock."""

import logging
from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, Engine, inspect, text

from carcond.errors import NewerStoreError, StoreError
from carcond.store import migrations

logger = logging.getLogger(__name__)

VERSION_TABLE = "alembic_version"
# Processes that start together must not migrate at the same time.
_LOCKS = {"sqlite": "BEGIN IMMEDIATE", "postgresql": "SELECT pg_advisory_xact_lock(20260101)"}
# Distinguishes the revisions of stores made before revisions were recorded.
_FIRST_TABLES = {"project", "photo", "embedding", "annotation", "prediction"}
_FACTS = {"source", "car", "width", "height", "sharpness", "brightness"}


def upgrade_schema(engine: Engine) -> None:
    """Migrate the tables to this program's revision. Nothing is written when they have it already.

    All steps are one transaction: they are done or undone together.

    Raises:
        NewerStoreError: a newer carcond has used the database; it is left as it is.
        StoreError: its tables are not carcond's; it is left as it is.
    """
    with engine.connect() as connection:
        if known_revision(connection) == migrations.HEAD:
            return
    with engine.begin() as connection:
        lock = _LOCKS.get(engine.dialect.name)
        if lock:
            connection.exec_driver_sql(lock)
        revision = known_revision(connection)  # another process may have been faster
        if revision != migrations.HEAD:
            _migrate(connection, revision or _guess_revision(connection))


def known_revision(connection: Connection) -> str | None:
    """Revision from the version table; None without one."""
    if not inspect(connection).has_table(VERSION_TABLE):
        return None
    revision = connection.execute(text(f"SELECT version_num FROM {VERSION_TABLE}")).scalars().first()  # noqa: S608
    if revision is None or revision in migrations.REVISIONS:
        return revision
    raise NewerStoreError(
        f"expected a store of revision {migrations.HEAD} or older, this one has {revision!r}: a newer carcond has used "
        "it. Run that one or a newer one, or restore the backup made before the upgrade"
    )


def _guess_revision(connection: Connection) -> str | None:
    """The revision of tables made before revisions were recorded; None when there are none."""
    inspector = inspect(connection)
    found = _FIRST_TABLES & set(inspector.get_table_names())
    if not found:
        return None
    if found == _FIRST_TABLES:
        facts = _FACTS & {column["name"] for column in inspector.get_columns("photo")}
        if not facts:
            return "0001"
        if facts == _FACTS:
            return "0002"
    raise StoreError(
        f"expected the tables {', '.join(sorted(_FIRST_TABLES))} of carcond, or none of them, in the database, got "
        f"{', '.join(sorted(found))} of another make: name a database of its own in DATABASE_URL"
    )


def _migrate(connection: Connection, revision: str | None) -> None:
    # Imported here: hardly any start of a process has to migrate.

    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", str(Path(migrations.__file__).parent))
    logger.info("bringing the store from revision %s to %s", revision or "none", migrations.HEAD)
    if revision and known_revision(connection) is None:
        command.stamp(config, revision)
    command.upgrade(config, migrations.HEAD)
