"""Run by Alembic for each command: on the connection, and in the transaction, that `carcond.database` has opened."""

from alembic import context

from carcond.tables import Base

context.configure(connection=context.config.attributes["connection"], target_metadata=Base.metadata)
context.run_migrations()
