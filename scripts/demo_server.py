"""The demo and the dashboard beside a running stack, and what a browser does that looks at them or at Label Studio."""

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


def demo_process(stack: Stack, port: int, environment: dict[str, str] | None = None) -> ManagedProcess:
    """Streamlit with the demo, for a stack that runs. To be started by the caller."""
    app = CHECKOUT / "backend" / "demo" / "app.py"
    address = ("--server.address", "127.0.0.1", "--server.port", str(port))
    return ManagedProcess(
        name="demo",
        command=[sys.executable, "-m", "streamlit", "run", str(app), *address],
        environment=stack.environment | (environment or {}),
        log_path=stack.logs_dir / "demo.log",
        working_dir=stack.logs_dir,
    )


def open_demo_page(page: Page, url: str, name: str, project: int) -> None:
    """Go to a page of the demo, and wait until all of it is there.

    Args:
        page: of a browser that gives the demo's user and password.
        url: where the demo runs.
        name: one of `PAGES`.
        project: which project to look at.
    """
    page.goto(f"{url}/{'' if name == PAGES[0] else name}?project={project}")
    settle(page)


def settle(page: Page) -> None:
    """Wait until a page of the demo has nothing more to say."""
    page.wait_for_selector("h1", timeout=_PATIENCE_MS)
    quiet = 0
    while quiet < 3:  # parts arrive one by one
        page.wait_for_function(_STILL, timeout=_PATIENCE_MS)
        page.wait_for_timeout(500)
        quiet = quiet + 1 if page.evaluate(_STILL) else 0


def log_in(page: Page, stack: Stack) -> None:
    """Log in to Label Studio."""
    page.goto(f"{stack.label_studio_url}/user/login/")
    page.fill("input[name=email]", stack.credentials.label_studio_email)
    page.fill("input[name=password]", stack.credentials.label_studio_password)
    page.click("button[type=submit]")
    page.wait_for_url(lambda url: "login" not in url)


def stay_here(route: Route) -> None:
    """Let nothing but this machine be reached."""
    address = urlsplit(route.request.url)
    if address.scheme in ("data", "blob") or address.hostname == "127.0.0.1":
        route.continue_()
    else:
        route.abort()
