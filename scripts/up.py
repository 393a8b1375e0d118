"""Starts everything, brings a project into being, and says where to label. Ctrl-C stops it all."""

import argparse
import errno
import json
import logging
import os
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import NoReturn

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from backend.provision import LABEL_CONFIGS, PROJECT_TITLE, find_or_create_project
from carcond.errors import CarcondError
from scripts.photo_import import find_photos, follow_links, linked_folders
from scripts.stack import CHECKOUT, Stack, StackOptions

SAMPLE_COUNT = 60
_TITLES = {"photos": PROJECT_TITLE, "samples": f"{PROJECT_TITLE} (drawn samples)"}


@dataclass(frozen=True)
class _Place:
    """Where people label: a project, and what it holds."""

    project_id: int
    are_drawn: bool


def main() -> None:
    """Run the command."""
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
        epilog="Environment: REDIS_URL uses a running Redis; CARCOND_LABEL_STUDIO_VENV says where Label Studio is "
        "installed; all settings of the backend (CARCOND_...) are handed on.",
    )
    parser.add_argument(
        "--photos",
        type=Path,
        metavar="DIR",
        help="folder with your photos: they stay where they are. Give it again to add new ones. "
        "Without it, at the first start, sample pictures are drawn",
    )
    parser.add_argument(
        "--label-config",
        choices=LABEL_CONFIGS,
        default=LABEL_CONFIGS[0],
        help="what a new project asks with: boxes adds suspected damage and a line with the reason, russian is the "
        "same in Russian (default: %(default)s). A project that is there keeps its own",
    )
    parser.add_argument("--data", type=Path, metavar="DIR", default=CHECKOUT / ".carcond", help="where all data goes")
    parser.add_argument("--port", type=_port, default=8080, help="of Label Studio (default: %(default)s)")
    parser.add_argument("--backend-port", type=_port, default=9090, help="of the backend (default: %(default)s)")
    parser.add_argument("--redis-port", type=_port, default=6390, help="of its own Redis (default: %(default)s)")
    return parser.parse_args()


def _port(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 65535:
        raise argparse.ArgumentTypeError(f"expected a port number from 1 to 65535, got {text!r}")
    return int(text)


def _run(arguments: argparse.Namespace) -> None:
    if arguments.photos:
        # Looked at before anything is installed or started.
        _say(f"{len(find_photos(arguments.photos))} photos in {arguments.photos}")
    models_dir = os.environ.get("CARCOND_MODELS_DIR")
    options = StackOptions(
        data_dir=arguments.data,
        label_studio_port=arguments.port,
        backend_port=arguments.backend_port,
        redis_port=arguments.redis_port,
        redis_url=os.environ.get("REDIS_URL", ""),
        models_dir=Path(models_dir).absolute() if models_dir else None,
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
    state_path: Path = arguments.data / "projects.json"
    known: dict[str, int] = json.loads(state_path.read_text()) if state_path.exists() else {}
    # Drawings never get among somebody's photos: they have a project of their own.
    kind = "photos" if arguments.photos or "photos" in known else "samples"
    project_id, _ = find_or_create_project(stack.api(), _TITLES[kind], known.get(kind), arguments.label_config)
    state_path.write_text(json.dumps(known | {kind: project_id}) + "\n")
    follow_links(stack.api(), stack.photos_root)
    folder = _sample_folder(arguments.data) if kind == "samples" else arguments.photos
    if folder:
        _import(stack, project_id, folder)
    # After the import, so that the first turn of the loop finds all photos.
    stack.provision(_TITLES[kind], project_id)
    return _Place(project_id, kind == "samples")


def _sample_folder(data_dir: Path) -> Path:
    folder = data_dir / "sample-photos"
    if not folder.exists():
        from carcond.samples import draw_samples  # noqa: PLC0415  # needed once in the life of a data folder

        _say(f"no --photos given: drawing {SAMPLE_COUNT} sample pictures. They are drawings, not photos of cars")
        unfinished = data_dir / "sample-photos.new"
        draw_samples(unfinished, SAMPLE_COUNT, seed=0)
        unfinished.replace(folder)
    return folder


def _import(stack: Stack, project_id: int, folder: Path) -> None:
    columns = (TextColumn("up: importing photos"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns) as progress:
        bar = progress.add_task("", visible=False)
        count = stack.import_photos(
            project_id, folder, lambda done, total: progress.update(bar, completed=done, total=total, visible=True)
        )
    _say(f"{count} new photos imported" if count else "all photos are imported already")


def _warn_of_missing_folders(stack: Stack) -> None:
    for link in linked_folders(stack.photos_root):
        if not link.exists():
            _say(
                f"WARNING: the photo folder {link.readlink()} is gone: its tasks show no picture. "
                f"If it was moved: ln -sfn NEW_PLACE {link}"
            )


def _welcome(stack: Stack, place: _Place) -> None:
    drawn = (
        "\n    The pictures are drawings. To label your own photos: scripts/up --photos DIR\n"
        if place.are_drawn
        else ""
    )
    print(
        f"""
    Open      {stack.label_studio_url}/projects/{place.project_id}/data?labeling=1
    E-mail    {stack.credentials.label_studio_email}
    Password  {stack.credentials.label_studio_password}

    1. Log in; the photo that teaches the model most is opened.
    2. Press 1-3 for cleanliness and 4-5 for damage, then Submit. The first choices are yours alone.
    3. After a few labels of each kind the model pre-selects answers: correct it, and it learns within seconds.
{drawn}
    Logs: {stack.logs_dir}   Stop: Ctrl-C; the next start finds everything again.
""",
        flush=True,
    )


if __name__ == "__main__":
    main()
