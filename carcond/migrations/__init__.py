"""The store's schema, step by step, for Alembic. docs/upgrades.md tells how a step is added."""

from typing import Final

REVISIONS: Final = ("0001", "0002", "0003")
"""All revisions that this program knows, oldest first. Read without importing Alembic, which takes a while."""

HEAD: Final = REVISIONS[-1]
"""The revision that this program's tables are of."""
