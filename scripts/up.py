"""Starts the stack, makes a project, and prints where to label. Ctrl-C stops it all."""

import argparse
import errno
import logging
import os
import shlex
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from textwrap import indent
from types import FrameType
from typing import NoReturn

from backend.label_studio.people import invite_link
from backend.label_studio.provision import LABEL_CONFIGS, find_or_create_project
from backend.label_studio.way_in import HOTKEYS, numbered_steps, project_url
from carcond.data.synthetic_photos import draw_samples
from carcond.errors import CarcondError
from carcond.files import restrict_umask
from scripts.label_projects import (
    PHOTOS,
    SAMPLES,
    TITLES,
    import_with_progress,
    known_projects,
    remember_project,
)
from scripts.photo_import import find_photos, follow_links, linked_folders
from scripts.stack import CHECKOUT, Stack, StackOptions

SAMPLE_COUNT = 60


@dataclass(frozen=True)
class _Place:
    """Project in which people label, and its content."""

    project_id: int
    are_drawn: bool


def main() -> None:
    """Run the command."""
    restrict_umask()
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    arguments = _parse_arguments()
    for name in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(name, _interrupt)
    try:
        _run(arguments)
    except KeyboardInterrupt:
        _say("stopped")
    except CarcondError as error:
        sys.exit(f"\nup: {error}")
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        sys.exit(f"\nup: the disk of {arguments.data} is full: make room, or choose a folder elsewhere with --data")


def _interrupt(_signal: int, _frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


def _say(message: str) -> None:
    print(f"up: {message}", flush=True)


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="scripts/up",
        description="Starts Redis, Label Studio, the backend and its worker on this machine, and makes a project.",
        epilog="Environment: REDIS_URL: a running Redis to use; CARCOND_LABEL_STUDIO_VENV: the environment of Label "
        "Studio; all settings of the backend (CARCOND_...) are passed on.",
    )
    parser.add_argument(
        "--photos",
        type=Path,
        metavar="DIR",
        help="folder with your photos, which are not copied. New ones are imported; for a running stack use "
        "scripts/add_photos. Default: sample pictures are drawn at the first start",
    )
    parser.add_argument(
        "--label-config",
        choices=LABEL_CONFIGS,
        default=LABEL_CONFIGS[0],
        help="label config of a new project: boxes adds suspected damage and a line with the reason, russian is the "
        "same in Russian (default: %(default)s). An existing project keeps its own",
    )
    parser.add_argument("--data", type=Path, metavar="DIR", default=CHECKOUT / ".carcond", help="folder for all data")
    parser.add_argument("--port", type=_port, default=8080, help="port of Label Studio (default: %(default)s)")
    parser.add_argument(
        "--host",
        default="",
        metavar="NAME_OR_ADDRESS",
        help="name or address of this machine for other ones: opens Label Studio to the network, without TLS. "
        "Default: this machine only",
    )
    parser.add_argument("--backend-port", type=_port, default=9090, help="port of the backend (default: %(default)s)")
    parser.add_argument(
        "--redis-port", type=_port, default=6390, help="port of the stack's own Redis (default: %(default)s)"
    )
    return parser.parse_args()


def _port(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 65535:
        raise argparse.ArgumentTypeError(f"expected a port number from 1 to 65535, got {text!r}")
    return int(text)


def _run(arguments: argparse.Namespace) -> None:
    if arguments.photos:
        # Checked before anything is installed or started.
        _say(f"{len(find_photos(arguments.photos))} photos in {arguments.photos}")
    models_dir = os.environ.get("CARCOND_MODELS_DIR")
    options = StackOptions(
        data_dir=arguments.data,
        label_studio_port=arguments.port,
        backend_port=arguments.backend_port,
        redis_port=arguments.redis_port,
        redis_url=os.environ.get("REDIS_URL", ""),
        models_dir=Path(models_dir).absolute() if models_dir else None,
        host=arguments.host,
    )
    stack = Stack(options, _say)
    try:
        stack.start()
        place = _prepare_project(stack, arguments)
        _warn_of_missing_folders(stack)
        _welcome(stack, place)
        while True:
            stack.tend()
            time.sleep(0.5)
    finally:
        _stop(stack)


def _stop(stack: Stack) -> None:
    if stack.pids:
        _say("stopping (Ctrl-C again: at once)")
    try:
        stack.stop()
    except KeyboardInterrupt:
        stack.kill()


def _prepare_project(stack: Stack, arguments: argparse.Namespace) -> _Place:
    known = known_projects(arguments.data)
    kind = PHOTOS if arguments.photos or PHOTOS in known else SAMPLES
    project_id, _ = find_or_create_project(stack.api(), TITLES[kind], known.get(kind), arguments.label_config)
    remember_project(arguments.data, kind, project_id)
    follow_links(stack.api(), stack.photos_root)
    folder = _sample_folder(arguments.data) if kind == SAMPLES else arguments.photos
    if folder:
        count = import_with_progress("up", stack.api(), project_id, stack.photos_root, folder)
        _say(f"{count} new photos imported" if count else "all photos are imported already")
    # After the import, so that the first turn of the loop finds all photos.
    stack.provision(TITLES[kind], project_id)
    stack.follow_backend()
    return _Place(project_id, kind == SAMPLES)


def _sample_folder(data_dir: Path) -> Path:
    folder = data_dir / "sample-photos"
    if not folder.exists():
        _say(f"no --photos given: drawing {SAMPLE_COUNT} sample pictures. They are drawings, not photos of cars")
        unfinished = data_dir / "sample-photos.new"
        draw_samples(unfinished, SAMPLE_COUNT, seed=0)
        unfinished.replace(folder)
    return folder


def _warn_of_missing_folders(stack: Stack) -> None:
    for link in linked_folders(stack.photos_root):
        if not link.exists():
            _say(
                f"WARNING: the photo folder {link.readlink()} is gone: its tasks show no picture. "
                f"If it was moved: ln -sfn NEW_PLACE {link}"
            )


def _welcome(stack: Stack, place: _Place) -> None:
    data = stack.options.data_dir
    others = "" if data == CHECKOUT / ".carcond" else f" --data {shlex.quote(str(data))}"
    drawn = f"\nThe pictures are drawings. To add photos of your own: scripts/add_photos DIR{others}\n"
    text = f"""
Open      {project_url(stack.browser_url, place.project_id)}
E-mail    {stack.credentials.label_studio_email}
Password  {stack.credentials.label_studio_password}

{numbered_steps()}

{HOTKEYS} The first choices are yours alone. After a few labels of each kind the model
pre-selects answers: correct it, and it learns within seconds.
{drawn if place.are_drawn else ""}{_openness(stack) if stack.options.host else ""}
Logs: {stack.logs_dir}   Stop: Ctrl-C; the next start finds everything again.
"""
    print(indent(text, "    "), flush=True)


def _openness(stack: Stack) -> str:
    """Addresses opened by `--host`, and the invitation for other annotators."""
    where = "all addresses of this machine" if stack.is_open_everywhere else stack.options.host
    return f"""
Others    {invite_link(stack.api(), stack.browser_url)}
          makes an account; whoever has it can see, change and delete all projects.

WARNING: Label Studio answers on {where}, port {stack.options.label_studio_port}, without TLS: passwords and
photos can be read on the way, and everybody who reaches the port sees the login page. Backend and Redis answer this
machine only. Use it in a network that you trust; docs/annotators.md says more.
"""


if __name__ == "__main__":
    main()
