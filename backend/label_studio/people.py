"""The people who label: their names, and the link that invites one more."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

from backend.label_studio.answers import read_id, read_object, read_objects, read_text
from backend.label_studio.client import LabelStudioApi
from carcond.errors import LabelStudioError


def names(api: LabelStudioApi) -> dict[int, str]:
    """Members of the organization: user id -> name, or e-mail address of those without a name.

    People of the same name get their ids too. A removed member is called "Deleted User", as in Label Studio.

    Raises:
        LabelStudioError: Label Studio refused, or could not be reached.
    """
    found = {read_id(row): _name(row) for row in read_objects(api.request("GET", "/api/users/"), "users")}
    counts = Counter(found.values())
    return {user: name if counts[name] == 1 else f"{name} ({user})" for user, name in found.items()}


def name_of(known: Mapping[int, str], user: int) -> str:
    """The name of one user; "user 7" for one that Label Studio does not list."""
    return known.get(user, f"user {user}")


def invite_link(api: LabelStudioApi, base: str) -> str:
    """Link with which one more person makes an account. It stays the same until somebody creates a new one.

    Label Studio's page creates a new one each time its *Add Members* is opened, and all older ones expire.

    Args:
        api: Label Studio's client.
        base: its address in that person's browser.

    Raises:
        LabelStudioError: Label Studio refused, or could not be reached.
    """
    path = read_text(read_object(api.request("GET", "/api/invite"), "an invitation"), "invite_url")
    if not path.startswith("/"):
        raise LabelStudioError("expected the path of an invitation from Label Studio, got none")
    return base.rstrip("/") + path


def _name(row: Mapping[str, Any]) -> str:
    full = " ".join(str(row.get(part) or "").strip() for part in ("first_name", "last_name")).strip()
    return full or str(row.get("email") or "").strip() or f"user {row['id']}"
