"""Making an account in a real Label Studio: by invitation only."""

from collections.abc import Iterator

import httpx
import pytest

from backend.label_studio.people import invite_link, names
from scripts.stack import Stack

pytestmark = [pytest.mark.e2e, pytest.mark.slow]


@pytest.fixture
def visitor(stack: Stack) -> Iterator[httpx.Client]:
    """Somebody without an account."""
    with httpx.Client(base_url=stack.browser_url, trust_env=False) as client:
        yield client


def sign_up(visitor: httpx.Client, address: str, email: str) -> httpx.Response:
    """Fill in the form of the page at an address."""
    visitor.get(address).raise_for_status()
    form = {"csrfmiddlewaretoken": visitor.cookies["csrftoken"], "email": email, "password": "a-password-of-mine"}
    return visitor.post(address, data=form, headers={"Referer": str(visitor.base_url)})


def test_without_an_invitation_nobody_gets_an_account(stack: Stack, visitor: httpx.Client) -> None:
    for address in ("/user/signup/", "/user/signup/?token=guessed"):
        assert sign_up(visitor, address, "eve@example.com").status_code == 403
    assert "eve@example.com" not in names(stack.api()).values()


def test_the_invite_link_makes_an_account_whose_name_is_then_known(stack: Stack, visitor: httpx.Client) -> None:
    link = invite_link(stack.api(), stack.browser_url)
    assert link.startswith(stack.browser_url)
    assert sign_up(visitor, link, "ben@example.com").status_code == 302
    assert visitor.get("/api/current-user/whoami").json()["email"] == "ben@example.com"
    assert "ben@example.com" in names(stack.api()).values()
    assert invite_link(stack.api(), stack.browser_url) == link
