import ipaddress

import pytest

from backend.label_studio.ssrf_guard import CLOSED_SUBNETS, closed_subnets, opening_lines

SUBNET = "10.213.90.0/24"


def is_among(address: str, networks: list[str]) -> bool:
    ip = ipaddress.ip_address(address)
    return any(ip in ipaddress.ip_network(network) for network in networks)


def is_closed(address: str, open_subnet: str = SUBNET) -> bool:
    return is_among(address, closed_subnets(open_subnet))


@pytest.mark.parametrize("address", ["10.213.90.0", "10.213.90.7", "10.213.90.255", "8.8.8.8"])
def test_label_studio_may_call_the_backends_network_and_the_world(address: str) -> None:
    assert not is_closed(address)


@pytest.mark.parametrize(
    "address",
    ["10.213.89.255", "10.213.91.0", "10.0.0.1", "127.0.0.1", "169.254.169.254", "172.17.0.1", "192.168.1.1", "::1"],
)
def test_label_studio_may_call_no_other_network_that_is_not_public(address: str) -> None:
    assert is_closed(address)


def test_another_subnet_can_be_opened_instead() -> None:
    assert not is_closed("172.28.5.9", "172.28.5.0/24")
    assert is_closed("10.213.90.7", "172.28.5.0/24")


def test_a_subnet_that_is_none_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"10\.213\.90\.0/240"):
        closed_subnets("10.213.90.0/240")


def test_the_lines_open_one_address_and_keep_its_neighbours_closed() -> None:
    aside, again = opening_lines("192.168.7.20")
    assert aside == "USE_DEFAULT_BANNED_SUBNETS=false"
    name, _, closed = again.partition("=")
    assert name == "USER_ADDITIONAL_BANNED_SUBNETS"
    assert not is_among("192.168.7.20", closed.split(","))
    for address in ("192.168.7.21", "192.168.7.19", "127.0.0.1", "10.0.0.1", "169.254.169.254"):
        assert is_among(address, closed.split(","))


def test_a_name_is_looked_up_and_of_this_machines_addresses_one_is_opened() -> None:
    _, again = opening_lines("localhost")
    closed = again.partition("=")[2].split(",")
    assert not is_among("127.0.0.1", closed)
    for address in ("127.0.0.2", "127.0.0.0", "127.255.255.254"):
        assert is_among(address, closed)


def test_a_name_that_means_nothing_here_gives_no_lines() -> None:
    assert opening_lines("no-such-host.invalid") == ()


def test_an_open_address_that_was_never_closed_closes_all_others() -> None:
    assert sorted(closed_subnets("8.8.8.8/32")) == sorted(CLOSED_SUBNETS)
