"""The store's schema, step by step, for Alembic. docs/upgrades.md describes how to add a step."""

from typing import Final

REVISIONS: Final = ("0001", "0002", "0003", "0004", "0005", "0006")
"""All revisions that this program knows, oldest first. Read without importing Alembic, which takes a while."""

HEAD: Final = REVISIONS[-1]
"""The revision that this program's tables are of."""
