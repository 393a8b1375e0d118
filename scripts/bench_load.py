"""Load on a real stack: a burst of webhooks, fifty clients, annotators through the API, and a large `/predict`."""

import asyncio
import json
import tempfile
import time
from base64 import b64encode
from collections.abc import Callable, Mapping
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
from carcond.data.synthetic_photos import draw_samples
from scripts.bench_annotators import label_together, newest_labels
from scripts.oracle import Oracle, read_truth
from scripts.process_use import measured_processes
from scripts.stack import Stack

_PHOTOS = 60
_BURST = 10_000
_CLIENTS = 50
_SECONDS_EACH = 20.0
_LARGE = 5_000
# Label Studio gives up a prediction after this long.
_LABEL_STUDIO_WAITS_S = 100.0
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
    stack: Stack, *, minutes: float, labellers: int, people: int, tasks: int, say: Callable[[str], None]
) -> dict[str, Any]:
    """Seconds, milliseconds and slopes under load; see docs/reliability.md.

    Args:
        stack: a running stack.
        minutes: of labelling through the API.
        labellers: number of annotators through the API, each at most one label a second.
        people: number of annotators in a browser beside them.
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
        with measured_processes(stack) as growth:
            report: dict[str, Any] = {"burst": _burst(stack, project_id, oracle)}
            say(f"burst: {report['burst']}")
            report["clients"] = _clients(stack, project_id)
            say(f"clients: {report['clients']}; importing {tasks} tasks")
            import_again(stack, project_id, tasks)
            _wait_for_quiet(stack)
            report["predict_large"] = _large_predict(stack, project_id)
            say(f"large predict: {report['predict_large']}")
            growth.clear()
            report["labelling"] = label_together(
                stack, project_id, photos / "labels.csv", minutes=minutes, labellers=labellers, people=people
            )
            report["growth_a_minute"] = _slopes(growth)
        return report


def import_again(stack: Stack, project_id: int, count: int) -> None:
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
    labels = {row["task"] for row in newest_labels(stack, project_id)}
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
