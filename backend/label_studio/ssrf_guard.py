"""Label Studio's guard against calls into inner networks, and the settings that open it for one address alone.

The guard refuses every address that is not public, for ML backends and for webhooks. No setting opens it for one
address: its own list has to be disabled, and given again without the part to open.
"""

import ipaddress
import socket
from collections.abc import Sequence

# Networks that Label Studio 1.23 refuses to call by default.
CLOSED_SUBNETS = [
    "0.0.0.0/8",
    "10.0.0.0/8",
    "100.64.0.0/10",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "172.16.0.0/12",
    "192.0.0.0/24",
    "192.0.2.0/24",
    "192.88.99.0/24",
    "192.168.0.0/16",
    "198.18.0.0/15",
    "198.51.100.0/24",
    "203.0.113.0/24",
    "224.0.0.0/4",
    "233.252.0.0/24",
    "240.0.0.0/4",
    "255.255.255.255/32",
    "::/128",
    "::1/128",
    "::ffff:0:0/96",
    "::ffff:0:0:0/96",
    "64:ff9b::/96",
    "64:ff9b:1::/48",
    "100::/64",
    "2001:0000::/32",
    "2001:20::/28",
    "2001:db8::/32",
    "2002::/16",
    "fc00::/7",
    "fe80::/10",
    "ff00::/8",
]


def closed_subnets(open_subnet: str) -> list[str]:
    """Networks that Label Studio must not call: all that are not public, except the open one.

    Raises:
        ValueError: the open one is no network.
    """
    hole = ipaddress.ip_network(open_subnet)
    closed: list[str] = []
    for text in CLOSED_SUBNETS:
        network = ipaddress.ip_network(text)
        if network.version == hole.version and network.supernet_of(hole):  # type: ignore[arg-type]  # same version
            closed += map(str, network.address_exclude(hole))  # type: ignore[arg-type]
        else:
            closed.append(text)
    return closed


def opening_lines(host: str) -> Sequence[str]:
    """Label Studio's environment that lets it call a host's addresses, and no other inner one.

    Args:
        host: a name or an address; a name is resolved here, possibly to another address than for Label Studio.

    Returns:
        Lines like ``NAME=value``; empty when the name does not resolve here.
    """
    try:
        found = socket.getaddrinfo(host, None, family=socket.AF_INET, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return ()
    hole = f"{found[0][4][0]}/32"
    return (
        "USE_DEFAULT_BANNED_SUBNETS=false",
        f"USER_ADDITIONAL_BANNED_SUBNETS={','.join(closed_subnets(hole))}",
    )
