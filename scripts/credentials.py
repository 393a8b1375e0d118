"""The passwords and tokens of one stack: made at its first start, kept in a file only its owner can read."""

import json
import secrets
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

from carcond.files import replace_text
from scripts.preflight import StackError

SECRETS_NAME = "secrets.json"
_LEAST_LENGTH = 12
_LEAST_DIFFERENT = 6


@dataclass(frozen=True)
class Credentials:
    """Passwords and tokens of a stack. Label Studio reads its own only when it makes its database."""

    label_studio_email: str = "admin@example.com"
    label_studio_password: str = field(default_factory=lambda: secrets.token_urlsafe(12), repr=False)
    label_studio_token: str = field(default_factory=lambda: secrets.token_hex(20), repr=False)
    backend_user: str = "label-studio"
    backend_password: str = field(default_factory=lambda: secrets.token_urlsafe(24), repr=False)
    redis_password: str = field(default_factory=lambda: secrets.token_hex(24), repr=False)


def load_credentials(data_dir: Path) -> Credentials:
    """Read the credentials of a data folder, or make them.

    Raises:
        StackError: the file is broken. It is not replaced: Label Studio's database has the former credentials.
    """
    path = data_dir / SECRETS_NAME
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        credentials = Credentials()
        replace_text(path, json.dumps(asdict(credentials), indent=2) + "\n", mode=0o600)
        return credentials
    try:
        values = json.loads(text)
        return Credentials(**{f.name: str(values[f.name]) for f in fields(Credentials)})
    except (ValueError, KeyError, TypeError) as error:
        raise StackError(
            f"{path} is broken ({type(error).__name__}): put back a copy of it, or start with another --data folder"
        ) from None


def check_secrets(credentials: Credentials) -> None:
    """Check that the credentials of a Label Studio open to a network are as strong as generated ones.

    Raises:
        StackError: somebody put a weak password or token into the file.
    """
    for name, value in (("password", credentials.label_studio_password), ("token", credentials.label_studio_token)):
        is_known = value == credentials.label_studio_email
        if is_known or len(value) < _LEAST_LENGTH or len(set(value)) < _LEAST_DIFFERENT:
            raise StackError(
                f"the {name} of Label Studio in {SECRETS_NAME} is too easy to guess for --host: expected at least "
                f"{_LEAST_LENGTH} characters, {_LEAST_DIFFERENT} of them different. Start with another --data folder, "
                "for which new ones are made, or without --host"
            )
