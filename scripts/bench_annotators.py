"""Annotators at a saturated Label Studio: many through the API, and some in browsers beside them."""

import itertools
import secrets
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import httpx

from backend.label_studio.client import LabelStudioApi
from carcond.errors import LabelStudioError
from carcond.registry.registry import Registry
from scripts.labellers.accounts import Account
from scripts.labellers.crew import Crew, find_chromium
from scripts.labellers.deeds import Deed
from scripts.labellers.notebook import Notebook
from scripts.oracle import Oracle, read_truth
from scripts.stack import Stack

_LEARNING_S = 600.0
_PACE_S = 3.0
"""Mean time per photo of an annotator in a browser."""


def label_together(
    stack: Stack, project_id: int, labels: Path, *, minutes: float, labellers: int, people: int
) -> dict[str, Any]:
    """Counts and seconds of annotators who label for some minutes, and until all of their labels are learnt.

    Args:
        stack: a running stack.
        project_id: the project.
        labels: CSV of the photos' true classes.
        minutes: of labelling.
        labellers: number of annotators through the API, each at most one label a second.
        people: number of annotators in a browser.
    """
    truth = read_truth(labels)
    notebook = Notebook()
    made: list[int] = []
    refused: list[str] = []

    def label(number: int) -> None:
        api = LabelStudioApi(stack.label_studio_url, _sign_up(stack, number))
        oracle = Oracle(api, project_id, truth)
        while (began := time.monotonic()) < end:
            try:
                done = oracle.label_next()
            except (LabelStudioError, httpx.HTTPError) as error:
                refused.append(str(error)[:200])
                continue
            if done is None:
                return
            made.append(done.task_id)
            time.sleep(max(0.0, began + 1.0 - time.monotonic()))

    def sit_down(crew: Crew, account: Account) -> None:
        with crew.seat(account, notebook) as labeller:
            labeller.label_through_faults(itertools.repeat(Deed.LABEL), lambda: time.monotonic() > end)

    with tempfile.TemporaryDirectory(prefix="carcond-bench-") as artefacts:
        threads = [threading.Thread(target=label, args=(number,), daemon=True) for number in range(labellers)]
        if people:
            crew = Crew(stack, find_chromium(), project_id, truth, _PACE_S, Path(artefacts))
            threads += [
                threading.Thread(target=sit_down, args=(crew, account), daemon=True)
                for account in crew.accounts(people)
            ]
        end = time.monotonic() + 60 * minutes
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    made += [labelled.task_id for labelled in notebook.labelled]
    return {
        "labels": len(made),
        "a_second": round(len(made) / (60 * minutes), 2),
        "labelled_twice": len(made) - len(set(made)),
        "refused": len(refused),
        "first_refusal": refused[0] if refused else "",
        **_wait_until_learnt(stack, project_id, set(made)),
        "browsers": notebook.figures() if people else {},
    }


def newest_labels(stack: Stack, project_id: int) -> list[dict[str, Any]]:
    """Labels that the newest version knows, in train or hold-out."""
    registry = Registry(Path(stack.environment["CARCOND_MODELS_DIR"]), project_id)
    numbers = registry.numbers()
    return list(registry.labels(numbers[-1])) if numbers else []


def _wait_until_learnt(stack: Stack, project_id: int, made: set[int]) -> dict[str, Any]:
    """Compare the labels that were made with those that Label Studio holds, and these with the newest version's."""
    stopped = time.monotonic()
    while True:
        learnt = {row["task"] for row in newest_labels(stack, project_id)}
        held = {task.id for task in stack.api().tasks(project_id) if task.annotations}
        if learnt == held or time.monotonic() > stopped + _LEARNING_S:
            break
        time.sleep(1.0)
    return {
        "lost": len(made - held),
        "unlearned": len(held - learnt),
        "learned_after_s": round(time.monotonic() - stopped, 1),
    }


def _sign_up(stack: Stack, number: int) -> str:
    """Make an account as an invited person does, and return its token."""
    invitation = stack.api().request("GET", "/api/invite")
    page = f"{stack.label_studio_url}/user/signup/?token={invitation['token']}"
    with httpx.Client(trust_env=False, timeout=60, follow_redirects=True) as browser:
        browser.get(page)
        form = {
            "csrfmiddlewaretoken": browser.cookies["csrftoken"],
            "email": f"load-{number}-{secrets.token_hex(3)}@example.com",
            "password": secrets.token_urlsafe(12),
        }
        browser.post(page, data=form, headers={"Referer": page}).raise_for_status()
        answer = browser.get(f"{stack.label_studio_url}/api/current-user/token")
        return str(answer.raise_for_status().json()["token"])
