"""Who runs a command, for the records."""

import getpass
import os


def this_person() -> str:
    """The user of this machine."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user may have no name
        return f"user {os.getuid()}"
