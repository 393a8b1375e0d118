"""What connecting changes in a Label Studio project, and the record of it in the store.

A change is described so that it can be shown, kept as JSON and found again in Label Studio: by the title of a backend,
the address of a webhook, the name of a setting. No secret is in it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from sqlalchemy import select, update

from backend.backend_address import BackendAddress
from backend.labelstudio import LabelStudioApi, ProjectInfo
from backend.ml_backends import BACKEND_TITLE, read_backends
from backend.webhooks import read_webhooks
from carcond.registry import is_ours
from carcond.store import Store
from carcond.tables import Connection, Project

Kind = Literal["backend", "webhook", "setting"]
Place = tuple[Kind, str]
"""What is changed: a kind, and the name by which it is found."""

MODEL_VERSION = "model_version"
ANY_VERSION = "carcond-..."
"""Stands for whichever version of ours serves: the loop moves it."""


@dataclass(frozen=True)
class Change:
    """One thing that connecting changes.

    Attributes:
        kind: what it is.
        name: address of a backend or webhook, name of a setting.
        before: what was there; None for nothing.
        after: what is there once connected.
    """

    kind: Kind
    name: str
    before: Any
    after: Any

    @property
    def place(self) -> Place:
        """What is changed."""
        return self.kind, self.name

    def facts(self) -> dict[str, Any]:
        """JSON-ready."""
        return asdict(self)


def present_state(api: LabelStudioApi, project: ProjectInfo, backend_url: str) -> dict[Place, Any]:
    """What Label Studio has now wherever connecting may change something; a place that is absent has nothing.

    Args:
        api: the way to Label Studio.
        project: as it is now.
        backend_url: of our backend.
    """
    state: dict[Place, Any] = {("setting", name): value for name, value in project.raw.items()}
    # Label Studio has no other word for "none".
    state["setting", MODEL_VERSION] = project.model_version
    for row in read_backends(api, project.id):
        if row["title"] == BACKEND_TITLE and row["url"] == backend_url:
            state["backend", backend_url] = {"title": row["title"], "auth_method": row["auth_method"]}
    address = BackendAddress(backend_url).webhook_url
    for hook in read_webhooks(api, project.id):
        if hook["url"] == address:
            state["webhook", address] = public_webhook(hook)
    return state


def public_webhook(hook: Mapping[str, Any]) -> dict[str, Any]:
    """What may be shown and kept of a webhook: its headers may hold a password."""
    shown = {name: hook[name] for name in ("is_active", "send_payload", "send_for_all_actions")}
    return shown | {"actions": sorted(hook["actions"]), "carries_password": bool(hook["headers"])}


def is_as_changed(change: Change, current: Any) -> bool:
    """Whether what is there now is what connecting left there."""
    if change.name == MODEL_VERSION and change.kind == "setting":
        return is_ours(str(current)) or current == BACKEND_TITLE
    return bool(current == change.after)


def keep_record(store: Store, project_id: int, changes: Sequence[Change], by: str) -> Connection:
    """Write down what is about to be changed, before it is."""
    row = Connection(project_id=project_id, made_at=_now(), made_by=by, changes=[change.facts() for change in changes])
    with store.session() as session:
        session.add(row)
    return row


def open_records(store: Store, project_id: int) -> list[Connection]:
    """The records of a project that were not undone, oldest first."""
    with store.session() as session:
        query = select(Connection).where(Connection.project_id == project_id, Connection.undone_at.is_(None))
        return list(session.scalars(query.order_by(Connection.id)))


def close_record(store: Store, record: Connection, by: str) -> None:
    """Write down that a record's changes were undone."""
    with store.session() as session:
        values = {"undone_at": _now(), "undone_by": by}
        session.execute(update(Connection).where(Connection.id == record.id).values(values))


def is_released(store: Store, project_id: int) -> bool:
    """Whether a project was connected, and the connection undone: nothing may be written into it.

    One that is merely unknown, since Label Studio once said that there is no such project, is none of these.
    """
    with store.session() as session:
        if session.get(Project, project_id) is not None:
            return False
        undone = list(session.scalars(select(Connection.undone_at).where(Connection.project_id == project_id)))
        return bool(undone) and None not in undone


def changes_of(record: Connection) -> list[Change]:
    """What a record says was changed."""
    return [Change(**facts) for facts in record.changes]


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
