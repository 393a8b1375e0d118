"""Changes that connecting makes in a Label Studio project, and the record of them in the store.

A change is described so that it can be shown, kept as JSON and found again in Label Studio: by the title of a backend
or a tab, the address of a webhook, the name of a setting. It contains no secret.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from sqlalchemy import select, update

from backend.label_studio.backend_address import BackendAddress
from backend.label_studio.client import LabelStudioApi, ProjectInfo
from backend.label_studio.data_manager import NEXT_TO_LABEL, Tab, read_tabs
from backend.label_studio.ml_backends import BACKEND_TITLE, read_backends
from backend.label_studio.webhooks import read_webhooks
from carcond.json_fields import mapping
from carcond.registry.registry import is_ours
from carcond.store.store import Store
from carcond.store.tables import Connection

Kind = Literal["backend", "webhook", "setting", "tab"]
Place = tuple[Kind, str]
"""Key of a change: its kind, and the name by which it is found."""

MODEL_VERSION = "model_version"
FIRST_TAB: Place = ("tab", NEXT_TO_LABEL.title)
LEAST_CERTAIN = {"shows": "unlabelled photos, least certain first", "place": "before the others"}
"""Record of the tab that leads to the queue. It stays ours, however a person arranges it."""
ALL_PHOTOS = {"shows": "all photos"}
ANY_VERSION = "carcond-..."
"""Stands for whichever version of ours serves: the loop moves it."""


@dataclass(frozen=True)
class Change:
    """One thing that connecting changes.

    Attributes:
        kind: backend, webhook, setting or tab.
        name: address of a backend or webhook, name of a setting, title of a tab.
        before: the old value; None for nothing.
        after: the value once connected.
    """

    kind: Kind
    name: str
    before: Any
    after: Any

    @property
    def place(self) -> Place:
        """Key of the change."""
        return self.kind, self.name

    def facts(self) -> dict[str, Any]:
        """JSON-ready."""
        return asdict(self)


def present_state(api: LabelStudioApi, project: ProjectInfo, backend_url: str) -> dict[Place, Any]:
    """Present values in Label Studio of all that connecting may change; an absent key means nothing is there.

    Args:
        api: Label Studio's client.
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
    return state | {("tab", tab.title): _shown_tab(tab) for tab in read_tabs(api, project.id)}


def _shown_tab(tab: Tab) -> dict[str, Any]:
    """Fields of a tab that may be shown and kept."""
    if tab.title == NEXT_TO_LABEL.title:
        return LEAST_CERTAIN
    is_arranged = mapping(tab.data, "filters").get("items") or tab.data.get("ordering")
    return {"shows": "what somebody arranged"} if is_arranged else ALL_PHOTOS


def public_webhook(hook: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of a webhook that may be shown and kept: its headers may hold a password."""
    shown = {name: hook[name] for name in ("is_active", "send_payload", "send_for_all_actions")}
    return shown | {"actions": sorted(hook["actions"]), "carries_password": bool(hook["headers"])}


def is_as_changed(change: Change, current: Any) -> bool:
    """True if the present value is the one that connecting set."""
    if change.name == MODEL_VERSION and change.kind == "setting":
        return is_ours(str(current)) or current == BACKEND_TITLE
    return bool(current == change.after)


def keep_record(store: Store, project_id: int, changes: Sequence[Change], by: str) -> Connection:
    """Record changes before they are made."""
    row = Connection(project_id=project_id, made_at=_now(), made_by=by, changes=[change.facts() for change in changes])
    with store.session() as session:
        session.add(row)
    return row


def open_records(store: Store, project_id: int) -> list[Connection]:
    """Records of a project that were not undone, oldest first."""
    with store.session() as session:
        query = select(Connection).where(Connection.project_id == project_id, Connection.undone_at.is_(None))
        return list(session.scalars(query.order_by(Connection.id)))


def close_record(store: Store, record: Connection, by: str) -> None:
    """Record that a record's changes were undone."""
    with store.session() as session:
        values = {"undone_at": _now(), "undone_by": by}
        session.execute(update(Connection).where(Connection.id == record.id).values(values))


def changes_of(record: Connection) -> list[Change]:
    """Changes of a record."""
    return [Change(**facts) for facts in record.changes]


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
