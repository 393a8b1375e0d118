"""Load on a real stack: a burst of webhooks, fifty clients, annotators through the API, and a large `/predict`."""

import asyncio
import json
import secrets
import tempfile
import threading
import time
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import numpy as np
from redis import Redis
from rq import Queue
from rq.serializers import JSONSerializer

from backend.jobs.queue import LOOP_QUEUES, TURNS
from backend.label_studio.client import LabelStudioApi
from carcond.data.synthetic_photos import draw_samples
from carcond.errors import LabelStudioError
from carcond.registry.registry import Registry
from scripts.oracle import Oracle, read_truth
from scripts.stack import Stack

_PHOTOS = 60
_BURST = 10_000
_CLIENTS = 50
_SECONDS_EACH = 20.0
_LARGE = 5_000
# Label Studio gives up a prediction after this long.
_LABEL_STUDIO_WAITS_S = 100.0
_SAMPLE_S = 2.0
_LEARNING_S = 600.0
_QUIET_S = 3.0


@dataclass(frozen=True)
class _Request:
    """A request to the backend as it goes over the wire."""

    path: str
    head: bytes
    body: bytes

    @classmethod
    def of(cls, stack: Stack, path: str, body: Mapping[str, Any]) -> "_Request":
        address = stack.backend_address
        token = b64encode(f"{address.user}:{address.password}".encode()).decode()
        data = json.dumps(body).encode()
        lines = [
            f"POST {path} HTTP/1.1",
            f"Host: {urlsplit(address.url).netloc}",
            f"Authorization: Basic {token}",
            "Content-Type: application/json",
            f"Content-Length: {len(data)}",
        ]
        return cls(path, ("\r\n".join(lines) + "\r\n\r\n").encode(), data)


@dataclass
class _Answers:
    """Milliseconds of each answer, and the number of those that were no success."""

    milliseconds: list[float] = field(default_factory=list)
    failed: int = 0

    def summary(self, seconds: float) -> dict[str, float]:
        quantiles = np.quantile(self.milliseconds, [0.5, 0.99]) if self.milliseconds else (0.0, 0.0)
        return {
            "answers": len(self.milliseconds),
            "failed": self.failed,
            "a_second": round(len(self.milliseconds) / seconds, 1),
            "median_ms": round(float(quantiles[0]), 1),
            "p99_ms": round(float(quantiles[1]), 1),
        }


def bench_load(
    stack: Stack, *, minutes: float, labellers: int, tasks: int, say: Callable[[str], None]
) -> dict[str, Any]:
    """Seconds, milliseconds and slopes under load; see docs/reliability.md.

    Args:
        stack: a running stack.
        minutes: of labelling through the API.
        labellers: number of annotators, each at most one label a second.
        tasks: number of tasks for them.
        say: progress callback.
    """
    with tempfile.TemporaryDirectory(prefix="carcond-bench-") as folder:
        photos = Path(folder)
        draw_samples(photos, _PHOTOS, seed=0, labels=True)
        project_id = stack.provision("load").project_id
        stack.import_photos(project_id, photos)
        oracle = Oracle(stack.api(), project_id, read_truth(photos / "labels.csv"))
        oracle.label_until_versioned()
        _wait_for_quiet(stack)
        with _measured_processes(stack) as growth:
            report: dict[str, Any] = {"burst": _burst(stack, project_id, oracle)}
            say(f"burst: {report['burst']}")
            report["clients"] = _clients(stack, project_id)
            say(f"clients: {report['clients']}; importing {tasks} tasks")
            _import_again(stack, project_id, tasks)
            _wait_for_quiet(stack)
            report["predict_large"] = _large_predict(stack, project_id)
            say(f"large predict: {report['predict_large']}")
            growth.clear()
            report["labelling"] = _labelling(stack, project_id, photos / "labels.csv", minutes, labellers)
            report["growth_a_minute"] = _slopes(growth)
        return report


def _import_again(stack: Stack, project_id: int, count: int) -> None:
    """Import tasks with the addresses of the photos that are there, again and again."""
    data = [dict(task.data) for task in stack.api().tasks(project_id)]
    rows = [data[number % len(data)] for number in range(count)]
    for start in range(0, count, 1000):
        stack.api().request("POST", f"/api/projects/{project_id}/import", json=rows[start : start + 1000])


