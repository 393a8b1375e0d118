"""The passwords and tokens of one stack: made at its first start, kept in a file only its owner can read."""

import json
import os
import secrets
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

from scripts.preflight import StackError

SECRETS_NAME = "secrets.json"


@dataclass(frozen=True)
class Credentials:
    """Who may do what. Label Studio reads its own only when it makes its database."""

    label_studio_email: str = "admin@example.com"
    label_studio_password: str = field(default_factory=lambda: secrets.token_urlsafe(12), repr=False)
    label_studio_token: str = field(default_factory=lambda: secrets.token_hex(20), repr=False)
    backend_user: str = "label-studio"
    backend_password: str = field(default_factory=lambda: secrets.token_urlsafe(24), repr=False)
    redis_password: str = field(default_factory=lambda: secrets.token_hex(24), repr=False)


def load_credentials(data_dir: Path) -> Credentials:
    """Read the credentials of a data folder, or make them.

    Raises:
        StackError: the file is broken. It is not replaced: Label Studio's database knows what stood in it.
    """
    path = data_dir / SECRETS_NAME
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        credentials = Credentials()
        _write_private(path, json.dumps(asdict(credentials), indent=2) + "\n")
        return credentials
    try:
        values = json.loads(text)
        return Credentials(**{f.name: str(values[f.name]) for f in fields(Credentials)})
    except (ValueError, KeyError, TypeError) as error:
        raise StackError(
            f"{path} is broken ({type(error).__name__}): put back a copy of it, or start with another --data folder"
        ) from None


def _write_private(path: Path, text: str) -> None:
    """Write a file that nobody else can read at any moment, whole or not at all."""
    temporary = path.with_suffix(".new")
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
