"""The `carcond` command. Thin: each command is a module of `backend.cli.commands`."""

import importlib
import logging
import sys
from typing import Any

import typer
from typer.core import TyperGroup

from backend.cli.former_usage import current_arguments
from carcond.errors import CarcondError
from carcond.files import restrict_umask

# In the order of `carcond --help`. Of each command the module and the function have its name.
_COMMANDS = (
    *("encoder", "connect", "doctor", "probe", "status", "invite"),
    *("predict", "explain", "fleet"),
    *("simulate", "quality", "review", "finetune", "export-model"),
    *("backup", "restore", "versions"),
)


class _Commands(TyperGroup):
    """Imports a command when it is asked for: none waits for what others need."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        return super().parse_args(ctx, current_arguments(args))

    def list_commands(self, _ctx: Any) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, _ctx: Any, cmd_name: str) -> Any:
        if cmd_name not in _COMMANDS:
            return None
        name = cmd_name.replace("-", "_")
        found = getattr(importlib.import_module(f"backend.cli.commands.{name}"), name)
        if not isinstance(found, typer.Typer):
            single = typer.Typer(add_completion=False)
            single.command(cmd_name)(found)
            found = single
        command = typer.main.get_command(found)
        command.name = cmd_name
        return command


app = typer.Typer(
    name="carcond", cls=_Commands, no_args_is_help=True, add_completion=True, pretty_exceptions_enable=False
)


@app.callback()
def carcond() -> None:
    """Active learning on car photos inside Label Studio.

    Settings come from the environment: LABEL_STUDIO_URL, LABEL_STUDIO_API_KEY, REDIS_URL, DATABASE_URL,
    and those that start with CARCOND_.

    Exit codes, where a command names no others: 0 done; 1 it could not be, and one line on standard error says why;
    2 the command line is wrong.
    """


def main() -> None:
    """Entry point: an error that was raised on purpose is one line on standard error, and exit code 1."""
    restrict_umask()
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
    try:
        app()
    except CarcondError as error:
        sys.exit(f"carcond: {error}")
