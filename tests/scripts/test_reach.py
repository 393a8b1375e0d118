"""The address that Label Studio listens on for other machines."""

import socket

import pytest

from scripts.preflight import StackError
from scripts.reach import EVERYWHERE, LOOPBACK, backend_address, listening_address


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Name -> address, of all names that mean something."""
    names: dict[str, str] = {}

    def look_up(host: str) -> str:
        if host not in names:
            raise socket.gaierror(socket.EAI_NONAME, "unknown")
        return names[host]

    monkeypatch.setattr(socket, "gethostbyname", look_up)
    return names


@pytest.fixture
def own(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Addresses of this machine beside its loopback."""
    addresses: set[str] = set()

    class _Socket:
        def __init__(self, *_: object) -> None:
            pass

        def __enter__(self) -> "_Socket":
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def bind(self, place: tuple[str, int]) -> None:
            if place[0] not in addresses:
                raise OSError

    monkeypatch.setattr(socket, "socket", _Socket)
    return addresses


def test_an_address_of_this_machine_is_the_only_one_listened_on(known: dict[str, str], own: set[str]) -> None:
    own.add("192.168.1.20")
    known |= {"192.168.1.20": "192.168.1.20", "desk.example.com": "192.168.1.20"}
    assert listening_address("192.168.1.20") == "192.168.1.20"
    assert listening_address("desk.example.com") == "192.168.1.20"


def test_a_name_that_leads_to_a_router_or_back_to_the_loopback_needs_all_addresses(
    known: dict[str, str], own: set[str]
) -> None:
    known |= {"cars.example.com": "203.0.113.7", "desk": "127.0.1.1"}
    assert listening_address("cars.example.com") == EVERYWHERE
    assert listening_address("desk") == EVERYWHERE


@pytest.mark.parametrize(
    ("host", "words"),
    [
        ("http://192.168.1.20", "without http:// and port"),
        ("192.168.1.20:8080", "without http:// and port"),
        ("-p", "without http:// and port"),
        ("fd00::2", "IPv4"),
        ("localhost", "for itself alone"),
        ("127.0.0.1", "for itself alone"),
        (EVERYWHERE, "no address to go to"),
        ("nowhere.example.com", "means nothing"),
    ],
)
def test_what_others_cannot_open_is_refused_with_what_to_give(known: dict[str, str], host: str, words: str) -> None:
    with pytest.raises(StackError, match=words):
        listening_address(host)


def test_the_backend_has_a_loopback_address_of_its_own_where_the_machine_has_more_than_one(own: set[str]) -> None:
    own |= {LOOPBACK, "127.90.90.1"}
    assert backend_address() == "127.90.90.1"
    own.remove("127.90.90.1")
    assert backend_address() == LOOPBACK
