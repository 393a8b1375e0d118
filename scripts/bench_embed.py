"""The worker's embedding of new photos beside the usual way, in turns in one run."""

import itertools
from typing import Any

from scripts.photo_workload import PROJECT, Workload


def bench_embed(work: Workload) -> dict[str, Any]:
    """Milliseconds per photo of the worker and of the usual way, see `Workload.milliseconds`.

    The worker's include what it measures of a photo, and the writing to the store.
    """
    with work.installation() as services, work.naive() as naive:
        projects = itertools.count(PROJECT + 1)
        return work.milliseconds({"embed": lambda: work.embed(services, next(projects))}, naive)