def _event(project_id: int) -> dict[str, Any]:
    return {"action": "ANNOTATION_CREATED", "project": {"id": project_id}}


def _burst(stack: Stack, project_id: int, oracle: Oracle) -> dict[str, Any]:
    """As many webhooks as fast as they are answered, with one label among them."""
    before = _turns(stack)
    done = oracle.label_next()
    began = time.monotonic()
    answers = asyncio.run(_ask(_Request.of(stack, "/webhook", _event(project_id)), count=_BURST))
    seconds = time.monotonic() - began
    _wait_for_quiet(stack)
    turns = _turns(stack) - before
    labels = {row["task"] for row in _newest_labels(stack, project_id)}
    lost = 0 if done is None or done.task_id in labels else 1
    return {**answers.summary(seconds), "seconds": round(seconds, 1), "turns": turns, "labels_lost": lost}


def _clients(stack: Stack, project_id: int) -> dict[str, Any]:
    """Fifty clients that ask again as soon as they are answered: a webhook, and a kept prediction of one task."""
    task = next(iter(stack.api().tasks(project_id)))
    config = stack.api().project(project_id).label_config
    body = {"tasks": [{"id": task.id, "data": dict(task.data)}], "project": f"{project_id}.1", "label_config": config}
    requests = {
        "webhook": _Request.of(stack, "/webhook", _event(project_id)),
        "predict": _Request.of(stack, "/predict", body),
    }
    return {
        name: asyncio.run(_ask(request, seconds=_SECONDS_EACH)).summary(_SECONDS_EACH)
        for name, request in requests.items()
    }


async def _ask(request: _Request, count: int = 10**9, seconds: float = 600.0) -> _Answers:
    answers, left, deadline = _Answers(), iter(range(count)), time.monotonic() + seconds
    host, port = next(
        line.split(": ")[1] for line in request.head.decode().splitlines() if line.startswith("Host")
    ).split(":")

    async def client() -> None:
        reader, writer = await asyncio.open_connection(host, int(port))
        while time.monotonic() < deadline and next(left, None) is not None:
            began = time.perf_counter()
            writer.write(request.head + request.body)
            status, closes = await _answer(reader)
            answers.milliseconds.append(1000 * (time.perf_counter() - began))
            answers.failed += status >= httpx.codes.BAD_REQUEST
            if closes:
                writer.close()
                reader, writer = await asyncio.open_connection(host, int(port))
        writer.close()

    await asyncio.gather(*(client() for _ in range(_CLIENTS)))
    return answers


