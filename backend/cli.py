"""The `carcond` command. Thin: each command is a module of `backend.commands`."""

import logging
import sys

import typer

from backend.commands.backup import backup
from backend.commands.connect import connect
from backend.commands.doctor import doctor
from backend.commands.encoder import encoder
from backend.commands.explain import explain
from backend.commands.export_model import export_model
from backend.commands.finetune import finetune
from backend.commands.fleet import fleet
from backend.commands.predict import predict
from backend.commands.quality import quality
from backend.commands.restore import restore
from backend.commands.review import review
from backend.commands.simulate import simulate
from backend.commands.status import status
from backend.commands.train import train
from backend.commands.versions import versions
from carcond.errors import CarcondError

app = typer.Typer(no_args_is_help=True, add_completion=True, pretty_exceptions_enable=False)
for command in (
    *(encoder, connect, doctor, status),
    *(predict, explain, fleet),
    *(simulate, quality, review, train, finetune, export_model),
    *(backup, restore),
):
    app.command()(command)
app.add_typer(versions, name="versions")


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
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
    try:
        app()
    except CarcondError as error:
        sys.exit(f"carcond: {error}")
