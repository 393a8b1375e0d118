"""Adds the photos of a folder to the stack that `scripts/up` runs, while people label."""

import argparse
import fcntl
import logging
import shlex
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import httpx

from backend.label_studio.backend_address import BackendAddress, first_address
from backend.label_studio.client import LabelStudioApi
from backend.label_studio.provision import find_or_create_project, provision
from backend.label_studio.way_in import project_url
from carcond.errors import CarcondError
from carcond.files import restrict_umask
from scripts.label_projects import PHOTOS, TITLES, import_with_progress, known_projects, remember_project
from scripts.photo_import import find_photos
from scripts.preflight import StackError
from scripts.stack import CHECKOUT

_HEALTH_TIMEOUT_S = 5.0


def main() -> None:
    """Run the command."""
    restrict_umask()
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    arguments = _parse_arguments()
    try:
        add_photos(arguments.folder, arguments.data.absolute())
    except KeyboardInterrupt:
        sys.exit("\nadd_photos: stopped; giving the folder again imports the rest")
    except CarcondError as error:
        sys.exit(f"add_photos: {error}")


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="scripts/add_photos",
        description="Adds the photos of a folder to the stack that scripts/up runs. The files are not copied; photos "
        "that are in the project already are skipped. Labelling can continue meanwhile.",
    )
    parser.add_argument("folder", type=Path, metavar="DIR", help="folder with photos, searched recursively")
    parser.add_argument(
        "--data", type=Path, metavar="DIR", default=CHECKOUT / ".carcond", help="the running stack's data folder"
    )
    return parser.parse_args()


def _say(message: str) -> None:
    print(f"add_photos: {message}", flush=True)


def add_photos(folder: Path, data_dir: Path) -> int:
    """Import the new photos of a folder into the project of the user's own photos.

    Args:
        folder: with the photos.
        data_dir: of the running stack.

    Returns:
        Number of new photos.

    Raises:
        StackError: there are no photos, or no stack runs.
        LabelStudioError: Label Studio refused.
    """
    found = find_photos(folder)
    variables = _running_stack(data_dir, folder)
    api = LabelStudioApi(variables["LABEL_STUDIO_URL"], variables["LABEL_STUDIO_API_KEY"])
    try:
        with _one_at_a_time(data_dir):
            return _add(api, variables, folder, data_dir, len(found))
    finally:
        api.close()


def _add(api: LabelStudioApi, variables: Mapping[str, str], folder: Path, data_dir: Path, found: int) -> int:
    project_id, _ = find_or_create_project(api, TITLES[PHOTOS], known_projects(data_dir).get(PHOTOS))
    remember_project(data_dir, PHOTOS, project_id)
    count = import_with_progress("add_photos", api, project_id, data_dir / "photos", folder)
    backend = BackendAddress(
        f"http://{first_address(variables['CARCOND_BIND'])}",
        variables["CARCOND_BASIC_AUTH_USER"],
        variables["CARCOND_BASIC_AUTH_PASSWORD"],
    )
    # A stack that has had drawn pictures only has no such project yet. `provision` is idempotent.
    provision(api, backend, TITLES[PHOTOS], project_id)
    _say(f"{count} new photos imported, {found - count} of {found} were there already")
    if count:
        where = project_url(variables["LABEL_STUDIO_HOST"], project_id)
        _say(f"the worker embeds them now, and adds them to the queue of {where}")
    return count


def _running_stack(data_dir: Path, folder: Path) -> dict[str, str]:
    """The settings that the stack was started with.

    Raises:
        StackError: none runs.
    """
    advice = f"start it with its photos: scripts/up --photos {shlex.quote(str(folder))}"
    path = data_dir / "environment"
    if not path.exists():
        raise StackError(f"no stack has ever run on {data_dir}: {advice}, or name its folder with --data")
    lines = (shlex.split(line)[0] for line in path.read_text(encoding="utf-8").splitlines())
    variables = dict(line.split("=", 1) for line in lines)
    try:
        answer = httpx.get(f"{variables['LABEL_STUDIO_URL']}/health", timeout=_HEALTH_TIMEOUT_S, trust_env=False)
    except httpx.HTTPError:
        raise StackError(f"the stack on {data_dir} does not run: {advice}") from None
    if not answer.is_success:
        raise StackError(f"Label Studio of the stack on {data_dir} is not ready (HTTP {answer.status_code}): try again")
    return variables


@contextmanager
def _one_at_a_time(data_dir: Path) -> Iterator[None]:
    """Two imports at once would both find the same photos missing."""
    with (data_dir / "import.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


if __name__ == "__main__":
    main()
