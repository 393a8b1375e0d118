"""A real Label Studio on this machine: its command line, and its settings."""

import contextlib
import os
import sqlite3
from pathlib import Path
from urllib.parse import unquote, urlsplit

from backend.label_studio.ssrf_guard import closed_subnets
from scripts.credentials import Credentials

# Settings without a variable in Label Studio: a folder with nothing else in it, and the module's name.
_SETTINGS = Path(__file__).with_name("label_studio") / "carcond_label_studio_settings.py"

# Label Studio reads settings without a prefix too (HOST, DEBUG, USERNAME ...), so little is passed on.
_INHERITED = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR")


def prepare_database(data_dir: Path) -> bool:
    """Make the database file in WAL mode, in which readers and a writer do not block each other.

    In SQLite's default mode an annotator who requests the next photo while predictions are written
    can get the error "database is locked". The mode is stored in the file.

    Returns:
        True if the file is new.
    """
    path = data_dir / "label_studio.sqlite3"
    is_new = not path.exists()
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
    return is_new


def command(venv: Path, port: int, address: str = "127.0.0.1") -> list[str]:
    """Command line that starts Label Studio.

    Args:
        venv: its environment.
        port: to listen on.
        address: of this machine, to listen on.
    """
    program = str(venv / "bin" / "label-studio")
    return [program, "start", "--no-browser", "--internal-host", address, "-p", str(port)]


def _database(postgres_url: str) -> dict[str, str]:
    if not postgres_url:
        return {"DJANGO_DB": "sqlite"}
    parts = urlsplit(postgres_url)
    return {
        "DJANGO_DB": "default",
        "POSTGRE_HOST": parts.hostname or "127.0.0.1",
        "POSTGRE_PORT": str(parts.port or 5432),
        "POSTGRE_NAME": parts.path.lstrip("/"),
        "POSTGRE_USER": unquote(parts.username or ""),
        "POSTGRE_PASSWORD": unquote(parts.password or ""),
    }


def environment(
    data_dir: Path,
    photos_root: Path,
    url: str,
    credentials: Credentials,
    postgres_url: str = "",
    backend_host: str = "127.0.0.1",
) -> dict[str, str]:
    """Label Studio's settings.

    Args:
        data_dir: folder of its database and uploads.
        photos_root: the folder that local files are served from.
        url: under which browsers reach it.
        credentials: read by it when it makes its database, later ignored.
        postgres_url: address of its PostgreSQL database; empty for a SQLite file in `data_dir`.
        backend_host: the one inner address that it may call.
    """
    inherited = {name: os.environ[name] for name in _INHERITED if name in os.environ}
    return (
        inherited
        | _database(postgres_url)
        | {
            "DJANGO_SETTINGS_MODULE": _SETTINGS.stem,
            "PYTHONPATH": str(_SETTINGS.parent),
            "LABEL_STUDIO_BASE_DATA_DIR": str(data_dir),
            "LABEL_STUDIO_USERNAME": credentials.label_studio_email,
            "LABEL_STUDIO_PASSWORD": credentials.label_studio_password,
            "LABEL_STUDIO_USER_TOKEN": credentials.label_studio_token,
            "LABEL_STUDIO_ENABLE_LEGACY_API_TOKEN": "true",
            "LABEL_STUDIO_HOST": url,
            # An account needs an invitation, also where --host lets others reach the page.
            "LABEL_STUDIO_DISABLE_SIGNUP_WITHOUT_LINK": "true",
            "LABEL_STUDIO_LOCAL_FILES_SERVING_ENABLED": "true",
            "LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT": str(photos_root),
            "SSRF_PROTECTION_ENABLED": "true",
            "USE_DEFAULT_BANNED_SUBNETS": "false",
            "USER_ADDITIONAL_BANNED_SUBNETS": ",".join(closed_subnets(f"{backend_host}/32")),
            # No telemetry.
            "SENTRY_DSN": "",
            "FRONTEND_SENTRY_DSN": "",
            "COLLECT_ANALYTICS": "false",
            "LATEST_VERSION_CHECK": "false",
            "LOG_LEVEL": "WARNING",
            "PYTHONUNBUFFERED": "1",
        }
    )
