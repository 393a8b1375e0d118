"""`carcond invite`: the link with which another person joins Label Studio."""

import sys
from urllib.parse import urlsplit

from backend.label_studio.client import LabelStudioApi
from backend.label_studio.people import invite_link
from backend.label_studio.way_in import browser_base
from carcond.settings import get_settings


def invite() -> None:
    """Print the link with which one more person makes an account in Label Studio, with its address in browsers.

    It stays the same until somebody opens *Add Members* on Label Studio's Organization page, which makes a new one.
    Whoever has the link can see, change and delete all projects.

    Exit codes: 0 done; 1 Label Studio refused or cannot be reached.

    Example: carcond invite
    """
    settings = get_settings()
    print(invite_link(LabelStudioApi.from_settings(settings), browser_base(settings)))
    if urlsplit(browser_base(settings)).hostname in ("127.0.0.1", "localhost", "::1"):
        print(
            "This address is of this machine for itself alone. For others: scripts/up --host NAME_OR_ADDRESS, or "
            "CARCOND_ADDRESS and CARCOND_URL of the Compose stack",
            file=sys.stderr,
        )
