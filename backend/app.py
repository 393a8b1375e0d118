"""The address under which WSGI servers have known the application: `backend.app:create_app()`."""

from backend.web.app import create_app

__all__ = ["create_app"]
