"""`python -m docker.passwords [login]`: makes the stack's passwords once, and writes the files of each service.

One volume holds everything. A service sees only the files of its own group, which the Compose file gives it;
the passwords themselves are in a file that belongs to this module's user alone.
"""

import hashlib
import json
import os
import secrets
import sys
from collections.abc import Mapping
from pathlib import Path
from textwrap import indent
from urllib.parse import quote

from backend.label_studio.ssrf_guard import closed_subnets
from backend.label_studio.way_in import numbered_steps, project_url

SECRETS_DIR = Path("/secrets")
PASSWORDS_NAME = "passwords.json"
STATE = Path("/setup/projects.json")
EMAIL = "admin@example.com"
BACKEND_USER = "label-studio"
_PASSWORDS = (
    "label_studio_password",
    "label_studio_token",
    "label_studio_database",
    "carcond_database",
    "postgres",
    "redis",
    "backend",
    "demo",
    "grafana",
)
# Folder of the volume -> group that may read it; docker-compose.yml names the same numbers under `group_add`.
GROUPS = {
    "carcond": 10001,
    "label-studio": 10002,
    "postgres": 10003,
    "redis": 10004,
    "grafana": 10005,
    "prometheus": 10006,
}


def main() -> None:
    """Write all files; with the argument `login`, print how to log in instead."""
    passwords = load_passwords(SECRETS_DIR)
    if sys.argv[1:] == ["login"]:
        print(login_text(passwords, os.environ, known_project(STATE)))
        return
    write_files(SECRETS_DIR, service_files(passwords, os.environ["CARCOND_SUBNET"]), GROUPS)
    print("passwords are in the volume `secrets`. To see how to log in: docker compose run --rm secrets login")


def load_passwords(folder: Path) -> dict[str, str]:
    """Read the passwords, or make them. A later release's new ones are added, the others never change."""
    path = folder / PASSWORDS_NAME
    known: dict[str, str] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    # Hexadecimal needs no escaping in addresses, SQL, shell or configuration files. Label Studio's token has 40 digits.
    passwords = {name: known.get(name) or secrets.token_hex(20) for name in _PASSWORDS}
    if passwords != known:
        _write(path, json.dumps(passwords, indent=2) + "\n", 0o600)
    return passwords


def known_project(state: Path) -> int | None:
    """Number of the project that `docker.prepare` made: of the user's photos, else of the drawn ones, else None."""
    known = json.loads(state.read_text(encoding="utf-8")) if state.exists() else {}
    number = known.get("photos", known.get("samples"))
    return None if number is None else int(number)


def login_text(passwords: Mapping[str, str], environment: Mapping[str, str], project_id: int | None) -> str:
    """Instructions for logging in and the first steps.

    Args:
        passwords: from `load_passwords`.
        environment: has Label Studio's address for browsers as `CARCOND_URL`.
        project_id: the project to label; None before the service `setup` has made one.
    """
    base = environment.get("CARCOND_URL", "")
    address = base if project_id is None else project_url(base, project_id)
    steps = indent(
        "There is no project yet: docker compose logs setup" if project_id is None else numbered_steps(), "  "
    )
    return (
        f"Label Studio: {address}\n"
        f"  E-mail    {EMAIL}\n"
        f"  Password  {passwords['label_studio_password']}\n"
        f"{steps}\n"
        "Demo and dashboard (profile `demo`):\n"
        f"  User      {BACKEND_USER}\n"
        f"  Password  {passwords['backend']}\n"
        "Grafana (profile `monitoring`):\n"
        "  User      admin\n"
        f"  Password  {passwords['grafana']}"
    )


def service_files(passwords: Mapping[str, str], subnet: str) -> dict[str, str]:
    """Path in the volume -> text, for all services.

    Args:
        passwords: from `load_passwords`.
        subnet: the one network that Label Studio may call, where the backend is.
    """
    database = f"postgresql+psycopg://carcond:{quote(passwords['carcond_database'])}@postgres:5432/carcond"
    return {
        "carcond/environment": _shell_lines(
            LABEL_STUDIO_API_KEY=passwords["label_studio_token"],
            REDIS_URL=f"redis://:{passwords['redis']}@redis:6379/0",
            DATABASE_URL=database,
            CARCOND_BASIC_AUTH_USER=BACKEND_USER,
            CARCOND_BASIC_AUTH_PASSWORD=passwords["backend"],
            CARCOND_DEMO_TOKEN=passwords["demo"],
        )
        + _with_demo_token(passwords["demo"]),
        "label-studio/environment": _shell_lines(
            LABEL_STUDIO_USERNAME=EMAIL,
            LABEL_STUDIO_PASSWORD=passwords["label_studio_password"],
            LABEL_STUDIO_USER_TOKEN=passwords["label_studio_token"],
            POSTGRE_PASSWORD=passwords["label_studio_database"],
            USER_ADDITIONAL_BANNED_SUBNETS=",".join(closed_subnets(subnet)),
        ),
        "postgres/password": passwords["postgres"],
        "redis/redis.conf": f"requirepass {passwords['redis']}\nappendonly yes\n",
        "redis/password": passwords["redis"],
        "grafana/password": passwords["grafana"],
        "prometheus/password": passwords["backend"],
    }


def write_files(folder: Path, files: Mapping[str, str], groups: Mapping[str, int]) -> None:
    """Write each file so that, beside its owner, only the group of its folder can read it."""
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(mode=0o755, exist_ok=True)
        _write(path, text, 0o440, groups[path.parent.name])


def _with_demo_token(token: str) -> str:
    """A line that adds the demo to the applications in `.env`."""
    digest = hashlib.sha256(token.encode()).hexdigest()
    return f'export CARCOND_API_TOKENS="${{CARCOND_API_TOKENS:+$CARCOND_API_TOKENS,}}demo:{digest}"\n'


def _shell_lines(**values: str) -> str:
    return "".join(f"export {name}='{value}'\n" for name, value in values.items())


def _write(path: Path, text: str, mode: int, group: int | None = None) -> None:
    """Write a file whole or not at all, with its final mode from the beginning."""
    temporary = path.with_name(f".{path.name}.new")
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
        if group is not None:
            os.fchown(file.fileno(), -1, group)
        os.fchmod(file.fileno(), mode)
    temporary.replace(path)


if __name__ == "__main__":
    main()