async def _answer(reader: asyncio.StreamReader) -> tuple[int, bool]:
    """HTTP status of an answer, and True if the connection ends with it."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
    length = next(line.split(":")[1] for line in head.splitlines() if line.startswith("content-length"))
    await reader.readexactly(int(length))
    return int(head.split()[1]), "connection: close" in head


def _unseen(task: Mapping[str, Any], task_id: int) -> dict[str, Any]:
    """A task with an address of its own: the same photo would be fetched once for all tasks."""
    data = {name: f"{value}{'&' if '?' in str(value) else '?'}copy={task_id}" for name, value in task["data"].items()}
    return {"id": task_id, "data": data}


def _large_predict(stack: Stack, project_id: int) -> dict[str, Any]:
    """One request for thousands of tasks: of photos that are known, and of as many that nobody has seen."""
    known = [{"id": task.id, "data": dict(task.data)} for task in stack.api().tasks(project_id)]
    config = stack.api().project(project_id).label_config
    report = {}
    for name, first in (("known", None), ("new", 10**9)):
        tasks = [dict(known[number % len(known)]) for number in range(_LARGE)]
        if first:
            tasks = [_unseen(task, first + number) for number, task in enumerate(tasks)]
        body = {"tasks": tasks, "project": f"{project_id}.1", "label_config": config}
        address = stack.backend_address
        began = time.monotonic()
        answer = httpx.post(
            f"{address.url}/predict",
            json=body,
            auth=(address.user, address.password),
            timeout=2 * _LABEL_STUDIO_WAITS_S,
            trust_env=False,
        )
        seconds = time.monotonic() - began
        results = answer.json()["results"]
        report[name] = {
            "seconds": round(seconds, 1),
            "in_time": seconds < _LABEL_STUDIO_WAITS_S,
            "results": len(results),
            "pre_labelled": sum(bool(each["result"]) for each in results),
        }
    return report


def _labelling(stack: Stack, project_id: int, labels: Path, minutes: float, labellers: int) -> dict[str, Any]:
    """Annotators who label through the API, and clients of the backend beside them."""
    end = time.monotonic() + 60 * minutes
    made: list[int] = []
    refused: list[str] = []
    truth = read_truth(labels)

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

    threads = [threading.Thread(target=label, args=(number,), daemon=True) for number in range(labellers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    stopped = time.monotonic()
    while True:
        learnt = {row["task"] for row in _newest_labels(stack, project_id)}
        held = {task.id for task in stack.api().tasks(project_id) if task.annotations}
        if learnt == held or time.monotonic() > stopped + _LEARNING_S:
            break
        time.sleep(1.0)
    return {
        "labels": len(made),
        "a_second": round(len(made) / (60 * minutes), 2),
        "labelled_twice": len(made) - len(set(made)),
        "refused": len(refused),
        "first_refusal": refused[0] if refused else "",
        "lost": len(set(made) - held),
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


def _newest_labels(stack: Stack, project_id: int) -> list[dict[str, Any]]:
    registry = Registry(Path(stack.environment["CARCOND_MODELS_DIR"]), project_id)
    numbers = registry.numbers()
    return list(registry.labels(numbers[-1])) if numbers else []


def _turns(stack: Stack) -> int:
    """Number of turns that have ended so far."""
    with Redis.from_url(stack.redis_url) as redis:
        return len(Queue(TURNS, connection=redis, serializer=JSONSerializer).finished_job_registry)


def _wait_for_quiet(stack: Stack) -> None:
    """Wait until no job waits or runs, and none has for some seconds."""
    quiet_since = time.monotonic()
    with Redis.from_url(stack.redis_url) as redis:
        queues = [Queue(name, connection=redis, serializer=JSONSerializer) for name in LOOP_QUEUES]
        while time.monotonic() - quiet_since < _QUIET_S:
            if any(len(queue) or len(queue.started_job_registry) for queue in queues):
                quiet_since = time.monotonic()
            time.sleep(0.2)


@contextmanager
def _measured_processes(stack: Stack) -> Iterator[dict[str, list[tuple[float, float, int]]]]:
    """Server -> (seconds, MB of memory, open files) of its process group, collected while the block runs."""
    samples: dict[str, list[tuple[float, float, int]]] = {}
    stopped = threading.Event()

    def sample() -> None:
        while not stopped.wait(_SAMPLE_S):
            for server, pid in stack.pids.items():
                memory, files = _group_use(pid)
                samples.setdefault(server, []).append((time.monotonic(), memory, files))

    thread = threading.Thread(target=sample, daemon=True)
    thread.start()
    try:
        yield samples
    finally:
        stopped.set()
        thread.join()


def _group_use(leader: int) -> tuple[float, int]:
    """Memory in MB and open files of the processes that a server has started, itself included."""
    memory, files = 0.0, 0
    todo = [leader]
    while todo:
        process = Path(f"/proc/{todo.pop()}")
        try:
            memory += int((process / "statm").read_text().split()[1]) * 4096 / 1e6
            files += len(list((process / "fd").iterdir()))
            todo += [int(child) for child in (process / "task" / process.name / "children").read_text().split()]
        except OSError:  # it has ended
            continue
    return memory, files


def _slopes(growth: Mapping[str, list[tuple[float, float, int]]]) -> dict[str, dict[str, float]]:
    """Server -> growth a minute over the second half of the time, by least squares."""
    slopes = {}
    for server, rows in growth.items():
        late = np.array(rows[len(rows) // 2 :])
        if len(late) >= 3:
            minutes = (late[:, 0] - late[0, 0]) / 60
            slopes[server] = {
                "memory_mb": round(float(np.polyfit(minutes, late[:, 1], 1)[0]), 2),
                "files": round(float(np.polyfit(minutes, late[:, 2], 1)[0]), 2),
                "memory_now_mb": round(float(late[-1, 1]), 0),
            }
    return slopes
