"""Accounts of annotators: the owner's, and others that sign up by the invitation."""

import secrets
from dataclasses import dataclass, field

from playwright.sync_api import Browser

from backend.label_studio.client import LabelStudioApi
from scripts.demo_server import stay_here
from scripts.stack import Stack


@dataclass(frozen=True)
class Account:
    """An account of Label Studio."""

    name: str
    email: str
    password: str = field(repr=False)
    user_id: int


def owner(stack: Stack) -> Account:
    """Account that the stack was made with."""
    credentials = stack.credentials
    user_id = _user_id(stack.api(), credentials.label_studio_email)
    return Account("owner", credentials.label_studio_email, credentials.label_studio_password, user_id)


def sign_up(stack: Stack, browser: Browser, name: str) -> Account:
    """Make an account as an invited person does, by Label Studio's own form."""
    email, password = f"{name}-{secrets.token_hex(3)}@example.com", secrets.token_urlsafe(12)
    invitation = stack.api().request("GET", "/api/invite")
    context = browser.new_context()
    page = context.new_page()
    page.route("**/*", stay_here)
    page.goto(f"{stack.label_studio_url}/user/signup/?token={invitation['token']}")
    page.fill("input[name=email]", email)
    page.fill("input[name=password]", password)
    page.click("button[type=submit]")
    page.wait_for_url(lambda url: "signup" not in url)
    context.close()
    return Account(name, email, password, _user_id(stack.api(), email))


def _user_id(api: LabelStudioApi, email: str) -> int:
    return next(int(user["id"]) for user in api.request("GET", "/api/users/") if user["email"] == email)
