"""Run by Alembic for each command, on the connection and transaction of `carcond.store.database`."""

from alembic import context

from carcond.store.tables import Base

context.configure(connection=context.config.attributes["connection"], target_metadata=Base.metadata)
context.run_migrations()
