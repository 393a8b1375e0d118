"""The demo and the dashboard as a web application: `streamlit run backend/demo/app.py`, or `scripts/demo`."""

from pathlib import Path

from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from streamlit.starlette import App

from backend.demo.access import AskWho
from carcond.settings import get_settings


async def health(_request: Request) -> JSONResponse:
    """Alive. Looks at nothing else."""
    return JSONResponse({"status": "UP"})


app = App(
    Path(__file__).with_name("main.py"),
    routes=[Route("/health", health)],
    middleware=[Middleware(AskWho, settings=get_settings())],
)
