"""The environment variables that are meant for carcond."""

import os
from collections.abc import Iterator
from difflib import get_close_matches

from backend.doctor.examination import Examination
from backend.doctor.finding import Finding, Kind, Level, fine
from carcond.settings import FORMER_VARIABLES, Settings, variable_name

UNKNOWN = Kind(
    "unknown-variable",
    Level.WARNING,
    "A setting that somebody made has no effect.",
    "{name} is set, and carcond has no such setting.",
    "A process reads the names that it knows when it starts, and passes over all others.",
    "{advice}",
)

_PREFIX = "CARCOND_"
# Variables of Docker Compose, its builds and the scripts are no settings of a process.
_MEMORIES = ("BACKEND", "WORKER", "ENCODER", "FINETUNE", "DEMO", "REDIS", "POSTGRES", "LABEL_STUDIO")
_STACK = (
    *("ADDRESS", "BIND", "DATA", "DEMO_PORT", "EXTRAS", "GRAFANA_PORT", "LABEL_STUDIO_VENV", "PIP_CONFIG", "PORT"),
    *("PROMETHEUS_PORT", "REVISION", "SUBNET", "TAG", "TORCH_INDEX_URL", "URL", "VERSION"),
    *(f"{service}_MEMORY" for service in _MEMORIES),
)
_ELSEWHERE = {_PREFIX + name for name in _STACK}


def check_variables(_whole: Examination) -> Iterator[Finding]:
    """Check that each variable whose name begins like a setting's is one."""
    settings = {variable_name(setting) for setting in Settings.model_fields}
    known = settings | _ELSEWHERE | FORMER_VARIABLES.keys()
    unknown = sorted(name for name in os.environ if name.startswith(_PREFIX) and name not in known)
    for name in unknown:
        near = get_close_matches(name, settings, n=1, cutoff=0.8)
        advice = f"Rename it to {near[0]}, or" if near else "All settings are in docs/reference/settings.md:"
        yield UNKNOWN.found(name=name, advice=f"{advice} remove it, and start the processes again")
    if not unknown:
        yield fine("all of them are known")
