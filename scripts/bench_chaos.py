"""Annotators who label in browsers while servers are killed at random: lost, doubled, changed and refused labels."""

import itertools
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from carcond.registry.registry import Registry
from scripts.labellers.accounts import Account
from scripts.labellers.audit import held_labels, snapshot_differences
from scripts.labellers.chaos import Chaos
from scripts.labellers.crew import Crew, gather_crew
from scripts.labellers.deeds import plan_deeds
from scripts.labellers.ledger import Ledger, Meant
from scripts.labellers.notebook import Notebook
from scripts.stack import Stack

# A page that was open while Label Studio was killed may get its error some seconds later.
_MARGIN_S = 5.0
_PROBE_S = 0.5
_LEARNING_S = 240.0
_PATIENCE_S = 180.0


@dataclass
class Probes:
    """Predictions that were asked for all the time: their number, and the moments of failures with their reason."""

    count: int = 0
    failures: list[tuple[float, str]] = field(default_factory=list)


def bench_chaos(
    stack: Stack,
    folder: Path,
    labels: Path,
    *,
    minutes: float,
    people: int,
    pace_s: float,
    artefacts: Path,
    seed: int,
    say: Callable[[str], None],
) -> dict[str, Any]:
    """Let annotators label while servers are killed; see docs/reliability.md for the keys of the returned JSON.

    Args:
        stack: a running stack with a folder for faults.
        folder: photos of the pool.
        labels: CSV of their true classes.
        minutes: of labelling.
        people: number of annotators, each in a browser.
        pace_s: mean time per photo, in seconds.
        artefacts: folder for screenshots of failures.
        seed: of the annotators' actions and of the kills.
        say: progress callback.
    """
    crew, _ = gather_crew(stack, "chaos", folder, labels, pace_s=pace_s, artefacts=artefacts, seed=seed, say=say)
    accounts = crew.accounts(people)
    notebook = Notebook()
    began = time.monotonic()
    chaos = Chaos(stack, random.Random(f"{seed} kills"))  # noqa: S311 - no secret
    end = began + 60 * minutes
    threads = [
        threading.Thread(target=_label, args=(crew, account, notebook, f"{seed} {account.name}", end), daemon=True)
        for account in accounts
    ]
    with _probed(stack, crew.project_id) as probes:
        for thread in threads:
            thread.start()
        told = Counter[str]()

        def is_over() -> bool:
            if chaos.kills.total() >= told["kills"] + 5:
                told["kills"] = chaos.kills.total()
                say(f"{notebook.now():.0f} s: {len(notebook.labelled)} labels, {told['kills']} kills")
            return time.monotonic() > end and not any(thread.is_alive() for thread in threads)

        chaos.run(lambda: is_over() or time.monotonic() > end + _PATIENCE_S)
    minutes_taken = (time.monotonic() - began) / 60
    verdict = _compare(crew, notebook.ledger)
    unlearnt, versions = _unlearnt(crew)
    refused = [each for each in notebook.incidents if each.kind == "refused"]
    outside = [each for each in refused if not chaos.was_out("label-studio", began + each.at_s, _MARGIN_S)]
    unserved = [reason for at, reason in probes.failures if not chaos.was_out("backend", at, _MARGIN_S)]
    return {
        "minutes": round(minutes_taken, 1),
        "people": people,
        "labels": len(notebook.ledger.confirmed()),
        "lost": verdict["lost"],
        "doubled": verdict["doubled"],
        "changed": verdict["changed"],
        "unlearned": len(unlearnt),
        "refused": len(refused),
        "refused_while_label_studio_was_up": len(outside),
        "kills": chaos.kills.total(),
        "kills_by_server": dict(sorted(chaos.kills.items())),
        "outage_s": _outage_seconds(chaos),
        "versions": versions,
        "probes": probes.count,
        "probes_failed_while_backend_was_up": len(unserved),
        "blank": notebook.count("blank"),
        "differences": [*verdict["differences"], *unlearnt, *(each.detail for each in outside), *unserved][:30],
    }


