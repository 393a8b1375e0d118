"""Simulated annotators on a real stack in browsers: refused, blank, duplicate and lost labels, and waiting time."""

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from redis import Redis
from redis.exceptions import RedisError

from backend.jobs.turn_log import read_turns
from carcond.query.slots import EXPLORATION_SLOT
from scripts.labellers.audit import ledger_differences
from scripts.labellers.crew import gather_crew
from scripts.labellers.deeds import plan_deeds
from scripts.labellers.notebook import Notebook
from scripts.stack import Stack

_POLL_S = 0.5


def bench_labellers(
    stack: Stack,
    folder: Path,
    labels: Path,
    *,
    people: int,
    photos: int,
    pace_s: float,
    artefacts: Path,
    seed: int,
    say: Callable[[str], None],
) -> dict[str, Any]:
    """Let annotators label a number of photos together; see the keys of the returned JSON in README.

    Args:
        stack: a running stack.
        folder: photos of the pool.
        labels: CSV of their true classes.
        people: number of annotators, each in a browser.
        photos: number of photos they label together.
        pace_s: mean time per photo, in seconds.
        artefacts: folder for screenshots of failures.
        seed: of the annotators' actions.
        say: progress callback.
    """
    crew, imported = gather_crew(
        stack, "labellers", folder, labels, pace_s=pace_s, artefacts=artefacts, seed=seed, say=say
    )
    accounts = crew.accounts(people)
    shares = [photos // people + (number < photos % people) for number in range(people)]
    plans = [plan_deeds(share, f"{seed} {number}") for number, share in enumerate(shares)]
    notebook = Notebook()
    with _watched_turns(stack, crew.project_id) as publishes:
        crew.label(accounts, plans, notebook, say=say)
        seconds = notebook.now()
        differences = ledger_differences(crew, notebook.ledger)
    figures = notebook.figures()
    return {
        **figures,
        "ledger_differences": len(differences),
        "differences": differences[:20],
        **_slots(notebook),
        "publish_s": {"median": round(float(np.median(publishes)), 3) if publishes else None, "count": len(publishes)},
        "people": people,
        "pace_s": pace_s,
        "pool": imported,
        "seconds": round(seconds, 1),
    }


def _slots(notebook: Notebook) -> dict[str, Any]:
    """Shares of the slots: exploration's, and the ratio of the most frequent to the rarest of the others."""
    counts = Counter(each.slot for each in notebook.labelled if each.slot is not None)
    others = [count for slot, count in counts.items() if slot != EXPLORATION_SLOT]
    return {
        "exploration_share": round(counts[EXPLORATION_SLOT] / max(1, counts.total()), 3),
        "slot_ratio": round(max(others) / min(others), 2) if others else None,
    }


@contextmanager
def _watched_turns(stack: Stack, project_id: int) -> Iterator[list[float]]:
    """Publishing time of each turn in seconds, collected while the block runs."""
    publishes: list[float] = []
    stopped = threading.Event()

    def watch() -> None:
        last = 0.0
        with Redis.from_url(stack.redis_url) as redis:
            while not stopped.wait(_POLL_S / 2):
                try:
                    turns = read_turns(redis).get(project_id)
                except RedisError:
                    continue
                if turns and turns.ended != last:
                    last = turns.ended
                    if "publish" in turns.seconds:
                        publishes.append(turns.seconds["publish"])

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield publishes
    finally:
        stopped.set()
        thread.join()
