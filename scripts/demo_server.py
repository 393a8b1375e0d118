"""The demo and the dashboard beside a running stack, and browser actions on them and on Label Studio."""

import shutil
import sys
from urllib.parse import urlsplit

from playwright.sync_api import Page, Route

from scripts.processes import ManagedProcess
from scripts.stack import CHECKOUT, Stack

CHROMIUM_FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking"]
PAGES = ("photo", "learning", "versions", "queue", "quality", "jobs")
"""The pages, by the last part of their address; the first one is what opens."""

_PATIENCE_MS = 90_000
_STILL = """() => document.querySelector('[data-testid=stApp][data-test-script-state=notRunning]')
    && !document.querySelector('[data-testid=stSkeleton], [data-testid=stSpinner]')"""


def chromium_program() -> str | None:
    """Path of the browser; None if not installed."""
    return shutil.which("chromium") or shutil.which("google-chrome")


def demo_process(stack: Stack, port: int, environment: dict[str, str] | None = None) -> ManagedProcess:
    """Streamlit with the demo, for a running stack. The caller starts it."""
    app = CHECKOUT / "backend" / "dashboard" / "app.py"
    address = ("--server.address", "127.0.0.1", "--server.port", str(port))
    return ManagedProcess(
        name="demo",
        command=[sys.executable, "-m", "streamlit", "run", str(app), *address],
        environment=stack.environment | (environment or {}),
        log_path=stack.logs_dir / "demo.log",
        working_dir=stack.logs_dir,
    )


def open_demo_page(page: Page, url: str, name: str, project: int) -> None:
    """Go to a page of the demo, and wait until it is complete.

    Args:
        page: of a browser with the demo's user and password.
        url: of the demo.
        name: one of `PAGES`.
        project: number of the project.
    """
    page.goto(f"{url}/{'' if name == PAGES[0] else name}?project={project}")
    settle(page)


def settle(page: Page) -> None:
    """Wait until a page of the demo has finished rendering."""
    page.wait_for_selector("h1", timeout=_PATIENCE_MS)
    quiet = 0
    while quiet < 3:  # parts arrive one by one
        page.wait_for_function(_STILL, timeout=_PATIENCE_MS)
        page.wait_for_timeout(500)
        quiet = quiet + 1 if page.evaluate(_STILL) else 0


def log_in(page: Page, stack: Stack) -> None:
    """Log in to Label Studio as its owner."""
    credentials = stack.credentials
    log_in_as(page, stack.label_studio_url, credentials.label_studio_email, credentials.label_studio_password)


def log_in_as(page: Page, url: str, email: str, password: str) -> None:
    """Log in to Label Studio."""
    page.goto(f"{url}/user/login/")
    page.fill("input[name=email]", email)
    page.fill("input[name=password]", password)
    page.click("button[type=submit]")
    page.wait_for_url(lambda url: "login" not in url)


def stay_here(route: Route) -> None:
    """Block requests to other machines."""
    address = urlsplit(route.request.url)
    if address.scheme in ("data", "blob") or address.hostname == "127.0.0.1":
        route.continue_()
    else:
        route.abort()