def _label(crew: Crew, account: Account, notebook: Notebook, seed: str, end: float) -> None:
    """One thread: open a browser, log in, and label until the end; begin again when the browser gives up."""
    deeds = itertools.cycle(plan_deeds(200, seed))
    while time.monotonic() < end:
        try:
            with crew.seat(account, notebook) as labeller:
                labeller.label_through_faults(deeds, lambda: time.monotonic() > end)
        except Exception as error:  # of any kind: logging in fails too while Label Studio is killed
            notebook.add("page_errors", account.name, 0, f"{type(error).__name__}: {str(error)[:300]}")
            time.sleep(1.0)


@contextmanager
def _probed(stack: Stack, project_id: int) -> Iterator[Probes]:
    """Ask the backend for a kept prediction twice a second while the block runs."""
    probes, stopped = Probes(), threading.Event()
    task = next(iter(stack.api().tasks(project_id)))
    config = stack.api().project(project_id).label_config
    body = {"tasks": [{"id": task.id, "data": dict(task.data)}], "project": f"{project_id}.1", "label_config": config}
    address = stack.backend_address

    def probe() -> None:
        while not stopped.wait(_PROBE_S):
            probes.count += 1
            try:
                answer = httpx.post(
                    f"{address.url}/predict", json=body, auth=(address.user, address.password), timeout=10.0
                )
                problem = "" if answer.is_success else f"HTTP {answer.status_code} {answer.text[:200]}"
            except httpx.HTTPError as error:
                problem = type(error).__name__
            if problem:
                probes.failures.append((time.monotonic(), problem))

    thread = threading.Thread(target=probe, daemon=True)
    thread.start()
    try:
        yield probes
    finally:
        stopped.set()
        thread.join()


def _compare(crew: Crew, ledger: Ledger) -> dict[str, Any]:
    """Labels that Label Studio has said are saved, against those that it holds.

    A label that was submitted without an answer may be there or not; it may not be there twice.
    """
    held = held_labels(crew.stack.api(), crew.project_id, crew.binding)
    confirmed, meant = ledger.confirmed(), ledger.entries()
    counts: Counter[str] = Counter(lost=0, doubled=0, changed=0)
    differences = []
    for key in sorted(held.keys() | meant.keys()):
        kind = difference(held.get(key, []), confirmed.get(key), meant.get(key))
        if kind:
            counts[kind] += 1
            differences.append(f"task {key[0]}, user {key[1]}: {kind}: {held.get(key)}, saved {confirmed.get(key)}")
    return {**counts, "differences": differences}


def difference(held: list[Meant], confirmed: Meant | None, meant: Meant | None) -> str:
    """Name of what is wrong with the labels of one photo by one annotator; empty for nothing.

    Args:
        held: by Label Studio.
        confirmed: the last one of which Label Studio has answered that it is saved.
        meant: the last one that was submitted.
    """
    if len(held) > 1:
        return "doubled"
    if not held:
        return "lost" if confirmed else ""
    return "" if held[0] in (confirmed, meant) else "changed"


def _unlearnt(crew: Crew) -> tuple[list[str], int]:
    """Differences between Label Studio's labels and those of the serving version, and the number of versions."""
    registry = Registry(Path(crew.stack.environment["CARCOND_MODELS_DIR"]), crew.project_id)
    deadline = time.monotonic() + _LEARNING_S
    while True:
        # People have stopped, so one reading is what there is to learn.
        ledger = Ledger()
        for (task_id, user_id), labels in held_labels(crew.stack.api(), crew.project_id, crew.binding).items():
            ledger.write(task_id, user_id, labels[-1])
        numbers = registry.numbers()
        rows: list[Mapping[str, Any]] = list(registry.labels(numbers[-1])) if numbers else []
        found = snapshot_differences(ledger, rows)
        if not found or time.monotonic() > deadline:
            return found, len(numbers)
        time.sleep(1.0)


def _outage_seconds(chaos: Chaos) -> dict[str, float]:
    seconds = dict.fromkeys(sorted({outage.server for outage in chaos.outages}), 0.0)
    for outage in chaos.outages:
        seconds[outage.server] += (outage.until or time.monotonic()) - outage.since
    return {server: round(total, 1) for server, total in seconds.items()}
