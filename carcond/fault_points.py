"""Named points at which a test ends the process as `kill -9` or a power cut would; off unless a test turns them on.

`CARCOND_FAULT_POINTS` names a folder. A file in it with the name of a point is one fault: the first process that
reaches the point removes the file and ends the victims that it lists, `self`, `parent` or numbers of process groups.
"""

import os
import signal
from pathlib import Path
from typing import Final

VARIABLE: Final = "CARCOND_FAULT_POINTS"
"""Environment variable with the folder. It is no setting: nobody needs it in production."""
POINTS: Final = (
    "webhook.received",
    "job.taken",
    "turn.begun",
    "turn.read",
    "turn.embedded",
    "turn.settled",
    "version.files_written",
    "version.written",
    "version.promoted",
    "prediction.written",
    "predictions.written",
    "turn.published",
)
"""The points in the order of a turn, from the webhook to the published queue."""
SELF: Final = "self"
PARENT: Final = "parent"
"""The process that started this one: the worker, for a job."""


def reach(point: str) -> None:
    """End the victims at once if a test has laid a fault at this point.

    Args:
        point: one of `POINTS`.
    """
    folder = os.environ.get(VARIABLE)
    if not folder:
        return
    fault = Path(folder) / point
    try:
        victims = fault.read_text(encoding="utf-8").split()
        fault.unlink()
    except FileNotFoundError:  # none was laid, or another process was faster
        return
    for group in (int(victim) for victim in victims if victim.isdecimal()):
        os.killpg(group, signal.SIGKILL)
    if PARENT in victims:
        os.kill(os.getppid(), signal.SIGKILL)
    if SELF in victims:
        os.kill(os.getpid(), signal.SIGKILL)
