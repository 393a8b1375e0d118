"""Label Studio's own environment. Runs with nothing installed, beside the installation of carcond."""

import fcntl
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from carcond.errors import CarcondError
from scripts.preflight import StackError, check_disk, make_directory

LABEL_STUDIO_VERSION = "1.23.2"
INSTALL_MIB = 1500

_CHECKOUT = Path(__file__).resolve().parents[1]


def default_label_studio_venv() -> Path:
    """Label Studio's environment: one for all data folders, unless `CARCOND_LABEL_STUDIO_VENV` names another."""
    named = os.environ.get("CARCOND_LABEL_STUDIO_VENV")
    return Path(named).absolute() if named else _CHECKOUT / ".carcond" / "label-studio-venv"


def install(venv: Path, say: Callable[[str], None]) -> None:
    """Make Label Studio's environment unless it exists; safe for concurrent calls.

    Raises:
        StackError: no room on the disk, or pip failed.
    """
    make_directory(venv.parent)
    marker = venv / f".label-studio-{LABEL_STUDIO_VERSION}"
    if marker.exists():
        return
    with venv.with_name(f"{venv.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if marker.exists():  # made by another while this one waited
            return
        check_disk(venv.parent, INSTALL_MIB, "Label Studio's environment")
        say(f"installing Label Studio {LABEL_STUDIO_VERSION} in {venv}: once, about two minutes and 1 GB")
        _run([sys.executable, "-m", "venv", "--clear", str(venv)])
        pip = [str(venv / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        _run([*pip, f"label-studio=={LABEL_STUDIO_VERSION}"])
        marker.touch()


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise StackError(
            f"installing Label Studio failed at `{' '.join(command)}` (exit code {done.returncode}):\n"
            + "\n".join((done.stdout + done.stderr).splitlines()[-10:])
        )


def main() -> None:
    """Make the default environment; ended by a signal, it ends pip too."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        install(default_label_studio_venv(), lambda message: print(f"setup: {message}", flush=True))
    except CarcondError as error:
        sys.exit(f"setup: {error}")


if __name__ == "__main__":
    main()
