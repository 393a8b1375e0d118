"""Addresses on which Label Studio and the backend listen."""

import re
import socket

from scripts.preflight import StackError

LOOPBACK = "127.0.0.1"
EVERYWHERE = "0.0.0.0"  # noqa: S104 - chosen by a person, by `--host`
# Label Studio's guard can be opened for an address, not for a port: on one of its own the backend is alone.
_BACKEND_ADDRESS = "127.90.90.1"


def backend_address() -> str:
    """Loopback address on which the backend listens for Label Studio.

    `LOOPBACK` where only that one exists, as on macOS; Label Studio can then call all other servers there.
    """
    return _BACKEND_ADDRESS if _can_listen(_BACKEND_ADDRESS) else LOOPBACK


def listening_address(host: str) -> str:
    """Local address of a host name or address.

    Args:
        host: name or address of this machine for other ones.

    Returns:
        An IPv4 address; `EVERYWHERE` where the name resolves to no address of this machine, as behind a router that
        forwards connections, or only to its loopback, as in Debian's /etc/hosts.

    Raises:
        StackError: it is neither a name nor an address, or is the loopback.
    """
    if not re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?", host):
        raise StackError(f"--host: expected a name or an IPv4 address without http:// and port, got {host!r}")
    if host == "localhost" or re.fullmatch(r"127(\.\d+){3}", host):
        raise StackError(f"--host: {host} is this machine for itself alone. For labelling here, leave --host out")
    if host == EVERYWHERE:
        raise StackError("--host: expected what other machines open, not 0.0.0.0, which is no address to go to")
    try:
        address = socket.gethostbyname(host)
    except OSError:
        raise StackError(f"--host: the name {host!r} means nothing on this machine: give its address") from None
    return address if _is_own(address) else EVERYWHERE


def _is_own(address: str) -> bool:
    """True if the address belongs to this machine and is reachable from others."""
    return not address.startswith("127.") and _can_listen(address)


def _can_listen(address: str) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        try:
            probe.bind((address, 0))
        except OSError:
            return False
    return True
