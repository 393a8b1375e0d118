"""The demo and the dashboard as a web application: `streamlit run backend/dashboard/app.py`, or `scripts/demo`."""

from pathlib import Path

from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse
from starlette.routing import Route
from streamlit.starlette import App

from backend.dashboard.access import AskWho
from carcond.settings import get_settings


async def health(_request: Request) -> JSONResponse:
    """Alive. Checks nothing else."""
    return JSONResponse({"status": "UP"})


async def first_page(request: Request) -> RedirectResponse:
    """Streamlit serves the first page at the root alone; the address that its name suggests leads there."""
    query = request.url.query
    return RedirectResponse("./" + (f"?{query}" if query else ""))


app = App(
    Path(__file__).with_name("main.py"),
    routes=[Route("/health", health), Route("/photo", first_page)],
    middleware=[Middleware(AskWho, settings=get_settings())],
)
