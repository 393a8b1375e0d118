"""All photos that a store has ever known, the deleted ones too: groups and splits outlive a task."""

from sqlalchemy import select

from carcond.store.store import Store
from carcond.store.tables import Photo


def known_photos(store: Store, project_id: int) -> list[Photo]:
    """The photos of a project in order of task id."""
    with store.session() as session:
        return list(session.scalars(select(Photo).where(Photo.project_id == project_id).order_by(Photo.task_id)))
